//! The listener. Few connections at once, fewer of one address, and a time limit on each wait.

mod limits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use hyper::header::{FORWARDED, HeaderMap, HeaderName};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ichor_core::TrustedProxies;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::access::Peer;
use crate::problem::Problem;
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
    /// Proxies that are believed when they say whom they speak for.
    pub trusted_proxies: TrustedProxies,
    /// Encryption; `None`: in the clear.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self {
            max_connections: 64,
            timeout: Duration::from_secs(15),
            longest_connection: Duration::from_secs(3_700),
            trusted_proxies: TrustedProxies::default(),
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
            // A proxy's connections are those of many.
            let is_proxy = options.trusted_proxies.contains(peer.ip());
            let place = if is_proxy { Some(None) } else { places.take(peer.ip()).map(Some) };
            let Some(place) = place else {
                debug!(%peer, "an address has too many connections for administrators");
                continue;
            };
            let (routes, options, closing) = (routes.clone(), options.clone(), shutdown.clone());
            tokio::spawn(async move {
                let served = async {
                    match &options.tls {
                        None => serve(stream, peer, routes, &options).await,
                        Some(tls) => {
                            let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
                            match tokio::time::timeout(options.timeout, handshake).await {
                                Ok(Ok(stream)) => serve(stream, peer, routes, &options).await,
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

/// Who asks: the peer, or whom a trusted proxy speaks for.
fn client(proxies: &TrustedProxies, peer: SocketAddr, headers: &HeaderMap) -> Result<SocketAddr, Problem> {
    let values = |name: HeaderName| headers.get_all(name).iter().map(|value| value.as_bytes()).collect::<Vec<_>>();
    let (plain, standard) = (values(HeaderName::from_static("x-forwarded-for")), values(FORWARDED));
    let client = proxies.client(peer.ip(), &plain, &standard).map_err(|error| Problem::bad(error.to_string()))?;
    Ok(if client == peer.ip() { peer } else { SocketAddr::from((client, 0)) })
}

/// Answers the requests of one connection.
async fn serve<S>(stream: S, peer: SocketAddr, routes: Router, options: &AdminOptions)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (routes, timeout) = (TowerToHyperService::new(routes), options.timeout);
    let proxies = &options.trusted_proxies;
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let client = client(proxies, peer, request.headers());
        let answer = client.map(|client| {
            request.extensions_mut().insert(Peer(client));
            routes.call(request.map(|body| limits::in_time(body, timeout)))
        });
        async move {
            match answer {
                Ok(answer) => answer.await,
                Err(problem) => Ok(problem.into_response()),
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout)
        .serve_connection(TokioIo::new(Impatient::new(stream, timeout)), service);
    if let Err(error) = connection.await {
        debug!(%error, "a connection for administrators broke");
    }
}
