//! A road to a server that can be cut.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Passes bytes on, both ways, until it is cut.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let current = cut.clone();
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let (cut, server) = (current.lock().unwrap().clone(), server.clone());
                tokio::spawn(async move {
                    let pass = async {
                        let mut far = TcpStream::connect(server).await?;
                        tokio::io::copy_bidirectional(&mut near, &mut far).await
                    };
                    cut.run_until_cancelled(pass).await
                });
            }
        });
        Self { addr, cut }
    }

    /// Ends every connection; new ones pass.
    pub(crate) fn cut(&self) {
        let old = std::mem::take(&mut *self.cut.lock().unwrap());
        old.cancel();
    }
}
