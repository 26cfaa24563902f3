//! What one receiver does must not be felt by another.

use std::time::Duration;

use insightforge_projector::webhook::WebhookConfig;
use insightforge_projector::webhook::schedule::Schedule;

use crate::receiver::{Receiver, Reply};
use crate::stage::{Stage, eventually};
use crate::targets::resolving_to;

/// Longer than a test: what hangs holds its place to the end.
const NEVER: Duration = Duration::from_secs(120);

fn patient(config: WebhookConfig) -> WebhookConfig {
    WebhookConfig { total_timeout: NEVER, lease: NEVER * 2, drain: Duration::from_millis(200), ..config }
}

pub(crate) async fn a_hung_endpoint_costs_a_healthy_one_nothing(stage: &Stage) {
    let healthy = Receiver::start(|_| Reply::Status(204)).await;
    let hung = Receiver::start(|_| Reply::Held(204)).await;
    let config = Stage::config(&[("healthy", healthy.url()), ("hung", hung.url())]);
    stage.add_many("hung", 200).await;
    stage.add_many("healthy", 200).await;
    // More hang than there are places.
    let sender = stage.start(WebhookConfig { concurrency: 64, per_endpoint: 16, ..patient(config) });
    hung.received(16).await;
    healthy.received(200).await;
    stage.add_many("healthy", 100).await;
    healthy.received(300).await;
    assert_eq!((hung.count(), hung.most_open()), (16, 16), "the hung endpoint has its own places and no more");
    sender.stop().await;
    stage.end().await;
}

pub(crate) async fn many_hung_hosts_leave_room_for_a_healthy_endpoint(stage: &Stage) {
    let healthy = Receiver::start(|_| Reply::Status(204)).await;
    let hung = Receiver::start(|_| Reply::Held(204)).await;
    let config = WebhookConfig { concurrency: 32, ..patient(Stage::open_config(&[("healthy", healthy.url())])) };
    for host in 0..100 {
        stage.add_own(&format!("http://host{host}.example:{}/", hung.address.port()), None).await;
    }
    let sender = stage.start_with(config, resolving_to(&["127.0.0.1"]));
    hung.received(16).await;
    stage.add_many("healthy", 50).await;
    healthy.received(50).await;
    assert_eq!(hung.count(), 16, "half of all places");
    sender.stop().await;
    stage.end().await;
}

pub(crate) async fn a_receiver_that_is_down_is_left_alone_and_uses_up_no_attempts_of_what_waits(stage: &Stage) {
    const WAITING: i64 = 200;
    let (_bound, address) = down();
    stage.add_many("down", usize::try_from(WAITING).unwrap()).await;
    let schedule = Schedule::default();
    let config = WebhookConfig { schedule, ..Stage::config(&[("down", format!("http://{address}/"))]) };
    let sender = stage.start(config);
    let off = "webhook_outbox WHERE state = 0 AND due_at > UTC_TIMESTAMP(6)";
    eventually("all is put off", async || stage.count(off).await == WAITING).await;
    let attempted = stage.count("webhook_outbox WHERE attempts > 0").await;
    assert!((10..=26).contains(&attempted), "ten failures in a row, and what was in flight: {attempted}");
    sender.stop().await;
    stage.end().await;
}

pub(crate) async fn what_is_due_for_a_receiver_that_is_down_is_left_in_the_table_unread(stage: &Stage) {
    const ROWS: i64 = 3_000;
    let (_bound, address) = down();
    let url = format!("http://{address}/");
    let configured = stage.add("down").await;
    stage.copy(configured, ROWS - 1).await;
    let callers = stage.add_own(&format!("{url}hook?of=1"), None).await;
    stage.copy(callers, ROWS - 1).await;
    let config = WebhookConfig { schedule: Schedule::default(), ..Stage::open_config(&[("down", url)]) };
    let sender = stage.start(config);
    for endpoint in ["down", "task"] {
        let of = format!("webhook_outbox WHERE endpoint = '{endpoint}'");
        // One statement put them off, not one claim after the other.
        let together = format!("(SELECT due_at FROM {of} GROUP BY due_at HAVING COUNT(*) > 1000) together");
        eventually("many are left where they are", async || stage.count(&together).await > 0).await;
        let attempted = stage.count(&format!("{of} AND attempts > 0")).await;
        assert!((10..=40).contains(&attempted), "ten failures in a row, what was in flight, and probes: {attempted}");
    }
    sender.stop().await;
    stage.end().await;
}

pub(crate) async fn what_has_waited_for_longer_than_the_schedule_is_given_up_while_its_receiver_is_down(stage: &Stage) {
    const EACH: i64 = 700;
    let (_bound, address) = down();
    let (old, young) = (stage.add("down").await, stage.add("down").await);
    stage.execute(&format!("UPDATE webhook_outbox SET created_at = '2001-01-01' WHERE id = {}", old.id)).await;
    stage.copy(old, EACH - 1).await;
    stage.copy(young, EACH - 1).await;
    let config = Stage::config(&[("down", format!("http://{address}/"))]);
    let sender = stage.start(WebhookConfig {
        schedule: Schedule::default(),
        give_up_after: Duration::from_secs(3600),
        patience: Duration::ZERO,
        ..config
    });
    let given_up = "webhook_outbox WHERE state = 3 AND finished_at IS NOT NULL AND lease_token IS NULL";
    // Some of the old are probes, or were in flight; their turn comes with the next.
    eventually("the old are given up", async || stage.count(given_up).await > EACH - 40).await;
    assert_eq!(stage.count(&format!("{given_up} AND created_at > '2001-01-02'")).await, 0);
    let young = "webhook_outbox WHERE state IN (0, 1) AND created_at > '2001-01-02'";
    assert_eq!(stage.count(young).await, EACH, "the schedule holds for the young");
    let said = "webhook_attempts WHERE outcome = 'gave_up' AND error LIKE 'not sent: its receiver has been down%'";
    assert!(stage.count(said).await > EACH - 40);
    sender.stop().await;
    stage.end().await;
}

pub(crate) async fn what_is_old_is_sent_all_the_same_once_there_is_somebody_to_send_it(stage: &Stage) {
    let receiver = Receiver::start(|n| if n < 12 { Reply::Status(500) } else { Reply::Status(200) }).await;
    let row = stage.add("shop").await;
    stage.execute("UPDATE webhook_outbox SET created_at = '2001-01-01'").await;
    stage.copy(row, 99).await;
    let config = Stage::config(&[("shop", receiver.url())]);
    let sender = stage.start(WebhookConfig { schedule: Schedule::new(vec![Duration::from_millis(20); 20]), ..config });
    eventually("all are delivered", async || stage.count("webhook_outbox WHERE state = 2").await == 100).await;
    sender.stop().await;
    stage.end().await;
}

pub(crate) async fn what_was_ordered_again_has_its_time_anew_however_old_it_is(stage: &Stage) {
    const ROWS: i64 = 200;
    let (_bound, address) = down();
    let row = stage.add("down").await;
    stage.execute("UPDATE webhook_outbox SET created_at = '2001-01-01'").await;
    stage.copy(row, ROWS - 1).await;
    stage
        .execute(
            "INSERT INTO webhook_orders (n, kind, actor, ordered_at, done_at)
            VALUES (1, 'resend', 'test', UTC_TIMESTAMP(6), UTC_TIMESTAMP(6))",
        )
        .await;
    let config = Stage::config(&[("down", format!("http://{address}/"))]);
    let sender = stage.start(WebhookConfig {
        schedule: Schedule::default(),
        give_up_after: Duration::from_secs(3600),
        patience: Duration::ZERO,
        ..config
    });
    let off = "webhook_outbox WHERE state = 0 AND due_at > UTC_TIMESTAMP(6)";
    eventually("all is put off", async || stage.count(off).await == ROWS).await;
    sender.stop().await;
    assert_eq!(stage.count("webhook_outbox WHERE state = 3").await, 0);
    stage.end().await;
}

/// An address that refuses connections for as long as the socket lives: bound and not listening, so that nobody else gets
/// the port.
fn down() -> (tokio::net::TcpSocket, std::net::SocketAddr) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}
