//! The link to a server that is not well.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use insightforge_schema::link::{Link, LinkError};
use tokio::net::TcpListener;

#[tokio::test]
async fn however_many_wait_for_a_silent_server_each_gives_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = Link::new(&format!("redis://{}", silent.local_addr().unwrap()), Duration::from_secs(3)).unwrap();
    let began = Instant::now();
    let answers = join_all((0..20).map(|_| {
        let link = link.clone();
        async move { link.query::<String>(&redis::cmd("PING")).await }
    }));
    let answers = answers.await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(LinkError::Unavailable(_)))), "{answers:?}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
}
