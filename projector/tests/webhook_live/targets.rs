//! Where deliveries go, and where they do not.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use insightforge_projector::webhook::WebhookConfig;
use insightforge_projector::webhook::schedule::Schedule;
use insightforge_projector::webhook::send::Lookup;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::receiver::{Receiver, Reply};
use crate::stage::{DELIVERED, GIVEN_UP, Stage, eventually};

/// A resolver that gives every name these addresses.
pub(crate) fn resolving_to(addresses: &[&str]) -> Lookup {
    let addresses: Vec<SocketAddr> =
        addresses.iter().map(|address| SocketAddr::new(address.parse::<IpAddr>().unwrap(), 0)).collect();
    Arc::new(move |_| {
        let addresses = addresses.clone();
        Box::pin(async move { Ok(addresses) })
    })
}

pub(crate) async fn a_redirect_is_not_followed(stage: &Stage) {
    let canary = Receiver::start(|_| Reply::Status(200)).await;
    let target = canary.address;
    let receiver = Receiver::start(move |_| Reply::Elsewhere(target)).await;
    let (configured, own) = (stage.add("shop").await, stage.add_own(&receiver.url(), None).await);
    let sender = stage.start(Stage::open_config(&[("shop", receiver.url())]));
    for row in [configured, own] {
        eventually("an attempt", async || !stage.attempts(row).await.is_empty()).await;
        let first = ("retry".to_owned(), Some(302), Some("redirects are not followed".to_owned()));
        assert_eq!(stage.attempts(row).await[0], first);
    }
    sender.stop().await;
    assert_eq!(canary.connections(), 0);
    stage.end().await;
}

pub(crate) async fn a_forbidden_address_is_blocked_without_a_connection(stage: &Stage) {
    let canary = Receiver::start(|_| Reply::Status(200)).await;
    let port = canary.address.port();
    let mut rows = Vec::new();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"] {
        rows.push(stage.add_own(&format!("http://{host}:{port}/"), None).await);
    }
    let sender = stage.start(Stage::config(&[]));
    for row in rows {
        stage.becomes(row, GIVEN_UP).await;
        let attempts = stage.attempts(row).await;
        assert_eq!((attempts.len(), &*attempts[0].0, attempts[0].1), (1, "blocked", None));
        let error = attempts[0].2.as_deref().unwrap_or_default();
        assert!(error.contains("the operator has not allowed webhooks there"), "{error}");
        assert!(!error.contains("127.0.0.1"), "it names no address: {error}");
    }
    sender.stop().await;
    assert_eq!(canary.connections(), 0);
    stage.end().await;
}

pub(crate) async fn a_name_that_leads_to_a_forbidden_address_gets_no_connection_and_is_given_up_in_the_end(
    stage: &Stage,
) {
    let canary = Receiver::start(|_| Reply::Status(200)).await;
    let url = format!("http://hooks.example.com:{}/", canary.address.port());
    // A mixed answer is condemned as a whole.
    for addresses in [&["127.0.0.1"][..], &["93.184.216.34", "127.0.0.1"], &["::ffff:127.0.0.1"], &["169.254.169.254"]]
    {
        let row = stage.add_own(&url, None).await;
        let sender = stage.start_with(Stage::config(&[]), resolving_to(addresses));
        stage.becomes(row, GIVEN_UP).await;
        sender.stop().await;
        let attempts = stage.attempts(row).await;
        let outcomes: Vec<&str> = attempts.iter().map(|attempt| &*attempt.0).collect();
        assert_eq!(outcomes, ["retry", "retry", "retry", "retry", "gave_up"], "{addresses:?}");
        let error = attempts[0].2.as_deref().unwrap_or_default();
        assert!(error.contains("the operator has not allowed webhooks there"), "{error}");
        assert!(addresses.iter().all(|address| !error.contains(address)), "it names no address: {error}");
    }
    assert_eq!(canary.connections(), 0);
    stage.end().await;
}

pub(crate) async fn a_name_that_leads_to_a_forbidden_address_for_a_while_costs_no_delivery(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let row = stage.add_own(&format!("http://hooks.example.com:{}/", receiver.address.port()), None).await;
    let asked = AtomicUsize::new(0);
    let (wrong, right) = (resolving_to(&["10.0.0.1"]), resolving_to(&["127.0.0.1"]));
    let lookup: Lookup =
        Arc::new(move |name| if asked.fetch_add(1, Ordering::SeqCst) == 0 { wrong(name) } else { right(name) });
    let sender = stage.start_with(Stage::open_config(&[]), lookup);
    stage.becomes(row, DELIVERED).await;
    sender.stop().await;
    let outcomes: Vec<String> = stage.attempts(row).await.into_iter().map(|attempt| attempt.0).collect();
    assert_eq!(outcomes, ["retry", "delivered"]);
    stage.end().await;
}

pub(crate) async fn an_opened_network_can_be_reached_and_the_connection_is_kept(stage: &Stage) {
    let receiver = Receiver::start(|_| Reply::Status(200)).await;
    let url = format!("http://laravel:{}/", receiver.address.port());
    let config = Stage::open_config(&[]);
    let sender = stage.start_with(config, resolving_to(&["127.0.0.1"]));
    for _ in 0..20 {
        let row = stage.add_own(&url, None).await;
        stage.becomes(row, DELIVERED).await;
    }
    sender.stop().await;
    assert_eq!((receiver.count(), receiver.connections()), (20, 1));
    assert_eq!(receiver.requests()[0].header("webhook-signature"), "", "no secret, no signature");
    stage.end().await;
}

pub(crate) async fn a_kept_connection_that_died_unnoticed_costs_no_attempt(stage: &Stage) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    // Answers once a connection and leaves when it is used again.
    let serving = tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                read_request(&mut connection).await;
                connection.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
                read_request(&mut connection).await;
            });
        }
    });
    let config = WebhookConfig { schedule: Schedule::new(vec![]), ..Stage::config(&[("shop", url)]) };
    let sender = stage.start(config);
    for _ in 0..4 {
        let row = stage.add("shop").await;
        stage.becomes(row, DELIVERED).await;
        assert_eq!(stage.attempts(row).await.len(), 1);
    }
    sender.stop().await;
    serving.abort();
    stage.end().await;
}

/// Reads to the end of the body, which is one of [`crate::stage::body`]'s.
async fn read_request(connection: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(b"}}") {
        if connection.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
    }
}
