//! The listener: accepts connections, bounds their number, and drains them at shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::association::{Ending, Service, Tally};
use super::establish::{self, NoRequest, Request};
use super::handler::{AssociationEnd, AssociationOutcome, PeerInfo, Rejection, StorageHandler};
use super::options::ScpOptions;
use crate::exchange::Exchange;
use crate::wire::{PromptStream, Stream, Wire};

/// Connections without an association, from addresses that a rule covers.
const MAX_HANDSHAKES: usize = 64;
/// Connections without an association, from addresses that no rule covers: few, so that strangers who say nothing keep
/// nobody out.
const MAX_STRANGERS: usize = 8;
/// Pause after the system refused to accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for aborted associations to tell their peers and the handler at shutdown.
const ABORT_GRACE: Duration = Duration::from_secs(3);

/// A Storage and Verification provider, bound to its address.
pub struct StorageScp<H> {
    listener: TcpListener,
    shared: Arc<Shared<H>>,
}

struct Shared<H> {
    options: ScpOptions,
    handler: H,
    associations: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// Open associations stop at the end of the message in progress.
    stopping: CancellationToken,
    /// Open associations stop at once.
    aborting: CancellationToken,
}

impl<H: StorageHandler> StorageScp<H> {
    /// Binds the address; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn bind(address: impl ToSocketAddrs, options: ScpOptions, handler: H) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, shared: Arc::new(Shared::new(options, handler)) })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts associations until `shutdown`, then drains: no more are accepted, open ones may finish the instance in
    /// progress within [`ScpOptions::drain_timeout`], and are aborted.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, shared } = self;
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => check_task(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, address)) => shared.connected(&mut tasks, stream, address),
                    Err(error) => {
                        error!(%error, "connections cannot be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        shared.drain(tasks).await;
    }
}

/// Serves a stream that somebody else has accepted, such as one behind TLS or one in memory, from its first byte to its
/// last. The rules of the options hold as they do for a listener; there is nothing to drain.
pub async fn serve_stream<H: StorageHandler>(
    options: ScpOptions,
    handler: H,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    address: SocketAddr,
) {
    let shared = Shared::new(options, handler);
    if let Ok(permit) = Arc::clone(&shared.handshakes).try_acquire_owned() {
        shared.handle(Wire::new(stream), PeerInfo::stranger(address), permit).await;
    }
}

fn check_task(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "the task of an association panicked");
    }
}

impl<H: StorageHandler> Shared<H> {
    fn new(options: ScpOptions, handler: H) -> Self {
        let associations = options.max_associations.min(Semaphore::MAX_PERMITS);
        Self {
            options,
            handler,
            associations: Arc::new(Semaphore::new(associations)),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
        }
    }

    fn connected(self: &Arc<Self>, tasks: &mut JoinSet<()>, stream: TcpStream, address: SocketAddr) {
        let shared = Arc::clone(self);
        let peer = PeerInfo::stranger(address);
        let known = self.options.peers.iter().any(|rule| rule.covers(address.ip()));
        let handshakes = if known { &self.handshakes } else { &self.strangers };
        match Arc::clone(handshakes).try_acquire_owned() {
            Ok(permit) => tasks.spawn(async move {
                match PromptStream::new(stream) {
                    Ok(stream) => shared.handle(Wire::new(stream), peer, permit).await,
                    Err(error) => debug!(peer = %peer.address, %error, "connection lost at once"),
                }
            }),
            // No time for a proper answer; the peer sees the connection close.
            Err(_) => tasks.spawn(async move {
                drop(stream);
                establish::report(&shared.handler, &peer, &Rejection::LocalLimitExceeded).await;
            }),
        };
    }

    /// Takes a connection from its first byte to its last. The handshake's permit goes back once an association stands.
    async fn handle<S: Stream>(&self, mut wire: Wire<S>, peer: PeerInfo, handshake: OwnedSemaphorePermit) {
        let request = tokio::select! {
            biased;
            () = self.stopping.cancelled() => return wire.close().await,
            request = establish::read_request(&mut wire, peer.clone(), self.options.artim_timeout) => request,
        };
        let request = match request {
            Ok(request) => request,
            Err(NoRequest::Nothing) => return debug!(peer = %peer.address, "connection closed without a request"),
            Err(NoRequest::Refused(rejection, reason)) => {
                establish::report(&self.handler, &peer, &rejection).await;
                return wire.abort_as_provider(reason).await;
            }
        };
        let checked = match establish::check(&request, &self.options, &self.associations) {
            Ok(_) if self.stopping.is_cancelled() => Err(Rejection::TemporaryCongestion),
            checked => checked,
        };
        let opened = match checked {
            Ok(permit) => self.handler.association_opened(&request.peer).await.map(|association| (permit, association)),
            Err(rejection) => Err(rejection),
        };
        match opened {
            Ok((permit, association)) => {
                drop(handshake);
                self.serve(wire, &request, association).await;
                drop(permit);
            }
            Err(rejection) => {
                establish::report(&self.handler, &request.peer, &rejection).await;
                establish::reject(wire, &rejection, self.options.pdu_timeout).await;
            }
        }
    }

    /// Accepts and serves an association that the handler has opened; whatever happens, the handler hears of its end.
    async fn serve<S: Stream>(&self, mut wire: Wire<S>, request: &Request, association: H::Association) {
        let mut tally = Tally::default();
        let (ending, wire) = match establish::accept(&mut wire, request, &self.options).await {
            Err(error) => (Ending::from(error), wire),
            Ok(contexts) => {
                debug!(peer = %request.peer.address, contexts = contexts.len(), "association accepted");
                let mut exchange = Exchange::new(wire);
                let service = Service {
                    exchange: &mut exchange,
                    contexts: &contexts,
                    options: &self.options,
                    handler: &self.handler,
                    association: &association,
                    tally: &mut tally,
                    last_message_id: 0,
                    unanswered: None,
                };
                let ending = tokio::select! {
                    biased;
                    () = self.aborting.cancelled() => Ending::shut_down(),
                    ending = service.run(&self.stopping) => ending,
                };
                (ending, exchange.into_wire())
            }
        };
        let (outcome, farewell) = match ending {
            Ending::Released => (AssociationOutcome::Released, None),
            Ending::Lost(outcome) => (outcome, None),
            Ending::Abort(outcome, reason) => (outcome, Some(reason)),
        };
        let Tally { instances, failures, bytes } = tally;
        let end = AssociationEnd { outcome, instances, failures, bytes };
        // The handler first: what it records does not wait for a peer that is slow to hang up.
        let released = end.outcome == AssociationOutcome::Released;
        self.handler.association_closed(association, end).await;
        match farewell {
            Some(reason) => wire.abort_as_provider(reason).await,
            None if released => wire.close().await,
            None => drop(wire),
        }
    }

    async fn drain(&self, mut tasks: JoinSet<()>) {
        self.stopping.cancel();
        if !tasks.is_empty() {
            info!(open = tasks.len(), grace = ?self.options.drain_timeout, "waiting for open associations");
        }
        let ended = async |tasks: &mut JoinSet<()>| {
            while let Some(ended) = tasks.join_next().await {
                check_task(ended);
            }
        };
        if timeout(self.options.drain_timeout, ended(&mut tasks)).await.is_ok() {
            return;
        }
        warn!(open = tasks.len(), "open associations are aborted");
        self.aborting.cancel();
        if timeout(ABORT_GRACE, ended(&mut tasks)).await.is_err() {
            error!(open = tasks.len(), "associations whose handler does not return are given up");
            tasks.shutdown().await;
        }
    }
}
