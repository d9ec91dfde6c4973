//! The listener. Few connections at once, fewer of one address, and a time limit on each wait.

mod limits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::access::Peer;
use limits::{Impatient, Places};

/// Limits of the listener.
#[derive(Clone, Debug)]
pub struct AdminOptions {
    /// Connections at once; one more waits. One address, loopback apart, has a quarter of them (4 at least); one more of it
    /// is closed.
    pub max_connections: usize,
    /// Longest wait for a request's header, the first and each further one of a connection; for its body; and for a peer
    /// that does not read its answer.
    pub timeout: Duration,
    /// Longest life of a connection, downloads and event streams included.
    pub longest_connection: Duration,
    /// Encryption; `None`: in the clear.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            max_connections: 64,
            timeout: Duration::from_secs(15),
            longest_connection: Duration::from_secs(3_700),
            tls: None,
        }
    }
}

/// A bound listener.
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
        let places = Places::new(options.max_connections);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = async {
                    let permit = Arc::clone(&room).acquire_owned().await;
                    (listener.accept().await, permit)
                } => accepted,
            };
            let (stream, peer, permit) = match accepted {
                (Ok((stream, peer)), Ok(permit)) => (stream, peer, permit),
                (Err(error), _) => {
                    // Out of descriptors, say: they come back.
                    warn!(%error, "a connection for administrators cannot be taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                (_, Err(_)) => return,
            };
            let Some(place) = places.take(peer.ip()) else {
                debug!(%peer, "an address has too many connections for administrators");
                continue;
            };
            let (routes, options, closing) = (routes.clone(), options.clone(), shutdown.clone());
            tokio::spawn(async move {
                let served = async {
                    match &options.tls {
                        None => serve(stream, peer, routes, options.timeout).await,
                        Some(tls) => {
                            let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
                            match tokio::time::timeout(options.timeout, handshake).await {
                                Ok(Ok(stream)) => serve(stream, peer, routes, options.timeout).await,
                                Ok(Err(error)) => debug!(%error, %peer, "no TLS with a connection for administrators"),
                                Err(_) => debug!(%peer, "a TLS handshake took too long"),
                            }
                        }
                    }
                };
                tokio::select! {
                    () = closing.cancelled() => {}
                    _ = tokio::time::timeout(options.longest_connection, served) => {}
                }
                drop((permit, place));
            });
        }
    }
}

/// Answers the requests of one connection.
async fn serve<S>(stream: S, peer: SocketAddr, routes: Router, timeout: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let routes = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        routes.call(request.map(|body| limits::in_time(body, timeout)))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .serve_connection(TokioIo::new(Impatient::new(stream, timeout)), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection for administrators broke");
    }
}
