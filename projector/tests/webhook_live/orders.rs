//! What people order: deliveries again, and test messages.

use std::time::Duration;

use insightforge_projector::webhook::orders::{Clerk, Step};
use insightforge_projector::webhook::send::system_lookup;
use insightforge_projector::webhook::{WebhookConfig, webhook_id};
use insightforge_schema::event::now_us;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::orders::{Meta, Order, Ping, Resend, give};

use crate::answers::assert_signed;
use crate::receiver::{Receiver, Reply};
use crate::stage::{DELIVERED, DUE, GIVEN_UP, SECRET, Stage};

fn redis() -> (Link, Keys) {
    let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL must name a server");
    (Link::new(&url, Duration::from_secs(10)).unwrap(), Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple())))
}

fn clerk(stage: &Stage, config: &WebhookConfig, (link, keys): &(Link, Keys)) -> Clerk {
    let connection = (link.clone(), keys.clone());
    Clerk::new(config, connection, stage.pool.clone(), stage.sealer.clone(), system_lookup()).unwrap()
}

async fn order((link, keys): &(Link, Keys), order: Order) -> u64 {
    let meta = Meta { at_us: now_us(), actor: "ann".to_owned(), reason: Some("it is back".to_owned()) };
    give(link, keys, &meta, &order).await.unwrap()
}

async fn resent(stage: &Stage, n: u64) -> Option<u64> {
    sqlx::query_scalar("SELECT resent FROM webhook_orders WHERE n = ?").bind(n).fetch_one(&stage.pool).await.unwrap()
}

pub(crate) async fn deliveries_that_are_over_are_sent_again_under_the_same_id_and_others_are_left(stage: &Stage) {
    let receiver = Receiver::start(|n| Reply::Status(if n < 5 { 410 } else { 200 })).await;
    let config = Stage::config(&[("shop", receiver.url())]);
    let mut rows = Vec::new();
    for _ in 0..5 {
        rows.push(stage.add("shop").await);
    }
    let sender = stage.start(config.clone());
    for row in &rows {
        stage.becomes(*row, GIVEN_UP).await;
    }
    sender.stop().await;
    let waiting = stage.add("shop").await;
    let redis = redis();
    let mut clerk = clerk(stage, &config, &redis);
    assert_eq!(clerk.step().await.unwrap(), Step::Idle);

    // One of them; then those behind a position, of which the limit lets one through; then the rest.
    let one = Resend { id: Some(rows[1].id), endpoint: Some("shop".to_owned()), limit: 1, ..Resend::default() };
    let n = order(&redis, Order::Resend(one)).await;
    assert_eq!(clerk.step().await.unwrap(), Step::Done(1));
    assert_eq!(resent(stage, n).await, Some(1));
    assert_eq!((stage.outbox(rows[1]).await.state, stage.outbox(rows[1]).await.attempts), (DUE, 0));
    assert_eq!(stage.outbox(rows[0]).await.state, GIVEN_UP);
    let last = insightforge_schema::id::position_of_row(rows[2].id);
    let mut since = vec![u64::MAX / 2_048; 1_024];
    since[usize::from(last.partition.0)] = last.n;
    let behind = Resend { state: Some(GIVEN_UP), since: Some(since), limit: 1, ..Resend::default() };
    let n = order(&redis, Order::Resend(behind)).await;
    clerk.step().await.unwrap();
    assert_eq!(resent(stage, n).await, Some(1));
    assert_eq!((stage.outbox(rows[3]).await.state, stage.outbox(rows[2]).await.state), (DUE, GIVEN_UP));
    let all = Resend { state: Some(GIVEN_UP), to_us: Some(now_us() + 1_000_000), limit: 100, ..Resend::default() };
    let n = order(&redis, Order::Resend(all)).await;
    let other =
        order(&redis, Order::Resend(Resend { endpoint: Some("other".to_owned()), limit: 9, ..Resend::default() }));
    let other = other.await;
    assert_eq!(clerk.step().await.unwrap(), Step::Done(2));
    assert_eq!((resent(stage, n).await, resent(stage, other).await), (Some(3), Some(0)));

    let sender = stage.start(config);
    for row in rows.iter().chain([&waiting]) {
        stage.becomes(*row, DELIVERED).await;
    }
    sender.stop().await;
    let requests = receiver.requests();
    assert_eq!(requests.len(), 11);
    for row in &rows {
        let id = webhook_id(row.task, "shop");
        assert_eq!(requests.iter().filter(|request| request.header("webhook-id") == id).count(), 2);
    }
    stage.end().await;
}

pub(crate) async fn each_order_is_done_once_whoever_does_it(stage: &Stage) {
    let config = Stage::config(&[]);
    let redis = redis();
    for _ in 0..10 {
        order(&redis, Order::Resend(Resend { limit: 1, ..Resend::default() })).await;
    }
    let (mut one, mut other) = (clerk(stage, &config, &redis), clerk(stage, &config, &redis));
    let (first, second) = tokio::join!(one.step(), other.step());
    // Who starts while the other is at work may begin behind what is done.
    assert!([first.unwrap(), second.unwrap()].contains(&Step::Done(10)));
    let rows: Vec<(u64, String, Option<String>)> =
        sqlx::query_as("SELECT n, actor, reason FROM webhook_orders ORDER BY n").fetch_all(&stage.pool).await.unwrap();
    let numbers: Vec<u64> = rows.iter().map(|row| row.0).collect();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    assert_eq!((rows[0].1.as_str(), rows[0].2.as_deref()), ("ann", Some("it is back")));
    // One that starts later goes on behind them.
    assert_eq!(clerk(stage, &config, &redis).step().await.unwrap(), Step::Idle);
    stage.end().await;
}

pub(crate) async fn a_test_message_is_signed_sent_once_and_told_of(stage: &Stage) {
    let receiver = Receiver::start(|n| Reply::Status(if n == 0 { 204 } else { 500 })).await;
    let config = Stage::config(&[("shop", receiver.url())]);
    let redis = redis();
    let mut clerk = clerk(stage, &config, &redis);
    clerk.show_endpoints().await.unwrap();
    let shown: (String, String) =
        sqlx::query_as("SELECT name, url FROM webhook_endpoints").fetch_one(&stage.pool).await.unwrap();
    assert_eq!(shown, ("shop".to_owned(), receiver.url()));
    for endpoint in ["shop", "shop", "nobody"] {
        order(&redis, Order::Ping(Ping { endpoint: endpoint.to_owned() })).await;
    }
    assert_eq!(clerk.step().await.unwrap(), Step::Done(3));
    let outcomes: Vec<(Option<u16>, Option<String>, bool)> =
        sqlx::query_as("SELECT status_code, error, done_at IS NOT NULL FROM webhook_orders ORDER BY n")
            .fetch_all(&stage.pool)
            .await
            .unwrap();
    let no_endpoint = Some("no endpoint of this name is configured".to_owned());
    assert_eq!(outcomes, [(Some(204), None, true), (Some(500), None, true), (None, no_endpoint, true)]);
    let requests = receiver.requests();
    assert_eq!(requests.len(), 2, "a test message is not repeated");
    assert_signed(&requests[0], SECRET);
    let body: serde_json::Value = serde_json::from_slice(&requests[0].body).unwrap();
    assert_eq!((&body["type"], &body["endpoint"]), (&"ping".into(), &"shop".into()));
    let (rows,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM webhook_outbox").fetch_one(&stage.pool).await.unwrap();
    assert_eq!(rows, 0);
    stage.end().await;
}
