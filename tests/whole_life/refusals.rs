//! Settings that cannot work do not start, and the complaint names them.

use crate::eventually;
use crate::installation::{Database, Installation, ROLES};
use crate::process::{Signal, free_addr, run_badly};

#[tokio::test]
async fn another_partition_count_than_the_recorded_one_is_refused_by_every_command() {
    let installation = Installation::migrated(Database::MariaDb).await;
    let metrics = free_addr();
    for command in [&["migrate"][..], &["replay"], &["rebuild"], &["verify"]] {
        let complaint = installation.run_badly(&[command, &["--partitions", "8"]].concat()).await;
        assert!(complaint.contains("4 partitions") && complaint.contains('8'), "{command:?}: {complaint}");
    }
    for role in ROLES {
        let complaint = installation.run_badly(&[role, "--partitions", "8", "--metrics-addr", &metrics]).await;
        assert!(complaint.contains("4 partitions") && complaint.contains('8'), "{role}: {complaint}");
    }
    installation.end().await;
}

#[tokio::test]
async fn a_partition_count_that_redis_lost_is_the_tables_and_no_other() {
    let mut installation = Installation::blank(Database::MariaDb).await;
    installation.run(&["migrate", "--partitions", "2"]).await;
    installation.start("projector").await;
    let counted = async || (installation.count("projection_checkpoint").await == 2).then_some(());
    eventually("the projector has begun", counted).await;
    installation.stop("projector", Signal::Terminate).await;
    installation.lose_config().await;
    let complaint = installation.run_badly(&["migrate", "--partitions", "4"]).await;
    assert!(complaint.contains("is 4") && complaint.contains("2 partitions"), "{complaint}");
    let said = installation.run(&["migrate"]).await;
    assert!(said.contains("2 partitions"), "{said}");
    installation.end().await;
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused_unless_allowed() {
    let mut installation = Installation::migrated(Database::MariaDb).await;
    for role in ROLES {
        let complaint = installation.run_badly(&[role, "--metrics-addr", "0.0.0.0:0"]).await;
        assert!(complaint.contains("INSIGHTFORGE_METRICS_ADDR"), "{role}: {complaint}");
        assert!(complaint.contains("INSIGHTFORGE_ALLOW_NON_LOOPBACK"), "{role}: {complaint}");
    }
    for (flag, variable) in
        [("--http-addr", "INSIGHTFORGE_HTTP_ADDR"), ("--internal-addr", "INSIGHTFORGE_INTERNAL_ADDR")]
    {
        for addr in ["0.0.0.0:0", "[::]:0"] {
            let complaint = installation.run_badly(&["api", flag, addr]).await;
            assert!(complaint.contains(variable), "{flag} {addr}: {complaint}");
        }
    }
    installation.http_addr = free_addr().replace("127.0.0.1", "0.0.0.0");
    installation.settings.push(("INSIGHTFORGE_ALLOW_NON_LOOPBACK", "true".to_owned()));
    installation.start("api").await;
    installation.end().await;
}

#[tokio::test]
async fn nothing_starts_before_the_tables_are_migrated() {
    let installation = Installation::blank(Database::MariaDb).await;
    let metrics = free_addr();
    for role in ROLES {
        let complaint = installation.run_badly(&[role, "--metrics-addr", &metrics]).await;
        assert!(complaint.contains("insightforge migrate"), "{role}: {complaint}");
    }
    installation.end().await;
}

#[tokio::test]
async fn a_setting_that_is_missing_or_wrong_is_named() {
    let installation = Installation::migrated(Database::MariaDb).await;
    let metrics = free_addr();
    for (role, variable, value) in [
        ("api", "INSIGHTFORGE_ENCRYPTION_KEY", None),
        ("api", "INSIGHTFORGE_ENCRYPTION_KEY", Some("abc")),
        ("api", "DATABASE_URL", None),
        ("api", "INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS", Some("everywhere")),
        ("projector", "INSIGHTFORGE_ENCRYPTION_KEY", Some("abc")),
        ("projector", "DATABASE_URL", None),
        ("projector", "INSIGHTFORGE_WEBHOOK_SECRET", Some("short")),
    ] {
        let mut settings = installation.settings.clone();
        settings.retain(|(name, _)| *name != variable);
        settings.extend(value.map(|value| (variable, value.to_owned())));
        let complaint = run_badly(&settings, &[role, "--metrics-addr", &metrics]).await;
        // A flag and its variable are one setting; either name leads to it.
        let flag = format!("--{}", variable.trim_start_matches("INSIGHTFORGE_").to_lowercase().replace('_', "-"));
        assert!(complaint.contains(variable) || complaint.contains(&flag), "{role} {variable} {value:?}: {complaint}");
    }
    installation.end().await;
}
