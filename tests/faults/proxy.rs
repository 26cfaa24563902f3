//! A TCP proxy that does to connections what networks do.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to what comes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Every piece is this much late, in both directions.
    Slow(Duration),
    /// Open connections are closed, new ones too as soon as they are made.
    Cut,
    /// Open connections are reset; new ones work.
    Reset,
    /// Nothing comes through and nothing is said; what was sent meanwhile arrives when it is over.
    BlackHole,
    /// Requests arrive, replies do not: they are lost, and their connections end when it is over.
    HalfOpen,
}

pub(crate) struct Proxy {
    pub(crate) addr: String,
    weather: Arc<watch::Sender<Weather>>,
}

impl Proxy {
    pub(crate) async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let weather = Arc::new(watch::Sender::new(Weather::Fair));
        let (sky, server) = (Arc::downgrade(&weather), server.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // Without the proxy's owner there is nobody left to carry for.
                let Some(weather) = sky.upgrade() else { return };
                tokio::spawn(carry(client, server.clone(), weather.subscribe()));
            }
        });
        Self { addr, weather }
    }

    pub(crate) fn turn(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn carry(client: TcpStream, server: String, mut weather: watch::Receiver<Weather>) {
    if *weather.borrow() == Weather::Cut {
        return;
    }
    // In a black hole not even a connection is made.
    let _ = weather.wait_for(|weather| *weather != Weather::BlackHole).await;
    let Ok(server) = TcpStream::connect(server).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let requests = pass(from_client, to_server, weather.clone(), false);
    let replies = pass(from_server, to_client, weather.clone(), true);
    // Whichever direction ends, the connection ends: the halves go with their futures.
    let (from_client, to_server) = tokio::select! {
        ended = requests => ended,
        (from_server, to_client) = replies => (from_server, to_client),
    };
    if *weather.borrow() == Weather::Reset {
        for stream in [from_client.as_ref(), to_server.as_ref()] {
            let _ = stream.set_zero_linger();
        }
    }
}

/// Passes pieces on until an end, a cut or a reset; gives the halves back.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    replies: bool,
) -> (OwnedReadHalf, OwnedWriteHalf) {
    let mut piece = vec![0_u8; 16 << 10];
    let mut lost = false;
    loop {
        let now = *weather.borrow_and_update();
        if matches!(now, Weather::Cut | Weather::Reset) || (lost && now != Weather::HalfOpen) {
            return (from, to);
        }
        let read = tokio::select! {
            read = from.read(&mut piece) => read.unwrap_or(0),
            changed = weather.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return (from, to),
            },
        };
        if read == 0 {
            return (from, to);
        }
        let now = *weather.borrow();
        match now {
            Weather::Slow(time) => tokio::time::sleep(time).await,
            Weather::BlackHole => {
                let _ = weather.wait_for(|weather| *weather != Weather::BlackHole).await;
            }
            Weather::HalfOpen if replies => {
                lost = true;
                continue;
            }
            Weather::Cut | Weather::Reset => return (from, to),
            Weather::Fair | Weather::HalfOpen => {}
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return (from, to);
        }
    }
}
