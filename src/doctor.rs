//! `insightforge doctor`: what is weaker than shipped, and the remedy. The roles log the same findings at their start.

mod clocks;
mod cluster;
mod routes;
mod stuck;
mod upkeep;

use std::collections::HashMap;
use std::process::ExitCode;

use insightforge_api::system::{Finding, Level};
use insightforge_schema::catalogue;
use insightforge_schema::id::PartitionCount;
use insightforge_schema::journal;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use sqlx::{MySqlPool, Row};

use crate::caller::plain::count;
use crate::config::{ArchiveArgs, DatabaseArgs, RedisArgs};

/// The shortest statement that the database must take, in bytes: MariaDB's default.
const PACKET: i64 = 16 << 20;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    redis: RedisArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    archive: ArchiveArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let pool = args.database.pool(2)?;
    let findings = look(&args.redis, &args.redis.link()?, &pool, &args.archive).await;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    }
    for finding in findings.iter().filter(|_| !args.json) {
        let mark = match finding.level {
            Level::Good => "ok    ",
            Level::Weak => "weak  ",
            Level::Broken => "BROKEN",
        };
        println!("{mark} {}", finding.what);
        if !finding.remedy.is_empty() {
            println!("       → {}", finding.remedy);
        }
    }
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Good);
    Ok(if worst == Level::Broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything that is looked at, by the command and for `/api/system`.
pub(crate) async fn look(redis: &RedisArgs, link: &Link, pool: &MySqlPool, archive: &ArchiveArgs) -> Vec<Finding> {
    let keys = redis.keys();
    let mut findings = check_redis(link).await;
    let database = check_database(pool).await;
    let database_answers = database.iter().all(|finding| finding.level != Level::Broken);
    findings.extend(clocks::redis(link).await);
    findings.extend(database);
    if database_answers {
        findings.extend(clocks::database(pool).await);
    }
    match redis.recorded_partitions(link).await {
        Ok(count) => {
            findings.push(good(format!("{} partitions", count.get())));
            findings.extend(check_analyzers(link, &keys, count).await);
            findings.push(match archive.journal(redis, link) {
                Ok(journal) => upkeep::check_past(&journal, count).await,
                Err(error) => broken(format!("{error:#}"), "correct INSIGHTFORGE_ARCHIVE"),
            });
            if database_answers {
                findings.extend(check_projection(link, &keys, pool, count).await);
                findings.extend(stuck::webhooks(pool).await);
                findings.push(upkeep::check_comparison(pool).await);
            }
        }
        Err(error) => findings.push(broken(format!("{error:#}"), "insightforge migrate")),
    }
    findings
}

/// Version, persistence and eviction of Redis, of every master of a cluster: what a 202 is worth.
pub(crate) async fn check_redis(link: &Link) -> Vec<Finding> {
    let servers = match link.servers().await {
        Ok(servers) => servers,
        Err(error) => return vec![broken(error.to_string(), "start Redis, or correct REDIS_URL")],
    };
    let looked = futures_util::future::join_all(servers.iter().map(|(_, server)| check_server(server))).await;
    if !link.is_cluster() {
        return looked.into_iter().flatten().collect();
    }
    cluster::judge(servers.iter().map(|(name, _)| name.as_str()).zip(looked).collect())
}

async fn check_server(link: &Link) -> Vec<Finding> {
    let info: String = match link.query(&redis::cmd("INFO")).await {
        Ok(info) => info,
        Err(error) => return vec![broken(error.to_string(), "start Redis, or correct REDIS_URL")],
    };
    let mut findings = vec![judge_redis_version(&info)];
    findings.extend(cluster::judge_replicas(&info));
    // Managed services forbid CONFIG; then nothing is known, and that is said.
    match link
        .query::<HashMap<String, String>>(
            redis::cmd("CONFIG").arg("GET").arg("append*").arg("maxmemory*").arg("no-appendfsync-on-rewrite"),
        )
        .await
    {
        Ok(settings) => findings.extend(judge_redis_settings(&settings)),
        Err(error) => findings.push(weak(
            format!("Redis does not tell its durability settings ({error})"),
            "make sure of appendonly yes, appendfsync always and maxmemory-policy noeviction yourself",
        )),
    }
    findings
}

fn judge_redis_version(info: &str) -> Finding {
    let field = |name: &str| info_field(info, name);
    let version = field("redis_version").unwrap_or("unknown");
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < 7 {
        return broken(format!("Redis {version} is too old"), "use Redis 7.0 or later");
    }
    if field("role").is_some_and(|role| role != "master") {
        return broken(format!("Redis {version} is a replica"), "point REDIS_URL at the master");
    }
    good(format!("Redis {version}"))
}

/// A line of `INFO`.
fn info_field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn judge_redis_settings(settings: &HashMap<String, String>) -> Vec<Finding> {
    let setting = |name: &str| settings.get(name).map_or("", String::as_str);
    let appendonly = if setting("appendonly") == "yes" {
        good("appendonly yes".to_owned())
    } else {
        weak(
            "appendonly is off: everything accepted since the last snapshot is lost when Redis stops".to_owned(),
            "CONFIG SET appendonly yes, and in redis.conf",
        )
    };
    let appendfsync = match setting("appendfsync") {
        "always" => good("appendfsync always".to_owned()),
        other => weak(
            format!("appendfsync is {other}: an accepted upload can be lost when Redis or its machine stops"),
            "CONFIG SET appendfsync always, and in redis.conf",
        ),
    };
    let rewrite = match setting("no-appendfsync-on-rewrite") {
        "yes" => weak(
            "no-appendfsync-on-rewrite is yes: nothing is flushed while the log is rewritten".to_owned(),
            "CONFIG SET no-appendfsync-on-rewrite no, and in redis.conf",
        ),
        _ => good("no-appendfsync-on-rewrite no".to_owned()),
    };
    let eviction = match setting("maxmemory-policy") {
        "noeviction" => good("maxmemory-policy noeviction".to_owned()),
        other => weak(
            format!("maxmemory-policy is {other}: Redis may drop tasks when memory is short"),
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf",
        ),
    };
    vec![appendonly, appendfsync, rewrite, eviction]
}

/// Version, durability and migrations of the database.
pub(crate) async fn check_database(pool: &MySqlPool) -> Vec<Finding> {
    let row = sqlx::query(
        "SELECT VERSION(), CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@max_allowed_packet AS SIGNED)",
    )
    .fetch_one(pool)
    .await;
    let (version, flush, packet) = match row {
        Ok(row) => (row.get::<String, _>(0), row.get::<i64, _>(1), row.get::<i64, _>(2)),
        Err(error) => {
            return vec![broken(format!("the database does not answer: {error}"), "start it, or correct DATABASE_URL")];
        }
    };
    let mut findings = vec![good(format!("database {version}"))];
    if flush != 1 {
        findings.push(weak(
            format!(
                "innodb_flush_log_at_trx_commit is {flush}: a power failure can undo commits; a rebuild restores them"
            ),
            "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in the server's configuration",
        ));
    }
    findings.push(judge_packet(packet));
    let applied: Result<i64, _> =
        sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations WHERE success = TRUE").fetch_one(pool).await;
    let known = insightforge_schema::tables::MIGRATIONS.iter().count() as i64;
    findings.push(match applied {
        Ok(applied) if applied == known => good(format!("{known} migrations applied")),
        Ok(applied) => broken(format!("{applied} of {known} migrations applied"), "insightforge migrate"),
        Err(error) if is_missing_table(&error) => broken("the tables do not exist".to_owned(), "insightforge migrate"),
        Err(error) => broken(format!("the database does not answer: {error}"), "see what holds it up"),
    });
    findings
}

/// SQLSTATE 42S02, "base table or view not found"; everything else says nothing about the tables.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "42S02")
}

/// A row travels in one statement; one that is too long for the server would stop the projection.
fn judge_packet(bytes: i64) -> Finding {
    if bytes < PACKET {
        return broken(
            format!("max_allowed_packet is {bytes}: a statement of the projection can be longer"),
            "SET GLOBAL max_allowed_packet = 16777216 or more, and in the server's configuration",
        );
    }
    good(format!("max_allowed_packet {bytes}"))
}

/// Is there an analyzer for every model and every lane that has waiting tasks, and does everything go on?
async fn check_analyzers(link: &Link, keys: &Keys, partitions: PartitionCount) -> Vec<Finding> {
    let (workers, models) = match (catalogue::workers(link, keys).await, catalogue::models(link, keys).await) {
        (Ok(workers), Ok(models)) => (workers, models),
        (Err(error), _) | (_, Err(error)) => return vec![broken(error.to_string(), "")],
    };
    let served = models
        .iter()
        .map(|model| {
            let lane = model.lane().to_string();
            let serving = workers.iter().filter(|worker| worker.lanes.contains(&lane)).count();
            if serving > 0 {
                good(format!("{lane}: {}", count(serving as u64, "analyzer")))
            } else {
                weak(format!("{lane}: no analyzer serves it; its tasks wait"), "insightforge analyzer")
            }
        })
        .collect::<Vec<_>>();
    let routes = routes::check(link, keys, &workers).await;
    served.into_iter().chain(routes).chain(stuck::tasks(link, keys, partitions, &workers).await).collect()
}

/// How far the tables are behind, and whether anything could not be folded.
async fn check_projection(link: &Link, keys: &Keys, pool: &MySqlPool, count: PartitionCount) -> Vec<Finding> {
    let mut lag = 0;
    for partition in count.iter() {
        // The tables first: what a projector folds meanwhile must not look like events that the journal lacks.
        let folded: Result<Option<u64>, _> =
            sqlx::query_scalar("SELECT last_n FROM projection_checkpoint WHERE projection = 'live' AND part = ?")
                .bind(partition.0)
                .fetch_optional(pool)
                .await;
        let folded = match folded {
            Ok(folded) => folded.unwrap_or(0),
            Err(error) => return vec![broken(error.to_string(), "")],
        };
        match journal::last_number(link, keys, partition).await {
            Ok(last) if folded > last => {
                return vec![broken(
                    format!("partition {partition}: the tables have event {folded}, the journal ends at {last}"),
                    "Redis lost its tail: restore it, or point REDIS_URL at the right server",
                )];
            }
            Ok(last) => lag += last - folded,
            Err(error) => return vec![broken(error.to_string(), "start Redis, or correct REDIS_URL")],
        }
    }
    let faults: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM projection_faults").fetch_one(pool).await.unwrap_or(0);
    let lag = if lag > 10_000 {
        weak(format!("the tables are {lag} events behind the journal"), "is `insightforge projector` running?")
    } else {
        good(format!("the tables are {lag} events behind the journal"))
    };
    let faults = if faults > 0 {
        weak(format!("{faults} events could not be folded"), "SELECT * FROM projection_faults")
    } else {
        good("every event could be folded".to_owned())
    };
    vec![lag, faults]
}

fn good(what: String) -> Finding {
    Finding { level: Level::Good, what, remedy: String::new() }
}

fn weak(what: String, remedy: &str) -> Finding {
    Finding { level: Level::Weak, what, remedy: remedy.to_owned() }
}

fn broken(what: String, remedy: &str) -> Finding {
    Finding { level: Level::Broken, what, remedy: remedy.to_owned() }
}

#[cfg(test)]
mod tests {
    use insightforge_schema::catalogue::{Limits, Worker};

    use super::*;

    /// An analyzer that takes from `lanes`; whoever is silent at all has lost its lease there.
    pub(super) fn worker(lanes: &[&str]) -> Worker {
        Worker {
            name: "w".to_owned(),
            lanes: lanes.iter().map(|lane| (*lane).to_owned()).collect(),
            in_flight: 0,
            started_ms: 0,
            last_read_ms: 0,
            seen_ms: 0,
            infer_addr: None,
            limits: Some(Limits { lease_ms: 0, max_attempts: 3, task_timeout_ms: 1 }),
        }
    }

    fn settings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        let shipped = [
            ("appendonly", "yes"),
            ("appendfsync", "always"),
            ("no-appendfsync-on-rewrite", "no"),
            ("maxmemory-policy", "noeviction"),
        ];
        shipped.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_shipped_settings_are_found_good() {
        assert!(judge_redis_settings(&settings(&[])).iter().all(|finding| finding.level == Level::Good));
    }

    #[test]
    fn every_weaker_setting_is_named_with_its_remedy() {
        let cases = [
            ("appendonly", "no"),
            ("appendfsync", "everysec"),
            ("no-appendfsync-on-rewrite", "yes"),
            ("maxmemory-policy", "allkeys-lru"),
        ];
        for (name, value) in cases {
            let weak: Vec<_> = judge_redis_settings(&settings(&[(name, value)]))
                .into_iter()
                .filter(|finding| finding.level == Level::Weak)
                .collect();
            assert_eq!(weak.len(), 1, "{name} {value}");
            assert!(weak[0].what.contains(name) && weak[0].remedy.contains(name), "{weak:?}");
        }
    }

    #[test]
    fn a_database_that_takes_only_short_statements_is_refused() {
        assert_eq!(judge_packet(4 << 20).level, Level::Broken);
        assert_eq!(judge_packet(16 << 20).level, Level::Good);
    }

    #[test]
    fn an_old_redis_and_a_replica_are_refused() {
        assert_eq!(judge_redis_version("redis_version:6.2.7\r\nrole:master\r\n").level, Level::Broken);
        assert_eq!(judge_redis_version("redis_version:7.0.15\r\nrole:slave\r\n").level, Level::Broken);
        assert_eq!(judge_redis_version("redis_version:7.0.15\r\nrole:master\r\n").level, Level::Good);
    }
}
