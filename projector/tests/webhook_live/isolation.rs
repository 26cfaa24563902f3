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
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let down = tokio::net::TcpSocket::new_v4().unwrap();
    down.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = down.local_addr().unwrap();
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
