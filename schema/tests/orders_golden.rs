//! Stored orders must decode for ever. `golden/orders/<type>.<version>.hex` is the `e` field of an order as a release wrote it;
//! such a file is never changed, a new encoding gets new files.

#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

use std::time::Duration;

use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::orders::{
    ENCODING, GIVEN_UP, Meta, ORDER_TYPES, Order, Ping, Resend, decode, encode, give, read,
};

fn meta() -> Meta {
    Meta { at_us: 1_764_000_000_123_456, actor: "api".to_owned(), reason: Some("the receiver is back".to_owned()) }
}

/// Every type of order with every optional field set.
fn orders() -> Vec<Order> {
    vec![
        Order::Resend(Resend {
            id: Some(1_314_819),
            endpoint: Some("default".to_owned()),
            state: Some(GIVEN_UP),
            from_us: Some(1_763_000_000_000_000),
            to_us: Some(1_764_000_000_000_000),
            since: Some(vec![1_284, 1_300, 1_275, 1_290]),
            limit: 1_000,
        }),
        Order::Ping(Ping { endpoint: "default".to_owned() }),
    ]
}

fn golden(name: &str, version: u8) -> Vec<u8> {
    let path = format!("{}/golden/orders/{name}.{version}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

#[test]
fn every_order_ever_written_is_still_read() {
    let types: Vec<String> = orders().iter().map(|order| order.order_type().to_owned()).collect();
    assert_eq!(types, ORDER_TYPES);
    for order in orders() {
        let name = order.order_type().to_owned();
        assert_eq!(decode(&name, &golden(&name, 1)), (meta(), order), "{name}");
    }
    assert_eq!(decode("later", &[1]).1, Order::Unknown("later".to_owned()));
}

#[test]
fn this_release_writes_the_orders_bytes_of_its_encoding_version() {
    for order in orders() {
        let name = order.order_type();
        let now = hex::encode(encode(&meta(), &order));
        if std::env::var_os("INSIGHTFORGE_WRITE_GOLDEN").is_some() {
            let path = format!("{}/golden/orders/{name}.{ENCODING}.hex", env!("CARGO_MANIFEST_DIR"));
            assert!(!std::path::Path::new(&path).exists(), "{path} is kept as it is");
            std::fs::write(path, format!("{now}\n")).unwrap();
        }
        let advice = "raise ENCODING and add golden files of the new version";
        assert_eq!(now, hex::encode(golden(name, ENCODING)), "{name}: {advice}");
    }
}

#[tokio::test]
async fn orders_of_many_are_numbered_without_a_gap() {
    let url = std::env::var("INSIGHTFORGE_TEST_REDIS_URL").expect("INSIGHTFORGE_TEST_REDIS_URL names a server");
    let link = Link::new(&url, Duration::from_secs(10)).unwrap();
    let keys = Keys::new(&format!("t{}", uuid::Uuid::new_v4().simple()));
    let ping = |n: usize| Order::Ping(Ping { endpoint: format!("e{n}") });
    let given = (0..8).map(async |n| give(&link, &keys, &meta(), &ping(n)).await.unwrap());
    let mut numbers = futures_util::future::join_all(given).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    let all = read(&link, &keys, 1, 100).await.unwrap();
    assert_eq!(all.iter().map(|entry| entry.n).collect::<Vec<_>>(), numbers);
    assert_eq!(read(&link, &keys, 9, 100).await.unwrap(), []);
}
