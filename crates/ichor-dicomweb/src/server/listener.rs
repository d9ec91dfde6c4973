//! The listener: accepts connections, bounds their number, and drains them at shutdown.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::answer;
use super::archive::Archive;
use super::handler::{Refusal, Sender, StowHandler};
use super::options::ServerOptions;
use super::request;
use super::stream::Watched;
use super::ups::{Channels, Upgrade};

/// Connections from addresses that no client rule covers: few, so that strangers keep nobody out.
const MAX_STRANGERS: usize = 8;
/// Refused connections that are reported at the same time; a flood of more is only counted by the system.
const MAX_REPORTS: usize = 8;
/// Pause after the system refused to accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for a peer to hear an answer that came before it had sent everything.
const LINGER: Duration = Duration::from_secs(2);
/// Time for aborted requests to tell the handler at shutdown.
const ABORT_GRACE: Duration = Duration::from_secs(3);
/// Fewest bytes of a header buffer that the HTTP library takes.
const MIN_HEADER_BYTES: usize = 8 << 10;

/// What a connection gets for a request.
type Served = Result<hyper::Response<Watched>, Infallible>;

/// A DICOMweb service, bound to its address.
pub struct StowServer<H> {
    listener: TcpListener,
    shared: Arc<Shared<H>>,
}

pub(super) struct Shared<H> {
    pub(super) options: ServerOptions,
    pub(super) handler: H,
    /// What is kept, where it may be searched and retrieved.
    pub(super) archive: Option<Arc<dyn Archive>>,
    pub(super) requests: Arc<Semaphore>,
    /// Searches and retrievals.
    pub(super) readings: Arc<Semaphore>,
    pub(super) channels: Arc<Channels>,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    reports: Arc<Semaphore>,
    /// Requests under way; they do not end with their connection.
    open: TaskTracker,
    /// No new request begins.
    pub(super) stopping: CancellationToken,
    /// Requests end at once.
    pub(super) aborting: CancellationToken,
}

impl<H: StowHandler> StowServer<H> {
    /// Binds the address; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(address: impl ToSocketAddrs, options: ServerOptions, handler: H) -> io::Result<Self> {
        Self::bind_with(address, options, handler, None).await
    }

    /// [`Self::bind`], and what is kept can be searched and retrieved, too.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind_with(
        address: impl ToSocketAddrs,
        options: ServerOptions,
        handler: H,
        archive: Option<Arc<dyn Archive>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let shared = Shared {
            requests: semaphore(options.max_requests),
            readings: semaphore(options.reading.max_at_once),
            archive,
            channels: Arc::default(),
            connections: semaphore(options.max_connections),
            strangers: semaphore(MAX_STRANGERS),
            reports: semaphore(MAX_REPORTS),
            open: TaskTracker::new(),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            options,
            handler,
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`, then drains: no request begins any more, open ones may finish within
    /// [`ServerOptions::drain_timeout`], and are ended.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, shared } = self;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next() => check_task(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => shared.connected(&mut connections, stream, address),
                    Err(error) => {
                        error!(%error, "connections cannot be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        shared.drain(connections).await;
    }
}

fn check_task(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "the task of a connection panicked");
    }
}

impl<H: StowHandler> Shared<H> {
    fn connected(self: &Arc<Self>, connections: &mut JoinSet<()>, stream: TcpStream, address: SocketAddr) {
        let shared = Arc::clone(self);
        let known = self.options.is_known(address.ip()) || self.options.trusted_proxies.contains(address.ip());
        let permits = if known { &self.connections } else { &self.strangers };
        match Arc::clone(permits).try_acquire_owned() {
            Ok(permit) => {
                connections.spawn(async move { shared.handle(stream, address, permit).await });
            }
            Err(_) => {
                debug!(%address, "connection refused: too many are open");
                if let Ok(permit) = Arc::clone(&self.reports).try_acquire_owned() {
                    connections.spawn(async move { shared.turn_away(stream, address, permit).await });
                }
            }
        }
    }

    /// Tells a peer that there is no connection left for it.
    async fn turn_away(&self, mut stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let (refusal, sender) = (Refusal::Busy("connections"), Sender { address, client: String::new() });
        if self.options.tls.is_none() {
            let answer = format!(
                "HTTP/1.1 503 Service Unavailable\r\nRetry-After: {}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
                self.options.retry_after.as_secs().max(1)
            );
            // As much as one packet takes; a peer that does not listen is not waited for.
            let _ = timeout(LINGER, stream.write_all(answer.as_bytes())).await;
        }
        self.handler.request_refused(&sender, &refusal).await;
        linger(stream).await;
        drop(permit);
    }

    async fn handle(self: Arc<Self>, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            return debug!(%address, %error, "connection lost at once");
        }
        match self.options.tls.clone() {
            None => self.serve(stream, address).await,
            Some(config) => {
                let handshake = TlsAcceptor::from(config).accept(stream);
                match timeout(self.options.header_timeout, handshake).await {
                    Ok(Ok(stream)) => Box::pin(self.serve(stream, address)).await,
                    Ok(Err(error)) => warn!(%address, %error, "TLS handshake failed"),
                    Err(_) => warn!(%address, "TLS handshake not within {:?}", self.options.header_timeout),
                }
            }
        }
        drop(permit);
    }

    /// Serves the requests of a connection, one after the other.
    async fn serve<S>(self: Arc<Self>, stream: S, address: SocketAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // Since when the peer has had nothing to wait for; `None` while a request is under way.
        let (idle_since, idle) = watch::channel(Some(Instant::now()));
        let shared = Arc::clone(&self);
        // What the connection becomes after an answer of 101.
        let upgrade = Arc::new(OnceLock::new());
        let upgraded = Arc::clone(&upgrade);
        let service = service_fn(move |request: Request<Incoming>| {
            idle_since.send_replace(None);
            let (idle_since, upgraded) = (idle_since.clone(), Arc::clone(&upgraded));
            // A task of its own: what is being stored does not end because the connection does.
            let task = shared.open.spawn(request::serve(Arc::clone(&shared), address, request));
            let answer: Pin<Box<dyn Future<Output = Served> + Send>> = Box::pin(async move {
                let mut answer = task.await.unwrap_or_else(|error| {
                    error!(%error, "the task of a request panicked");
                    answer::words(StatusCode::INTERNAL_SERVER_ERROR, "the receiver failed")
                });
                if let Some(upgrade) = answer.extensions_mut().remove::<Upgrade>() {
                    let _ = upgraded.set(upgrade);
                }
                idle_since.send_replace(Some(Instant::now()));
                Ok(answer.map(|body| Watched { body, idle_since }))
            });
            answer
        });
        let options = &self.options;
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_buf_size(options.max_header_bytes.max(MIN_HEADER_BYTES))
            // A peer may close its half once it has sent everything, and still wants its answer.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), service);
        let overdue = overdue(idle, options.answer_timeout);
        tokio::pin!(overdue);
        let mut stopping = false;
        let ended = loop {
            tokio::select! {
                ended = std::future::poll_fn(|cx| connection.poll_without_shutdown(cx)) => break ended,
                () = &mut overdue => return debug!(%address, "connection closed: nothing more was asked, or not heard"),
                () = self.aborting.cancelled() => return,
                () = self.stopping.cancelled(), if !stopping => {
                    stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
            }
        };
        match ended {
            Ok(()) => {
                let parts = connection.into_parts();
                match upgrade.get().cloned() {
                    None => linger(parts.io.into_inner()).await,
                    Some(upgrade) => {
                        let stop = self.stopping.clone();
                        Box::pin(upgrade.run(parts.io.into_inner(), parts.read_buf, stop)).await;
                    }
                }
            }
            Err(error) => debug!(%address, %error, "connection ended"),
        }
    }

    async fn drain(&self, mut connections: JoinSet<()>) {
        self.stopping.cancel();
        self.open.close();
        if !self.open.is_empty() {
            info!(open = self.open.len(), grace = ?self.options.drain_timeout, "waiting for open STOW-RS requests");
        }
        let ended = async |connections: &mut JoinSet<()>| {
            self.open.wait().await;
            while let Some(ended) = connections.join_next().await {
                check_task(ended);
            }
        };
        if timeout(self.options.drain_timeout, ended(&mut connections)).await.is_ok() {
            return;
        }
        warn!(open = self.open.len(), "open STOW-RS requests are ended");
        self.aborting.cancel();
        if timeout(ABORT_GRACE, ended(&mut connections)).await.is_err() {
            error!(open = self.open.len(), "STOW-RS requests whose handler does not return are given up");
        }
        connections.shutdown().await;
    }
}

/// Completes when a peer has had nothing to wait for, and has begun nothing, for so long.
async fn overdue(mut idle: watch::Receiver<Option<Instant>>, limit: Duration) {
    loop {
        let since = *idle.borrow_and_update();
        let Some(since) = since else {
            if idle.changed().await.is_err() {
                // The connection is about to end by itself.
                return std::future::pending().await;
            }
            continue;
        };
        tokio::select! {
            () = sleep_until(since + limit) => return,
            Ok(()) = idle.changed() => {}
        }
    }
}

/// Closes our half, and reads for a moment what the peer is still sending: closing at once would reset the connection,
/// and the peer would not hear the answer.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let discard = async {
        stream.shutdown().await?;
        let mut buffer = vec![0; 16 << 10];
        while stream.read(&mut buffer).await? > 0 {}
        io::Result::Ok(())
    };
    // Either way the connection is over.
    let _ = timeout(LINGER, discard).await;
}
