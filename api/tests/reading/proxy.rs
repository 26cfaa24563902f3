//! A road to a server that can be cut or blocked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Passes bytes on, both ways.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    cut: Arc<Mutex<CancellationToken>>,
    blocked: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let cut = Arc::new(Mutex::new(CancellationToken::new()));
        let (blocked, blocks) = watch::channel(false);
        let current = cut.clone();
        tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (cut, server, blocks) = (current.lock().unwrap().clone(), server.clone(), blocks.clone());
                tokio::spawn(async move {
                    let pass = async {
                        let (near_in, near_out) = near.into_split();
                        let (far_in, far_out) = TcpStream::connect(server).await?.into_split();
                        tokio::try_join!(pass(near_in, far_out, blocks.clone()), pass(far_in, near_out, blocks))
                    };
                    cut.run_until_cancelled(pass).await
                });
            }
        });
        Self { addr, cut, blocked }
    }

    /// Ends every connection; new ones pass.
    pub(crate) fn cut(&self) {
        let old = std::mem::take(&mut *self.cut.lock().unwrap());
        old.cancel();
    }

    /// Lets nothing through and ends nothing, as a server that has frozen.
    pub(crate) fn block(&self) {
        self.blocked.send_replace(true);
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut blocks: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 65_536];
    loop {
        let count = from.read(&mut bytes).await?;
        // Fails when the proxy is gone, and with it the test.
        if blocks.wait_for(|blocked| !blocked).await.is_err() {
            return Ok(());
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}
