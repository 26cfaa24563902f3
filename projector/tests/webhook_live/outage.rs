//! The database goes away and comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use insightforge_projector::webhook::send::system_lookup;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::receiver::{Receiver, Reply};
use crate::stage::{DELIVERED, LEASED, Stage};

pub(crate) async fn an_outage_of_the_database_is_waited_out_and_nothing_is_sent_twice(stage: &Stage) {
    let receiver = Receiver::start(|n| if n == 0 { Reply::Held(200) } else { Reply::Status(200) }).await;
    let (_, server) = stage.server_url.split_once('@').unwrap();
    let way = Way::to(server.parse().unwrap()).await;
    let row = stage.add("shop").await;
    let config = Stage::config(&[("shop", receiver.url())]);
    let sender = stage.start_at(&format!("mysql://root@{}", way.address), config, system_lookup());
    receiver.received(1).await;
    way.cut();
    receiver.release(1);
    let later = stage.add("shop").await;
    way.refused_once().await;
    assert_eq!(stage.outbox(row).await.state, LEASED, "its record waits");
    way.mend();
    stage.becomes(row, DELIVERED).await;
    stage.becomes(later, DELIVERED).await;
    sender.stop().await;
    assert_eq!(receiver.count(), 2);
    assert_eq!((stage.attempts(row).await.len(), stage.attempts(later).await.len()), (1, 1));
    stage.end().await;
}

/// A way to the server that can be cut.
struct Way {
    address: SocketAddr,
    state: Arc<State>,
    _relaying: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct State {
    cut: AtomicBool,
    cutting: Notify,
    refused: Notify,
}

impl Way {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let relaying = tokio::spawn(relay(listener, server, state.clone()));
        Self { address, state, _relaying: AbortOnDropHandle::new(relaying) }
    }

    /// Ends all connections and takes no new ones.
    fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        self.state.cutting.notify_waiters();
    }

    fn mend(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Waits until somebody has tried in vain.
    async fn refused_once(&self) {
        self.state.refused.notified().await;
    }
}

async fn relay(listener: TcpListener, server: SocketAddr, state: Arc<State>) {
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        if state.cut.load(Ordering::SeqCst) {
            state.refused.notify_one();
            continue;
        }
        let state = state.clone();
        tokio::spawn(async move {
            let cutting = state.cutting.notified();
            let mut server = TcpStream::connect(server).await.unwrap();
            tokio::select! {
                () = cutting => {}
                _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            }
        });
    }
}
