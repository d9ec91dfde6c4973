//! The listener. Few connections at once and a time limit on each: whoever asks here asks shortly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Limits of the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminOptions {
    /// Connections at once; one more waits.
    pub max_connections: usize,
    /// Longest life of a connection.
    pub timeout: Duration,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self { max_connections: 32, timeout: Duration::from_secs(15) }
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    routes: Router,
    options: AdminOptions,
}

impl AdminServer {
    /// Binds the address.
    ///
    /// # Errors
    /// What the operating system says, such as an address in use.
    pub async fn bind(address: SocketAddr, routes: Router, options: AdminOptions) -> std::io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, routes, options })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, routes, options } = self;
        let room = Arc::new(Semaphore::new(options.max_connections.max(1)));
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = async {
                    let permit = Arc::clone(&room).acquire_owned().await;
                    (listener.accept().await, permit)
                } => accepted,
            };
            let (stream, permit) = match accepted {
                (Ok((stream, _)), Ok(permit)) => (stream, permit),
                (Err(error), _) => {
                    // Out of descriptors, say: they come back.
                    warn!(%error, "a connection for administrators cannot be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                (_, Err(_)) => return,
            };
            let (service, closing) = (TowerToHyperService::new(routes.clone()), shutdown.clone());
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(options.timeout)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    () = closing.cancelled() => {}
                    served = tokio::time::timeout(options.timeout, connection) => {
                        if let Ok(Err(error)) = served {
                            debug!(%error, "a connection for administrators broke");
                        }
                    }
                }
                drop(permit);
            });
        }
    }
}
