//! Who may send: leases, their end, and handing back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use insightforge_projector::webhook::{Delivery, WebhookConfig};
use insightforge_schema::event::now_us;

use crate::receiver::{Receiver, Reply};
use crate::stage::{Added, DELIVERED, DUE, LEASED, Stage, body, eventually};

/// Short leases, for tests that wait for their end.
fn brief(config: WebhookConfig) -> WebhookConfig {
    let total_timeout = Duration::from_millis(400);
    WebhookConfig { connect_timeout: total_timeout, total_timeout, lease: total_timeout * 2, ..config }
}

fn first_held(n: usize) -> Reply {
    if n == 0 { Reply::Held(200) } else { Reply::Status(200) }
}

pub(crate) async fn a_delivery_of_a_sender_that_died_is_sent_by_another_under_the_same_id(stage: &Stage) {
    let receiver = Receiver::start(first_held).await;
    let config = brief(Stage::config(&[("shop", receiver.url())]));
    let row = stage.add("shop").await;
    let killed = stage.start(config.clone());
    receiver.received(1).await;
    drop(killed);
    assert_eq!(stage.outbox(row).await.state, LEASED);
    let other = stage.start(config);
    stage.becomes(row, DELIVERED).await;
    other.stop().await;

    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].header("webhook-id"), requests[1].header("webhook-id"));
    assert_eq!(requests[0].body, requests[1].body);
    assert_eq!(stage.attempts(row).await.len(), 1, "nobody knows what became of the first");
    stage.end().await;
}

pub(crate) async fn what_a_silent_sender_held_is_taken_although_more_is_due_than_one_claim_takes(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Held(200)).await;
    let due = stage.add("shop").await;
    stage.copy(due, 3_000).await;
    let held = stage.add("shop").await;
    let gone = "UPDATE webhook_outbox SET state = 1, lease_token = 5, due_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND";
    stage.execute(&format!("{gone} WHERE id = {}", held.id)).await;
    // Room for less than half of what is due.
    let config =
        WebhookConfig { queue: 512, drain: Duration::from_millis(200), ..Stage::config(&[("shop", receiver.url())]) };
    let sender = stage.start(config);
    eventually("it has another holder", async || stage.outbox(held).await.token.is_some_and(|token| token != 5)).await;
    assert!(stage.count("webhook_outbox WHERE state = 0").await > 1_000, "more is due than fits");
    sender.stop().await;
    stage.end().await;
}

pub(crate) async fn a_sender_that_lost_its_lease_records_nothing(stage: &Stage) {
    let receiver = Receiver::start(first_held).await;
    let (taken, kept) = (stage.add("shop").await, stage.add("shop").await);
    let config = WebhookConfig { per_endpoint: 1, ..Stage::config(&[("shop", receiver.url())]) };
    let sender = stage.start(config);
    receiver.received(1).await;
    // Another process has it now.
    stage.execute(&format!("UPDATE webhook_outbox SET lease_token = 77 WHERE id = {}", taken.id)).await;
    receiver.release(1);
    stage.becomes(kept, DELIVERED).await;
    sender.stop().await;

    let outbox = stage.outbox(taken).await;
    assert_eq!((outbox.state, outbox.attempts, outbox.token), (LEASED, 0, Some(77)));
    assert_eq!(stage.attempts(taken).await, []);
    assert_eq!(stage.attempts(kept).await.len(), 1);
    stage.end().await;
}

pub(crate) async fn what_was_sent_and_could_not_be_recorded_within_its_lease_is_not_sent_again(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let row = stage.add("shop").await;
    // Outcomes cannot be written, and claims can be made.
    stage.execute("RENAME TABLE webhook_attempts TO away").await;
    let sender = stage.start(brief(Stage::config(&[("shop", receiver.url())])));
    receiver.received(1).await;
    let ended = "webhook_outbox WHERE due_at < UTC_TIMESTAMP(6) - INTERVAL 1 SECOND";
    eventually("its lease has ended for a second", async || stage.count(ended).await == 1).await;
    stage.execute("RENAME TABLE away TO webhook_attempts").await;
    stage.becomes(row, DELIVERED).await;
    sender.stop().await;
    assert_eq!(receiver.count(), 1);
    assert_eq!(stage.attempts(row).await.len(), 1);
    stage.end().await;
}

pub(crate) async fn senders_share_what_is_due_and_send_nothing_twice(stage: &Stage) {
    const ROWS: usize = 400;
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    stage.add_many("shop", ROWS).await;
    let config = Stage::config(&[("shop", receiver.url())]);
    let senders = [(); 3].map(|()| stage.start(config.clone()));
    eventually("all are delivered", async || stage.count("webhook_outbox WHERE state = 2").await == ROWS as i64).await;
    for sender in senders {
        sender.stop().await;
    }
    let mut ids: Vec<String> =
        receiver.requests().iter().map(|request| request.header("webhook-id").to_owned()).collect();
    assert_eq!(ids.len(), ROWS);
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), stage.count("webhook_attempts").await), (ROWS, ROWS as i64));
    stage.end().await;
}

pub(crate) async fn a_row_whose_task_is_locked_can_be_claimed(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let row = stage.add("shop").await;
    let mut fold = stage.pool.begin().await.unwrap();
    sqlx::query("SELECT * FROM analysis_tasks FOR UPDATE").fetch_all(&mut *fold).await.unwrap();
    let sender = stage.start(Stage::config(&[("shop", receiver.url())]));
    stage.becomes(row, DELIVERED).await;
    fold.rollback().await.unwrap();
    sender.stop().await;
    stage.end().await;
}

pub(crate) async fn a_stopping_sender_ends_what_is_in_flight_and_hands_back_the_rest(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Held(200)).await;
    let mut rows = Vec::new();
    for _ in 0..10 {
        rows.push(stage.add("shop").await);
    }
    let config = WebhookConfig { per_endpoint: 1, ..Stage::config(&[("shop", receiver.url())]) };
    let sender = stage.start(config);
    receiver.received(1).await;
    assert_eq!(stage.count("webhook_outbox WHERE state = 1").await, 10);
    let handed_over_late = handed_over(stage, stage.add("shop").await, 60_000_000).await;
    let permit = sender.handoff.clone().reserve_owned().await.unwrap();
    sender.shutdown.cancel();
    // The rest is back before the one in flight ends.
    eventually("nine are back", async || stage.count("webhook_outbox WHERE state = 0").await == 9).await;
    permit.send(vec![handed_over_late]);
    receiver.release(1);
    sender.stop().await;

    assert_eq!(receiver.count(), 1);
    assert_eq!(stage.outbox(rows[0]).await.state, DELIVERED);
    let back = "webhook_outbox WHERE state = 0 AND lease_token IS NULL AND attempts = 0 AND due_at <= UTC_TIMESTAMP(6)";
    assert_eq!(stage.count(back).await, 10);
    stage.end().await;
}

pub(crate) async fn a_stopping_sender_waits_for_a_hung_receiver_no_longer_than_the_drain(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Held(200)).await;
    let row = stage.add("shop").await;
    let drain = Duration::from_secs(1);
    let sender = stage.start(WebhookConfig { drain, ..Stage::config(&[("shop", receiver.url())]) });
    receiver.received(1).await;
    let began = Instant::now();
    sender.stop().await;
    assert!(began.elapsed() < drain + Duration::from_millis(500), "{:?}", began.elapsed());
    let outbox = stage.outbox(row).await;
    assert_eq!((outbox.state, outbox.attempts, outbox.token), (DUE, 0, None));
    stage.end().await;
}

pub(crate) async fn what_was_handed_over_with_too_little_time_left_is_claimed_again(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let (late, fresh) = (stage.add("shop").await, stage.add("shop").await);
    // Leased, so that nobody claims them before they are handed over.
    let fresh = (handed_over(stage, fresh, 60_000_000).await, fresh);
    let late = (handed_over(stage, late, 5_000_000).await, late);
    let sender = stage.start(Stage::config(&[("shop", receiver.url())]));
    sender.handoff.send(vec![late.0, fresh.0]).await.unwrap();
    stage.becomes(late.1, DELIVERED).await;
    stage.becomes(fresh.1, DELIVERED).await;
    sender.stop().await;
    assert_eq!(receiver.count(), 2);
    assert_eq!(receiver.requests()[0].body, body(fresh.1.task), "the late one went back to the table first");
    stage.end().await;
}

/// A row as the fold writes it when the sender has room, and what it hands over.
async fn handed_over(stage: &Stage, row: Added, left_us: i64) -> Delivery {
    const TOKEN: u64 = 99;
    let lease_ends_us = now_us() + left_us;
    sqlx::query("UPDATE webhook_outbox SET state = 1, due_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, lease_token = ? WHERE id = ?")
        .bind(left_us)
        .bind(TOKEN)
        .bind(row.id)
        .execute(&stage.pool)
        .await
        .unwrap();
    Delivery {
        id: row.id,
        endpoint: Arc::from("shop"),
        url: None,
        sealed_secret: None,
        task: row.task,
        body: Bytes::from(body(row.task)),
        trace: None,
        attempts: 0,
        created_us: now_us(),
        lease_token: TOKEN,
        lease_ends_us,
    }
}
