//! What the tests share: a handler that remembers, a running provider, a peer that sends what it is told to.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this")]

pub mod certificates;
pub mod dcmtk;
pub mod peer;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ichor_core::{AeTitle, Uid};
use ichor_dimse::scp::{
    AssociationEnd, AssociationOutcome, InstanceSink, PeerInfo, PeerRule, Rejection, ScpOptions, StorageHandler,
    StorageScp, StoreFailure, StoreOutcome, StoreRequest,
};
use ichor_dimse::tls::ServerTls;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longer than anything on loopback takes; a test that waits for so long has failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const CT: &str = ichor_dimse::uids::CT_IMAGE_STORAGE;
pub const EXPLICIT: &str = ichor_dimse::uids::EXPLICIT_VR_LITTLE_ENDIAN;
pub const IMPLICIT: &str = ichor_dimse::uids::IMPLICIT_VR_LITTLE_ENDIAN;

/// What the handler does with one instance.
#[derive(Clone)]
pub enum Plan {
    Take,
    Warn(StoreFailure),
    FailBegin(StoreFailure),
    FailWriteAfter(u64, StoreFailure),
    FailCommit(StoreFailure),
    /// Commits once a permit is there.
    HoldCommit(Arc<Semaphore>),
}

/// An instance that was committed.
#[derive(Clone, Debug)]
pub struct Stored {
    pub request: StoreRequest,
    pub bytes: Vec<u8>,
    pub longest_fragment: usize,
}

#[derive(Default)]
pub struct Log {
    pub opened: Vec<PeerInfo>,
    pub refused: Vec<(PeerInfo, Rejection)>,
    pub closed: Vec<AssociationEnd>,
    pub begun: usize,
    pub stored: Vec<Stored>,
    /// Sinks that went without a commit.
    pub discarded: usize,
}

/// A handler that remembers what it hears and does what it was told.
#[derive(Clone, Default)]
pub struct Recorder {
    pub log: Arc<Mutex<Log>>,
    plans: Arc<Mutex<std::collections::VecDeque<Plan>>>,
    rejection: Arc<Mutex<Option<Rejection>>>,
}

impl Recorder {
    pub fn read<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.log.lock().unwrap())
    }

    /// Plans for the next instances, in order; afterwards everything is taken.
    pub fn plan(&self, plans: impl IntoIterator<Item = Plan>) {
        self.plans.lock().unwrap().extend(plans);
    }

    /// Turns the next association down.
    pub fn reject_next(&self, rejection: Rejection) {
        *self.rejection.lock().unwrap() = Some(rejection);
    }

    /// Waits until the log is as it should be.
    #[track_caller]
    pub fn wait(&self, what: &str, is: impl Fn(&Log) -> bool) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        let recorder = self.clone();
        async move {
            let start = Instant::now();
            while !recorder.read(&is) {
                assert!(start.elapsed() < PATIENCE, "{at}: waited in vain for {what}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    /// Waits for the end of an association, the only one or the latest.
    pub async fn closed(&self, count: usize) -> AssociationEnd {
        self.wait("the end of an association", move |log| log.closed.len() >= count).await;
        self.read(|log| log.closed[count - 1].clone())
    }

    pub async fn refused(&self, count: usize) -> (PeerInfo, Rejection) {
        self.wait("a refusal", move |log| log.refused.len() >= count).await;
        self.read(|log| log.refused[count - 1].clone())
    }
}

impl StorageHandler for Recorder {
    type Association = ();
    type Sink = Sink;

    async fn association_opened(&self, peer: &PeerInfo) -> Result<(), Rejection> {
        if let Some(rejection) = self.rejection.lock().unwrap().take() {
            return Err(rejection);
        }
        self.log.lock().unwrap().opened.push(peer.clone());
        Ok(())
    }

    async fn association_refused(&self, peer: &PeerInfo, rejection: &Rejection) {
        self.log.lock().unwrap().refused.push((peer.clone(), rejection.clone()));
    }

    async fn association_closed(&self, (): (), end: AssociationEnd) {
        self.log.lock().unwrap().closed.push(end);
    }

    async fn begin(&self, (): &(), request: &StoreRequest) -> Result<Sink, StoreFailure> {
        self.log.lock().unwrap().begun += 1;
        let plan = self.plans.lock().unwrap().pop_front().unwrap_or(Plan::Take);
        if let Plan::FailBegin(failure) = plan {
            return Err(failure);
        }
        Ok(Sink {
            log: self.log.clone(),
            plan,
            request: request.clone(),
            bytes: Vec::new(),
            longest: 0,
            committed: false,
        })
    }
}

pub struct Sink {
    log: Arc<Mutex<Log>>,
    plan: Plan,
    request: StoreRequest,
    bytes: Vec<u8>,
    longest: usize,
    committed: bool,
}

impl InstanceSink for Sink {
    async fn write(&mut self, fragment: &[u8]) -> Result<(), StoreFailure> {
        self.longest = self.longest.max(fragment.len());
        self.bytes.extend_from_slice(fragment);
        match &self.plan {
            Plan::FailWriteAfter(limit, failure) if self.bytes.len() as u64 > *limit => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    async fn commit(mut self) -> Result<StoreOutcome, StoreFailure> {
        let outcome = match &self.plan {
            Plan::FailCommit(failure) => return Err(failure.clone()),
            Plan::Warn(StoreFailure { status, comment, .. }) => {
                StoreOutcome::Warning { status: *status, comment: comment.clone() }
            }
            Plan::HoldCommit(gate) => {
                gate.acquire().await.unwrap().forget();
                StoreOutcome::Success
            }
            _ => StoreOutcome::Success,
        };
        self.committed = true;
        let bytes = std::mem::take(&mut self.bytes);
        let stored = Stored { request: self.request.clone(), bytes, longest_fragment: self.longest };
        self.log.lock().unwrap().stored.push(stored);
        Ok(outcome)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !self.committed {
            self.log.lock().unwrap().discarded += 1;
        }
    }
}

/// A provider on loopback.
pub struct Provider {
    pub address: SocketAddr,
    /// The address for TLS; that without, if there is none.
    pub tls_address: SocketAddr,
    pub recorder: Recorder,
    pub shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Provider {
    pub async fn start(options: ScpOptions) -> Self {
        let recorder = Recorder::default();
        let scp = StorageScp::bind("127.0.0.1:0", options, recorder.clone()).await.unwrap();
        Self::run(scp, recorder)
    }

    /// A provider with a second address for TLS.
    pub async fn start_tls(options: ScpOptions, tls: ServerTls) -> Self {
        let recorder = Recorder::default();
        let scp = StorageScp::bind("127.0.0.1:0", options, recorder.clone()).await.unwrap();
        Self::run(scp.with_tls("127.0.0.1:0", tls).await.unwrap(), recorder)
    }

    fn run(scp: StorageScp<Recorder>, recorder: Recorder) -> Self {
        let address = scp.local_addr().unwrap();
        let tls_address = scp.tls_addr().unwrap().unwrap_or(address);
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(scp.run(shutdown.clone()));
        Self { address, tls_address, recorder, shutdown, task }
    }

    /// Stops, and waits for the end of the drain.
    pub async fn stop(self) -> Recorder {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the provider drains").unwrap();
        self.recorder
    }
}

/// Everybody from loopback may come; short times, so that tests are quick.
pub fn options() -> ScpOptions {
    let mut options = ScpOptions::new(AeTitle::parse("ICHOR").unwrap());
    options.peers = vec![PeerRule { ae_title: None, networks: vec!["127.0.0.0/8".parse().unwrap()], user: None }];
    options.artim_timeout = Duration::from_secs(5);
    options.drain_timeout = Duration::from_secs(5);
    options
}

pub fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

pub fn is_aborted(outcome: &AssociationOutcome) -> bool {
    matches!(outcome, AssociationOutcome::Aborted(_))
}

/// A CT data set in Explicit VR Little Endian, small or not, with pixels that differ by instance.
pub fn ct_data_set(sop_instance: &str, rows: u16, columns: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut element = |group: u16, number: u16, vr: &[u8; 2], value: &[u8]| {
        bytes.extend_from_slice(&group.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(vr);
        let length = value.len() + value.len() % 2;
        if vr == b"OW" {
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        } else {
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_le_bytes());
        }
        bytes.extend_from_slice(value);
        if value.len() % 2 == 1 {
            bytes.push(if vr == b"UI" { 0 } else { b' ' });
        }
    };
    element(0x0008, 0x0016, b"UI", CT.as_bytes());
    element(0x0008, 0x0018, b"UI", sop_instance.as_bytes());
    element(0x0008, 0x0060, b"CS", b"CT");
    element(0x0010, 0x0010, b"PN", b"Phantom^Test");
    element(0x0010, 0x0020, b"LO", b"PHANTOM");
    element(0x0020, 0x000d, b"UI", b"1.2.826.0.1.3680043.10.543.1");
    element(0x0020, 0x000e, b"UI", b"1.2.826.0.1.3680043.10.543.1.1");
    for (number, value) in [(0x0002, 1), (0x0010, rows), (0x0011, columns), (0x0100, 16), (0x0101, 16), (0x0102, 15)] {
        if number == 0x0010 {
            element(0x0028, 0x0004, b"CS", b"MONOCHROME2");
        }
        element(0x0028, number, b"US", &u16::to_le_bytes(value));
    }
    element(0x0028, 0x0103, b"US", &[0, 0]);
    let seed = sop_instance.bytes().fold(7u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
    let pixels: Vec<u8> = (0..u32::from(rows) * u32::from(columns))
        .flat_map(|i| ((i.wrapping_mul(seed) >> 7) as u16 & 0x0fff).to_le_bytes())
        .collect();
    element(0x7fe0, 0x0010, b"OW", &pixels);
    bytes
}
