//! Measures how long an event takes from the journal to those who follow it, at a running door.
//!
//! usage: cargo run --release -p insightforge-api --example followers -- HOST:PORT FOLLOWERS RATE SECONDS [EVERYTHING]
//!
//! `EVERYTHING` of the `FOLLOWERS` follow all events, the others one task each; every upload (`RATE` a second) is the task of
//! one of them, so that each follower that hears something hears what it asked for. Times are from the event's own (`at`) to
//! the message's arrival, by this machine's clock; client and door share its cores. Without an analyzer, uploads are all
//! that happens.

#![expect(clippy::unwrap_used, reason = "it ends by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Semaphore, mpsc};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

/// Connections that are opened at once.
const OPENING: usize = 64;

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [door, numbers @ ..] = &given[..] else { panic!("HOST:PORT FOLLOWERS RATE SECONDS [EVERYTHING]") };
    let number = |at: usize| numbers.get(at).map_or(0, |text| text.parse::<usize>().unwrap());
    let (followers, rate, seconds, everything) = (number(0), number(1), number(2), number(3));

    let tasks: Arc<[Uuid]> = (0..(rate * seconds).max(followers)).map(|_| Uuid::now_v7()).collect();
    let ready = Arc::new(Barrier::new(followers + 1));
    let opening = Arc::new(Semaphore::new(OPENING));
    let (heard, mut times) = mpsc::unbounded_channel();
    let lost = Arc::new(AtomicU64::new(0));
    for follower in 0..followers {
        let topic =
            if follower < everything { "\"all\"".to_owned() } else { format!("{{\"task\":\"{}\"}}", tasks[follower]) };
        let follow =
            follow(door.clone(), topic, ready.clone(), opening.clone(), (follower < everything, heard.clone()));
        let lost = lost.clone();
        tokio::spawn(async move {
            follow.await;
            lost.fetch_add(1, Ordering::Relaxed);
        });
    }
    ready.wait().await;
    println!("{followers} follow, {everything} of them everything");

    let client = reqwest::Client::new();
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let mut sent = 0;
    while sent < rate * seconds {
        tick.tick().await;
        let due = ((began.elapsed().as_secs_f64() * rate as f64) as usize).min(rate * seconds);
        for task in &tasks[sent..due] {
            let body = serde_json::json!({
                "data": "{\"text\":\"好消息!\"}", "task_type": "sentiment_analysis", "model_version": "v1.0", "task_id": task,
            });
            let upload = client.post(format!("http://{door}/api/data/upload")).json(&body).send();
            tokio::spawn(async move { assert!(upload.await.unwrap().status().is_success()) });
        }
        sent = due;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("{sent} events in {:.1} s", began.elapsed().as_secs_f64() - 2.0);
    let (mut own, mut all) = (Vec::new(), Vec::new());
    while let Ok((everything, took_ms)) = times.try_recv() {
        if everything { all.push(took_ms) } else { own.push(took_ms) }
    }
    report("followers of one task", own);
    report("followers of everything", all);
    println!("{} followers were cut off", lost.load(Ordering::Relaxed));
}

async fn follow(
    door: String,
    topic: String,
    ready: Arc<Barrier>,
    opening: Arc<Semaphore>,
    (everything, heard): (bool, mpsc::UnboundedSender<(bool, f64)>),
) {
    let mut socket = {
        let _turn = opening.acquire().await.unwrap();
        let stream = TcpStream::connect(&door).await.unwrap();
        let (mut socket, _) = client_async(format!("ws://{door}/api/ws"), stream).await.unwrap();
        socket.send(Message::text(format!("{{\"subscribe\":{topic}}}"))).await.unwrap();
        while !matches!(socket.next().await, Some(Ok(Message::Text(text))) if text.starts_with("{\"cursor\"") || text.starts_with("{\"subscribed\""))
        {
        }
        socket
    };
    ready.wait().await;
    while let Some(Ok(message)) = socket.next().await {
        let now = Utc::now();
        let Message::Text(text) = message else { continue };
        let Some(at) = text.split("\"at\":\"").nth(1).and_then(|rest| rest.split('"').next()) else { continue };
        let at: DateTime<Utc> = at.parse().unwrap();
        let took_ms = (now - at).num_microseconds().unwrap() as f64 / 1e3;
        if heard.send((everything, took_ms)).is_err() {
            return;
        }
    }
}

fn report(who: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    if let Some(last) = times.len().checked_sub(1) {
        let at = |share: f64| times[(last as f64 * share) as usize];
        println!(
            "{who}: {} events, p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}
