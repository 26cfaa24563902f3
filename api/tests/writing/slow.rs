//! Connections that dawdle are closed; what they sent is not stored.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::door::{Door, good};

/// Sends `start`, then a byte of `drip` every `pause`; gives what was answered and after what time the end came.
async fn dribble(door: &Door, start: &str, drip: &str, pause: Duration) -> (String, Duration) {
    let began = Instant::now();
    let (mut from, mut to) = TcpStream::connect(door.addr).await.unwrap().into_split();
    to.write_all(start.as_bytes()).await.unwrap();
    let drip = drip.to_owned();
    let dripping = tokio::spawn(async move {
        for byte in drip.bytes() {
            tokio::time::sleep(pause).await;
            if to.write_all(&[byte]).await.is_err() {
                break;
            }
        }
        // Keeps the connection open, as a dawdler would.
        tokio::time::sleep(Duration::from_secs(120)).await;
        drop(to);
    });
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(60), from.read_to_end(&mut answer)).await;
    dripping.abort();
    assert!(read.is_ok(), "the connection stays open");
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

#[tokio::test]
async fn a_header_that_drips_is_not_waited_for() {
    let door = Door::open().await;
    let drip = "X-Padding: x\r\n".repeat(100);
    let start = "POST /api/data/upload HTTP/1.1\r\nHost: x\r\n";
    let (_, took) = dribble(&door, start, &drip, Duration::from_millis(200)).await;
    assert!((4..10).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test]
async fn a_body_that_drips_is_not_waited_for() {
    let door = Door::open().await;
    let body = good().to_string();
    let start = format!(
        "POST /api/data/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (answer, took) = dribble(&door, &start, &body, Duration::from_millis(900)).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("too-slow"), "{answer}");
    assert!((18..30).contains(&took.as_secs()), "{took:?}");
    assert_eq!(door.events().await.len(), 0);
}

#[tokio::test]
async fn a_body_that_stops_is_not_waited_for() {
    let door = Door::open().await;
    let start =
        "POST /api/data/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    let (answer, took) = dribble(&door, start, "", Duration::from_secs(1)).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!((13..25).contains(&took.as_secs()), "{took:?}");
    assert_eq!(door.events().await.len(), 0);
}

#[tokio::test]
async fn who_asks_before_sending_too_much_is_answered_at_once() {
    let door = Door::open().await;
    let began = Instant::now();
    let mut connection = TcpStream::connect(door.addr).await.unwrap();
    let head = "POST /api/data/upload HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
        Expect: 100-continue\r\nContent-Length: 10000000\r\n\r\n";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    connection.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(began.elapsed() < Duration::from_secs(4));
}
