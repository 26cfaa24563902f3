//! Connections. One that dawdles over its header or body, that takes nothing of its answer, or that comes when all places
//! are taken, does not hold what others need: `axum::serve` of the current release would wait for a header for ever.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::RunError;
use crate::impatient::Impatient;

/// From a connection's first byte to the end of its header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For a peer to take some of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// The largest request header, in bytes.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// For requests in flight when the process is told to stop.
const DRAIN: Duration = Duration::from_secs(8);
/// After `accept` failed, which is nearly always for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound listener.
pub struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
}

impl Listener {
    /// # Errors
    /// [`RunError::Bind`].
    pub async fn bind(addr: SocketAddr) -> Result<Self, RunError> {
        let bound = async {
            let socket = TcpListener::bind(addr).await?;
            let addr = socket.local_addr()?;
            Ok(Self { socket, addr })
        };
        bound.await.map_err(|error| RunError::Bind { addr, error })
    }

    /// The address that was bound, with the port the kernel chose where none was given.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers connections until `shutdown`; then lets requests in flight end.
    pub async fn serve(self, router: Router, shutdown: CancellationToken) {
        self.serve_by(TowerToHyperService::new(router), shutdown).await;
    }

    /// As [`Listener::serve`], by a service without layers.
    pub(crate) async fn serve_by<S, B>(self, service: S, shutdown: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut builder = Builder::new(TokioExecutor::new()).http1_only();
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES);
        loop {
            let Some(place) = shutdown.run_until_cancelled(places.clone().acquire_owned()).await else { break };
            let place = place.expect("the semaphore is never closed");
            let Some(accepted) = shutdown.run_until_cancelled(self.socket.accept()).await else { break };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            prepare(&stream);
            let connection = builder
                .serve_connection_with_upgrades(TokioIo::new(Impatient::new(stream, WRITE_TIMEOUT)), service.clone())
                .into_owned();
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                // Errors here are the peer's: it went away, or it sent no HTTP. hyper has answered what can be answered.
                let _ = connection.await;
                drop(place);
            });
        }
        drop(self.socket);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests in flight were cut off");
        }
    }
}

fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection keeps Nagle's algorithm");
    }
}
