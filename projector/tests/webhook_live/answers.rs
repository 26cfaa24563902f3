//! What is sent, and what follows from the answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use insightforge_projector::webhook::schedule::Schedule;
use insightforge_projector::webhook::send::MAX_KEPT;
use insightforge_projector::webhook::{WebhookConfig, webhook_id};
use insightforge_projector::{Config, Deps, Upkeep};
use insightforge_schema::event::{Change, Completed, Meta, Processing, Submitted, Webhook, encode, now_us};
use insightforge_schema::id::{Partition, PartitionCount, TaskId};
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use sha2::Sha256;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use crate::receiver::{Received, Receiver, Reply};
use crate::stage::{Added, DELIVERED, DUE, GIVEN_UP, SECRET, Stage, body};

fn mac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// Checks both signatures the way a receiver does.
pub(crate) fn assert_signed(request: &Received, secret: &str) {
    let key = match secret.strip_prefix("whsec_") {
        Some(encoded) => STANDARD.decode(encoded).unwrap(),
        None => secret.as_bytes().to_vec(),
    };
    let (id, at) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    let age = now_us() / 1_000_000 - at.parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{at}");
    let expected = mac(&key, &[id.as_bytes(), b".", at.as_bytes(), b".", &request.body]);
    assert_eq!(request.header("webhook-signature"), format!("v1,{}", STANDARD.encode(expected)));
    assert_eq!(request.header("x-webhook-signature"), hex::encode(mac(secret.as_bytes(), &[&request.body])));
}

pub(crate) async fn a_delivery_arrives_once_signed_and_is_recorded(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Status(204)).await;
    let row = stage.add("shop").await;
    let sender = stage.start(Stage::config(&[("shop", receiver.url())]));
    stage.becomes(row, DELIVERED).await;
    sender.stop().await;

    let requests = receiver.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].body, body(row.task));
    assert_eq!(requests[0].header("webhook-id"), webhook_id(row.task, "shop"));
    assert_eq!(requests[0].header("content-type"), "application/json");
    assert_eq!(requests[0].header("accept-encoding"), "identity");
    assert_signed(&requests[0], SECRET);
    assert_eq!(stage.attempts(row).await, [("delivered".to_owned(), Some(204), None)]);
    let outbox = stage.outbox(row).await;
    assert_eq!((outbox.attempts, outbox.token), (1, None));
    let sent: (i64, String, String, String) =
        sqlx::query_as("SELECT sent_s, signature, legacy_signature, trace FROM webhook_attempts")
            .fetch_one(&stage.pool)
            .await
            .unwrap();
    let header = |name| requests[0].header(name).to_owned();
    assert_eq!(sent.0.to_string(), header("webhook-timestamp"));
    assert_eq!(sent.1, header("webhook-signature"));
    assert_eq!((sent.2, sent.3), (header("x-webhook-signature"), header("traceparent")));
    stage.end().await;
}

pub(crate) async fn what_a_receiver_says_is_kept_of_operators_alone(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Says(500, "no such \u{1f4e6} table: 'orders'")).await;
    let long = Receiver::start(|_| Reply::Endless(500)).await;
    let nobody = "http://127.0.0.1:9/".to_owned();
    let rows = [stage.add("shop").await, stage.add("long").await, stage.add("nobody").await];
    let own = stage.add_own(&receiver.url(), None).await;
    let endpoints = [("shop", receiver.url()), ("long", long.url()), ("nobody", nobody)];
    let config = WebhookConfig { schedule: Schedule::new(vec![]), ..Stage::open_config(&endpoints) };
    let sender = stage.start(config);
    for row in rows.into_iter().chain([own]) {
        stage.becomes(row, GIVEN_UP).await;
    }
    sender.stop().await;

    let kept = async |row: Added| -> (Option<i64>, Option<String>, Option<bool>) {
        sqlx::query_as("SELECT sent_s, answer, answer_cut FROM webhook_attempts WHERE outbox_id = ?")
            .bind(row.id)
            .fetch_one(&stage.pool)
            .await
            .unwrap()
    };
    let (sent, said, cut) = kept(rows[0]).await;
    assert_eq!((sent.is_some(), said.as_deref(), cut), (true, Some("no such \u{1f4e6} table: 'orders'"), Some(false)));
    let (_, said, cut) = kept(rows[1]).await;
    assert_eq!((said.map(|said| said.len()), cut), (Some(MAX_KEPT), Some(true)));
    assert_eq!(kept(rows[2]).await, (None, None, None), "nothing left this machine");
    let (sent, said, _) = kept(own).await;
    assert_eq!((sent.is_some(), said), (true, None), "an answer to a caller's URL is not kept");
    stage.end().await;
}

pub(crate) async fn an_ended_task_is_announced_to_its_own_url_and_to_the_endpoint(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let redis = std::env::var("INSIGHTFORGE_TEST_REDIS_URL")
        .expect("INSIGHTFORGE_TEST_REDIS_URL must name a Redis server for the tests");
    let link = Link::new(&redis, Duration::from_secs(10)).unwrap();
    let (keys, task) = (Keys::new(&stage.database), TaskId::new());
    let sealed = stage.sealer.seal(b"the task's own secret", task.0.as_bytes());
    let changes = [
        Change::Submitted(Submitted {
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            data: "{}".to_owned(),
            user_id: None,
            webhook: Some(Webhook { url: receiver.url(), sealed_secret: Some(sealed) }),
            batch: None,
            retry_of: None,
            expires_us: None,
        }),
        Change::Processing(Processing { worker: "w".to_owned() }),
        Change::Completed(Completed {
            task_type: "acting".to_owned(),
            model_version: "v1".to_owned(),
            result: r#"{"sentiment":"Positive"}"#.to_owned(),
            inference_us: 5,
            batch_size: 1,
            route: None,
        }),
    ];
    for (index, change) in changes.iter().enumerate() {
        let (at_us, attempt) = (now_us(), u32::from(index > 0));
        let meta = Meta { at_us, tenant: "default".to_owned(), actor: "test".to_owned(), attempt, trace: None };
        let mut add = redis::cmd("XADD");
        add.arg(keys.journal(Partition(0))).arg("0-*").arg("type").arg(change.event_type());
        add.arg("task").arg(task.to_string()).arg("first").arg(index.min(1)).arg("e").arg(encode(&meta, change));
        link.query::<String>(&add).await.unwrap();
    }
    let shutdown = CancellationToken::new();
    let config = Config {
        partitions: PartitionCount::new(1).unwrap(),
        owner: "test".to_owned(),
        batch_events: 100,
        webhook: Stage::open_config(&[("shop", receiver.url())]),
        upkeep: Upkeep::default(),
    };
    let deps = Deps { link, keys, pool: stage.pool.clone(), sealer: stage.sealer.clone(), archive: None };
    let projector = tokio::spawn(insightforge_projector::run(config, deps, shutdown.clone()));
    receiver.received(2).await;
    shutdown.cancel();
    projector.await.unwrap().unwrap();

    let mut requests = receiver.requests();
    requests.sort_by_key(|request| request.header("webhook-id").to_owned());
    let ids: Vec<&str> = requests.iter().map(|request| request.header("webhook-id")).collect();
    assert_eq!(ids, [webhook_id(task, "shop"), webhook_id(task, "task")]);
    assert_signed(&requests[0], SECRET);
    assert_signed(&requests[1], "the task's own secret");
    let told: serde_json::Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!((&told["status"], &told["result"]["sentiment"]), (&"completed".into(), &"Positive".into()));
    assert_eq!(stage.count("webhook_outbox WHERE state = 2 AND attempts = 1").await, 2);
    stage.end().await;
}

pub(crate) async fn failures_are_retried_under_the_same_id_until_one_succeeds(stage: &Stage) {
    let receiver = Receiver::start(|n| Reply::Status([500, 404, 200][n])).await;
    let row = stage.add("shop").await;
    let sender = stage.start(Stage::config(&[("shop", receiver.url())]));
    stage.becomes(row, DELIVERED).await;
    sender.stop().await;

    let requests = receiver.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests {
        assert_eq!(request.header("webhook-id"), webhook_id(row.task, "shop"));
        assert_signed(request, SECRET);
    }
    let retry = |code| ("retry".to_owned(), Some(code), None);
    assert_eq!(stage.attempts(row).await, [retry(500), retry(404), ("delivered".to_owned(), Some(200), None)]);
    stage.end().await;
}

pub(crate) async fn a_receiver_that_is_gone_or_fails_to_the_end_is_given_up(stage: &Stage) {
    let gone = Receiver::start(|_| Reply::Status(410)).await;
    let failing = Receiver::start(|_| Reply::Status(500)).await;
    let (one, two) = (stage.add("gone").await, stage.add("failing").await);
    let config = Stage::config(&[("gone", gone.url()), ("failing", failing.url())]);
    let sender = stage.start(config);
    stage.becomes(one, GIVEN_UP).await;
    stage.becomes(two, GIVEN_UP).await;
    sender.stop().await;

    assert_eq!((gone.count(), failing.count()), (1, 5), "the schedule has four waits");
    let attempts = stage.attempts(one).await;
    assert_eq!(
        attempts[0],
        ("gave_up".to_owned(), Some(410), Some("the receiver wants no more deliveries".to_owned()))
    );
    let outcomes: Vec<String> = stage.attempts(two).await.into_iter().map(|(outcome, ..)| outcome).collect();
    assert_eq!(outcomes, ["retry", "retry", "retry", "retry", "gave_up"]);
    assert_eq!(stage.count("webhook_outbox WHERE state = 3 AND finished_at IS NOT NULL").await, 2);
    stage.end().await;
}

pub(crate) async fn a_receiver_that_asks_for_time_gets_it_and_its_other_deliveries_wait_unattempted(stage: &Stage) {
    let seconds = Receiver::start(|_| Reply::Later(429, "3600")).await;
    let date = Receiver::start(|_| Reply::Later(503, "Fri, 01 Jan 2100 00:00:00 GMT")).await;
    let config = Stage::config(&[("seconds", seconds.url()), ("date", date.url())]);
    let (one, two) = (stage.add("seconds").await, stage.add("date").await);
    let sender = stage.start(config);
    seconds.received(1).await;
    date.received(1).await;
    for row in [one, two] {
        stage.becomes(row, DUE).await;
    }
    // Handed to a receiver that has asked for silence: put off without an attempt.
    let later = stage.add("seconds").await;
    crate::stage::eventually("it is put off", async || stage.outbox(later).await.due_in_s > 500).await;
    sender.stop().await;

    let due_in_s = stage.outbox(one).await.due_in_s;
    assert!((3_500..=3_600 * 12 / 10).contains(&due_in_s), "{due_in_s}");
    let due_in_s = stage.outbox(two).await.due_in_s;
    assert!((86_300..=86_400 * 12 / 10).contains(&due_in_s), "a day at most and a fifth: {due_in_s}");
    assert_eq!((seconds.count(), date.count()), (1, 1));
    assert_eq!((stage.outbox(later).await.state, stage.outbox(later).await.attempts), (DUE, 0));
    stage.end().await;
}

pub(crate) async fn what_cannot_be_sent_is_an_attempt_that_says_why(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let unknown = stage.add("unknown").await;
    let orphan = stage.add("shop").await;
    stage.execute(&format!("DELETE FROM analysis_tasks WHERE id = {}", orphan.id)).await;
    let sealed = stage.add_own(&receiver.url(), Some("a secret of the task")).await;
    stage.execute(&format!("UPDATE webhook_outbox SET secret = X'0102' WHERE id = {}", sealed.id)).await;
    let keyless = stage.add_own(&receiver.url(), Some("whsec_%%%")).await;
    let config = Stage::open_config(&[("shop", receiver.url())]);
    let sender =
        stage.start(insightforge_projector::webhook::WebhookConfig { schedule: Schedule::new(vec![]), ..config });
    for row in [unknown, orphan, sealed, keyless] {
        stage.becomes(row, GIVEN_UP).await;
    }
    sender.stop().await;

    assert_eq!(receiver.count(), 0);
    for (row, why) in [
        (unknown, "no endpoint of this name is configured"),
        (sealed, "the secret cannot be opened with this installation's key"),
        (keyless, "the secret is no key"),
    ] {
        assert_eq!(stage.attempts(row).await, [("gave_up".to_owned(), None, Some(why.to_owned()))]);
    }
    stage.end().await;
}

pub(crate) async fn an_answer_without_end_costs_nothing_and_counts_by_its_status(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Endless(200)).await;
    let row = stage.add("shop").await;
    let sender = stage.start(Stage::config(&[("shop", receiver.url())]));
    stage.becomes(row, DELIVERED).await;
    sender.stop().await;
    let duration_us: u64 =
        sqlx::query_scalar("SELECT duration_us FROM webhook_attempts").fetch_one(&stage.pool).await.unwrap();
    assert!(duration_us < 5_000_000, "it was read to a bound, not to the timeout: {duration_us}");
    assert_eq!(receiver.count(), 1);
    stage.end().await;
}
