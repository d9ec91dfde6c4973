//! The listener: accepts connections, bounds their number, and drains them at shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::admission::{Admission, Place};
use super::association::{Ending, Service, Tally};
use super::establish::{self, NoRequest, Request};
use super::handler::{AssociationEnd, AssociationOutcome, PeerInfo, Rejection, StorageHandler};
use super::options::{PeerRule, ScpOptions};
use super::thread::{self, Moving};
use crate::exchange::Exchange;
use crate::tls::{self, NoTls, ServerTls};
use crate::wire::{PromptStream, Stream, Wire};

/// Refusals for lack of room that are handed to the handler at once; more are counted, so that a flood of connections
/// fills neither the memory nor the handler's log.
const MAX_REPORTS: usize = 64;
/// Pause after the system refused to accept, usually for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time for a peer that connects during the drain to ask for its association, and to be told to come back.
const LATE_REQUEST: Duration = Duration::from_secs(1);
/// Time for aborted associations to tell their peers and the handler at shutdown.
const ABORT_GRACE: Duration = Duration::from_secs(3);

/// A Storage and Verification provider, bound to its address.
pub struct StorageScp<H> {
    listener: TcpListener,
    tls: Option<(TcpListener, ServerTls)>,
    shared: Arc<Shared<H>>,
}

struct Shared<H> {
    options: ScpOptions,
    /// Who may come; the options say who may at first.
    peers: watch::Sender<Arc<Vec<PeerRule>>>,
    handler: H,
    admission: Admission,
    /// Connections without an association, from addresses that a rule covers.
    handshakes: Admission,
    /// The same, from all others.
    strangers: Admission,
    reports: Arc<Semaphore>,
    unreported: AtomicU64,
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
        Ok(Self { listener, tls: None, shared: Arc::new(Shared::new(options, handler)) })
    }

    /// What lets others come from now on: [`ScpOptions::peers`] is who may at first.
    pub fn peers(&self) -> watch::Sender<Arc<Vec<PeerRule>>> {
        self.shared.peers.clone()
    }

    /// Binds a second address, on which everybody must speak TLS. All else is the same on both: rules, limits, handler.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn with_tls(self, address: impl ToSocketAddrs, tls: ServerTls) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { tls: Some((listener, tls)), ..self })
    }

    /// The address that it listens on for TLS, if it does.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn tls_addr(&self) -> io::Result<Option<SocketAddr>> {
        self.tls.as_ref().map(|(listener, _)| listener.local_addr()).transpose()
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts associations until `shutdown`, then drains: open ones may finish the instance in progress within
    /// [`ScpOptions::drain_timeout`], and are aborted; who asks for another one meanwhile hears that it is for now only.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { listener, tls, shared } = self;
        let mut tasks = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => check_task(ended),
                (accepted, tls) = next_connection(&listener, tls.as_ref()) => {
                    shared.connected_or_pause(&mut tasks, accepted, tls).await;
                }
            }
        }
        shared.stopping.cancel();
        if !tasks.is_empty() {
            info!(open = tasks.len(), grace = ?shared.options.drain_timeout, "waiting for open associations");
        }
        let drain = sleep(shared.options.drain_timeout);
        tokio::pin!(drain);
        loop {
            tokio::select! {
                biased;
                ended = tasks.join_next() => match ended {
                    Some(ended) => check_task(ended),
                    None => return,
                },
                () = &mut drain => break,
                (accepted, tls) = next_connection(&listener, tls.as_ref()) => {
                    shared.connected_or_pause(&mut tasks, accepted, tls).await;
                }
            }
        }
        drop((listener, tls));
        shared.abort(tasks).await;
    }
}

/// Waits at both doors, in turn when both have somebody.
async fn next_connection(
    plain: &TcpListener,
    tls: Option<&(TcpListener, ServerTls)>,
) -> (io::Result<(TcpStream, SocketAddr)>, Option<ServerTls>) {
    match tls {
        None => (plain.accept().await, None),
        Some((listener, tls)) => tokio::select! {
            accepted = plain.accept() => (accepted, None),
            accepted = listener.accept() => (accepted, Some(tls.clone())),
        },
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
    if let Ok(place) = shared.handshakes.enter(address.ip()) {
        let deadline = Instant::now() + shared.options.artim_timeout;
        shared.handle(Wire::new(stream), PeerInfo::stranger(address), place, deadline).await;
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
        Self {
            admission: Admission::new(options.max_associations, options.max_associations_per_peer),
            handshakes: Admission::new(options.max_handshakes, options.max_associations_per_peer),
            strangers: Admission::new(options.max_strangers, options.max_strangers),
            reports: Arc::new(Semaphore::new(MAX_REPORTS)),
            unreported: AtomicU64::new(0),
            peers: watch::Sender::new(Arc::new(options.peers.clone())),
            options,
            handler,
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
        }
    }

    async fn connected_or_pause(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        tls: Option<ServerTls>,
    ) {
        match accepted {
            Ok((stream, address)) => self.connected(tasks, stream, address, tls),
            Err(error) => {
                error!(%error, "connections cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn connected(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<ServerTls>,
    ) {
        let shared = Arc::clone(self);
        let peer = PeerInfo::stranger(address);
        let known = self.peers.borrow().iter().any(|rule| rule.covers(address.ip()));
        let handshakes = if known { &self.handshakes } else { &self.strangers };
        match handshakes.enter(address.ip()) {
            Ok(place) if known => {
                let lost = move |error: &io::Error| debug!(peer = %address, %error, "connection lost at once");
                let started = Moving::depart(stream).inspect_err(lost).and_then(|moving| {
                    thread::spawn(move || async move {
                        if let Ok(stream) = moving.arrive().inspect_err(lost) {
                            shared.connection(stream, tls, peer, place).await;
                        }
                    })
                });
                match started {
                    Ok(ended) => drop(tasks.spawn(ended)),
                    Err(error) => error!(peer = %address, %error, "connection closed: no thread for it"),
                }
            }
            Ok(place) => drop(tasks.spawn(async move { shared.connection(stream, tls, peer, place).await })),
            // No time for a proper answer; the peer sees the connection close.
            Err(rejection) => {
                drop(stream);
                self.report_overflow(tasks, peer, rejection);
            }
        }
    }

    async fn connection(&self, stream: TcpStream, tls: Option<ServerTls>, peer: PeerInfo, place: Place) {
        let deadline = Instant::now() + self.options.artim_timeout;
        match tls {
            Some(tls) => self.handle_tls(&tls, stream, peer, place, deadline).await,
            None => match PromptStream::new(stream) {
                Ok(stream) => self.handle(Wire::new(stream), peer, place, deadline).await,
                Err(error) => debug!(peer = %peer.address, %error, "connection lost at once"),
            },
        }
    }

    /// Hands a connection that found no room to the handler, or counts it if too many of these are under way.
    fn report_overflow(self: &Arc<Self>, tasks: &mut JoinSet<()>, peer: PeerInfo, rejection: Rejection) {
        let Ok(permit) = Arc::clone(&self.reports).try_acquire_owned() else {
            self.unreported.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let shared = Arc::clone(self);
        tasks.spawn(async move {
            establish::report(&shared.handler, &peer, &rejection).await;
            let unreported = shared.unreported.swap(0, Ordering::Relaxed);
            if unreported > 0 {
                warn!(connections = unreported, "more connections were closed for lack of room than could be recorded");
            }
            drop(permit);
        });
    }

    /// Shakes hands before an association is asked for, within the same time.
    async fn handle_tls(
        &self,
        tls: &ServerTls,
        stream: TcpStream,
        mut peer: PeerInfo,
        place: Place,
        deadline: Instant,
    ) {
        let accepting = timeout_at(deadline, tls::accept(tls, stream));
        tokio::pin!(accepting);
        let accepted = tokio::select! {
            biased;
            accepted = &mut accepting => accepted,
            () = self.stopping.cancelled() => match timeout(LATE_REQUEST, accepting).await {
                Ok(accepted) => accepted,
                Err(_) => return,
            },
        };
        let rejection = match accepted {
            Ok(Ok((stream, shown))) => {
                peer.tls = Some(shown);
                return self.handle(Wire::new(stream), peer, place, deadline).await;
            }
            Ok(Err(NoTls::Nothing)) => return debug!(peer = %peer.address, "connection closed without a byte"),
            Ok(Err(NoTls::Failed(why))) => Rejection::TlsFailed(why),
            Err(_) => Rejection::TlsFailed(format!("no whole handshake within {:?}", self.options.artim_timeout)),
        };
        establish::report(&self.handler, &peer, &rejection).await;
    }

    /// Takes a connection from its first byte to its last. The handshake's permit goes back once an association stands.
    async fn handle<S: Stream>(&self, mut wire: Wire<S>, peer: PeerInfo, handshake: Place, deadline: Instant) {
        // One set of rules for the whole of a request, whatever comes in force meanwhile.
        let peers = Arc::clone(&self.peers.borrow());
        let request = {
            let reading = establish::read_request(&mut wire, peer.clone(), &self.options, &peers, deadline);
            tokio::pin!(reading);
            tokio::select! {
                biased;
                request = &mut reading => Some(request),
                // Who is about to ask hears that it is for now only.
                () = self.stopping.cancelled() => timeout(LATE_REQUEST, reading).await.ok(),
            }
        };
        let Some(request) = request else { return wire.close().await };
        let request = match request {
            Ok(request) => request,
            Err(NoRequest::Nothing) => return debug!(peer = %peer.address, "connection closed without a request"),
            Err(NoRequest::Refused(rejection, reason)) => {
                establish::report(&self.handler, &peer, &rejection).await;
                return wire.abort_as_provider(reason).await;
            }
        };
        let checked = match establish::check(&request, &self.options, &peers, &self.admission) {
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

    async fn abort(&self, mut tasks: JoinSet<()>) {
        warn!(open = tasks.len(), "open associations are aborted");
        self.aborting.cancel();
        let ended = async {
            while let Some(ended) = tasks.join_next().await {
                check_task(ended);
            }
        };
        if timeout(ABORT_GRACE, ended).await.is_err() {
            error!(open = tasks.len(), "associations whose handler does not return are given up");
            tasks.shutdown().await;
        }
    }
}
