//! Ingest: what a Storage SCP, or a STOW-RS service, hands over becomes a durable blob and a committed row, in that
//! order, before the peer hears of success (invariant 2).

mod attributes;
mod commitment;
mod dataset;
mod stow;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ichor_core::{AeTitle, Uid, chain};
use ichor_dimse::commitment::{CommitmentReport, CommitmentRequest};
use ichor_dimse::part10;
use ichor_dimse::scp::{
    AssociationEnd, InstanceSink, PeerInfo, PeerRule, PendingReport, Rejection, StorageHandler, StoreFailure,
    StoreOutcome, StoreRequest,
};
use ichor_dimse::status::StoreStatus;
use ichor_store::{AssociationId, IncomingBlob, LastBlock, NewAssociation, NewInstance, Recorded, Store, StoreError};
use tokio::sync::watch;
use tracing::{debug, info, warn};

pub use attributes::{AttributeError, InstanceAttributes};
pub use dataset::{DatasetError, DatasetLimits, DatasetShape, walk_file};
pub use stow::{StowClientRule, StowIngest, StowRequest, StowSink};

use crate::backoff::Backoff;
use crate::now;
use crate::traffic::{Passage, Traffic};

/// Who may send, and how long to wait for more of a study from them.
#[derive(Clone, Debug)]
pub struct Source {
    /// Which peers this rule is about.
    pub peer: PeerRule,
    /// Quiet period after which a study of this source closes.
    pub quiet_period: Duration,
}

/// Settings of the stage.
#[derive(Clone, Debug)]
pub struct IngestOptions {
    /// First match counts; a peer that no rule matches never gets here.
    pub sources: Vec<Source>,
    /// Below this much free space instances are refused, in bytes.
    pub min_free_bytes: u64,
    /// Caps on the shape of a data set.
    pub limits: DatasetLimits,
    /// Most instances of one study; one more is refused.
    pub max_study_instances: u32,
    /// Requests for storage commitment.
    pub commitment: CommitmentOptions,
}

/// Settings of storage commitment on the association that asks.
#[derive(Clone, Copy, Debug)]
pub struct CommitmentOptions {
    /// How long instances that are not there yet may still come before a failure is reported.
    pub wait: Duration,
    /// Waits after a peer refused a report.
    pub backoff: Backoff,
}

/// The stage, as the handler of a Storage SCP.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    options: Arc<IngestOptions>,
    /// Who may send; the options say who may at first.
    sources: watch::Sender<Arc<Vec<Source>>>,
    traffic: Traffic,
}

/// An open association, as the stage knows it.
pub struct OpenAssociation {
    id: AssociationId,
    calling_ae: Option<AeTitle>,
    quiet_period: Duration,
    asked: commitment::Asked,
}

impl Ingest {
    /// Makes the stage.
    #[must_use]
    pub fn new(store: Store, options: IngestOptions) -> Self {
        let sources = watch::Sender::new(Arc::new(options.sources.clone()));
        Self { store, options: Arc::new(options), sources, traffic: Traffic::default() }
    }

    /// What is under way, by any protocol.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic.clone()
    }

    /// What puts other sources in force: for associations that open from then on.
    #[must_use]
    pub fn sources(&self) -> watch::Sender<Arc<Vec<Source>>> {
        self.sources.clone()
    }

    /// The quiet period of the first source that matches.
    fn quiet_period_of(&self, peer: &PeerInfo) -> Option<Duration> {
        self.sources.borrow().iter().find(|source| source.peer.matches(peer)).map(|source| source.quiet_period)
    }
}

impl StorageHandler for Ingest {
    type Association = OpenAssociation;
    type Sink = IngestSink;

    async fn association_opened(&self, peer: &PeerInfo) -> Result<OpenAssociation, Rejection> {
        let Some(quiet_period) = self.quiet_period_of(peer) else { return Err(Rejection::CallingAeNotRecognized) };
        let calling_ae = AeTitle::parse(&peer.calling_ae).ok();
        let opened = self.open(&described(peer), calling_ae, quiet_period).await;
        let opened = opened.map_err(|_| Rejection::TemporaryCongestion)?;
        let (tls, user) = (peer.tls.as_ref().map(ToString::to_string), peer.user.as_deref());
        if tls.is_some() || user.is_some() {
            let is_user_verified = user.map(|_| peer.is_user_verified);
            info!(association = opened.id.get(), tls, user, is_user_verified, "who opened the association");
        }
        Ok(opened)
    }

    async fn association_refused(&self, peer: &PeerInfo, rejection: &Rejection) {
        self.refused(&described(peer), &rejection.to_string()).await;
    }

    async fn association_closed(&self, association: OpenAssociation, end: AssociationEnd) {
        let outcome = ichor_store::AssociationEnd {
            outcome: end.outcome.to_string(),
            instances: end.instances,
            bytes: end.bytes,
        };
        self.put_reports_back(&association).await;
        self.close(&association, &outcome).await;
    }

    async fn begin(&self, association: &OpenAssociation, request: &StoreRequest) -> Result<IngestSink, StoreFailure> {
        self.check_room().map_err(|words| StoreFailure::new(StoreStatus::OutOfResources, words))?;
        self.begin_instance(association, request, ANNOUNCED_BY_COMMAND, Thread::MayBlock).await
    }

    async fn commitment_requested(
        &self,
        association: &OpenAssociation,
        request: &CommitmentRequest,
    ) -> Result<(), StoreFailure> {
        self.record_request(association, request).await
    }

    async fn report_received(
        &self,
        association: &OpenAssociation,
        report: &CommitmentReport,
    ) -> Result<(), StoreFailure> {
        self.record_report(association, report).await
    }

    async fn report_due(&self, association: &OpenAssociation) {
        self.wait_for_report(association).await;
    }

    async fn take_report(&self, association: &OpenAssociation) -> Option<PendingReport> {
        self.claim_report(association).await
    }

    async fn report_answered(
        &self,
        association: &OpenAssociation,
        id: i64,
        status: StoreStatus,
        comment: Option<String>,
    ) {
        self.record_answer(association, id, status, comment).await;
    }
}

impl Ingest {
    /// Records that a peer was let in.
    async fn open(
        &self,
        peer: &NewAssociation,
        calling_ae: Option<AeTitle>,
        quiet_period: Duration,
    ) -> Result<OpenAssociation, StoreError> {
        let (address, calling) = (&peer.peer_address, &peer.calling_ae);
        let id = self
            .store
            .association_opened(peer, now())
            .await
            .inspect_err(|error| warn!(peer = %address, %error, "peer rejected: the job log cannot record it"))?;
        debug!(association = id.get(), peer = %address, calling_ae = %calling, "association opened");
        Ok(OpenAssociation { id, calling_ae, quiet_period, asked: commitment::Asked::default() })
    }

    /// Records that a peer was not let in.
    async fn refused(&self, peer: &NewAssociation, reason: &str) {
        let (address, calling) = (&peer.peer_address, &peer.calling_ae);
        warn!(peer = %address, calling_ae = %calling, %reason, "association refused");
        if let Err(error) = self.store.association_refused(peer, reason, now()).await {
            warn!(peer = %address, %error, "the refusal could not be recorded");
        }
    }

    /// Records that a peer has left.
    async fn close(&self, association: &OpenAssociation, end: &ichor_store::AssociationEnd) {
        let (id, outcome) = (association.id.get(), &end.outcome);
        info!(association = id, %outcome, instances = end.instances, bytes = end.bytes, "association closed");
        if let Err(error) = self.store.association_closed(association.id, end, now()).await {
            warn!(association = id, %error, "the end of the association could not be recorded");
        }
    }

    /// Whether there is room for another instance; the words for the peer if not.
    fn check_room(&self) -> Result<(), &'static str> {
        match self.store.blobs().free_bytes() {
            Ok(free) if free < self.options.min_free_bytes => {
                warn!(free, wanted = self.options.min_free_bytes, "instance refused: the disk is almost full");
                Err("disk is almost full")
            }
            Ok(_) => Ok(()),
            Err(error) => {
                warn!(%error, "free space is not known");
                Ok(())
            }
        }
    }

    /// Begins an instance; `announced_by` is where its request comes from, for the words of a refusal.
    async fn begin_instance(
        &self,
        association: &OpenAssociation,
        request: &StoreRequest,
        announced_by: &'static str,
        thread: Thread,
    ) -> Result<IngestSink, StoreFailure> {
        let header = part10::write_header(&part10::Part10Meta {
            sop_class: request.sop_class.clone(),
            sop_instance: request.sop_instance.clone(),
            transfer_syntax: request.transfer_syntax.clone(),
            source_ae: association.calling_ae.clone(),
        });
        let passage = self.traffic.enter();
        // Not part of the digest: the same data set from another peer is the same instance.
        let blobs = self.store.blobs();
        let blob = match thread {
            Thread::MayBlock => blobs.begin_on_this_thread(&header).await,
            Thread::Shared => blobs.begin_with_header(&header).await,
        };
        let blob = blob.map_err(|error| failure(request, &error))?;
        let to_record = ToRecord {
            store: self.store.clone(),
            limits: self.options.limits,
            max_study_instances: self.options.max_study_instances,
            header_length: header.len() as u64,
            request: request.clone(),
            association: association.id,
            source_ae: association.calling_ae.clone(),
            quiet_period: association.quiet_period,
            announced_by,
            study: None,
        };
        Ok(IngestSink { blob, to_record, thread, passage })
    }
}

/// What announces an instance that comes by C-STORE.
const ANNOUNCED_BY_COMMAND: &str = "the command";

fn described(peer: &PeerInfo) -> NewAssociation {
    NewAssociation {
        peer_address: peer.address.to_string(),
        calling_ae: peer.calling_ae.clone(),
        called_ae: peer.called_ae.clone(),
    }
}

/// One instance on its way in. Dropped before [`InstanceSink::commit`] it leaves nothing behind.
pub struct IngestSink {
    blob: IncomingBlob,
    to_record: ToRecord,
    thread: Thread,
    passage: Passage,
}

/// The thread on which an instance arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    /// Its association's own.
    MayBlock,
    /// One that serves others as well.
    Shared,
}

/// What is recorded once the bytes are there.
struct ToRecord {
    store: Store,
    limits: DatasetLimits,
    max_study_instances: u32,
    header_length: u64,
    request: StoreRequest,
    association: AssociationId,
    source_ae: Option<AeTitle>,
    quiet_period: Duration,
    announced_by: &'static str,
    /// The study that it must belong to, if the peer named one.
    study: Option<Uid>,
}

impl InstanceSink for IngestSink {
    async fn write(&mut self, fragment: &[u8]) -> Result<(), StoreFailure> {
        self.blob.write(fragment).await.map_err(|error| failure(&self.to_record.request, &error))
    }

    async fn commit(self) -> Result<StoreOutcome, StoreFailure> {
        let Self { blob, to_record, thread, passage: _under_way } = self;
        let (store, request) = (to_record.store.clone(), to_record.request.clone());
        let last = blob.last_block().await.map_err(|error| failure(&request, &error))?;
        // A parser that panics over what a peer made up must not take the association along.
        let read = move || std::panic::catch_unwind(AssertUnwindSafe(|| to_record.read_and_place(last)));
        let read = match thread {
            Thread::MayBlock => read(),
            Thread::Shared => tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(Box::new(error))),
        };
        let failed = |_| refuse(&request, StoreStatus::CannotUnderstand, "the reader failed".to_owned());
        let instance = read.map_err(failed)??;
        let recorded = store.record_instance(instance, now()).await.map_err(|error| failure(&request, &error))?;
        if let Recorded::Conflict = recorded {
            warn!(
                sop_instance = %request.sop_instance,
                "another object under a known SOP Instance UID: kept apart, the first one stays"
            );
        }
        Ok(StoreOutcome::Success)
    }
}

impl ToRecord {
    /// Reads the data set and brings the file into its place. Blocks the thread.
    fn read_and_place(self, last: LastBlock) -> Result<NewInstance, StoreFailure> {
        let Self { store, limits, max_study_instances, header_length, request, association, .. } = self;
        let written = last.write().map_err(|error| failure(&request, &error))?;
        // The disk works while the data set is read.
        let attributes = inspect(written.path(), header_length, &request.transfer_syntax, limits)
            .map_err(|reason| refuse(&request, StoreStatus::CannotUnderstand, reason))?;
        check_identity(&request, &attributes, self.announced_by, self.study.as_ref())?;
        let arrived = store.blobs().place(written).map_err(|error| failure(&request, &error))?;
        Ok(NewInstance {
            own: attributes.made_by_ichor,
            max_study_instances,
            sop_instance: attributes.sop_instance,
            sop_class: attributes.sop_class,
            study: attributes.study,
            series: attributes.series,
            transfer_syntax: request.transfer_syntax,
            association: Some(association),
            source_ae: self.source_ae,
            arrived,
            quiet_period_ms: i64::try_from(self.quiet_period.as_millis()).unwrap_or(i64::MAX),
        })
    }
}

/// Walks the data set to its end and reads what the index needs.
fn inspect(
    path: &std::path::Path,
    offset: u64,
    transfer_syntax: &Uid,
    limits: DatasetLimits,
) -> Result<InstanceAttributes, String> {
    walk_file(path, offset, transfer_syntax, limits).map_err(|error| chain(&error))?;
    attributes::read(path).map_err(|error| error.to_string())
}

/// The data set must be what was announced (PS3.4 B.2.3, PS3.18 10.5.2: 0xA900).
fn check_identity(
    request: &StoreRequest,
    attributes: &InstanceAttributes,
    announced_by: &str,
    study: Option<&Uid>,
) -> Result<(), StoreFailure> {
    let same = |what: &str, tag: (u16, u16), by: &str, said: &Uid, found: &Uid| {
        if said == found {
            return Ok(());
        }
        warn!(sop_instance = %request.sop_instance, %said, %found, "{what} is not what {by} said: instance refused");
        // The peer gets 64 characters by DIMSE: what matters comes first.
        let comment = format!("{what} differs, {by} said {said}");
        Err(StoreFailure::new(StoreStatus::DataSetDoesNotMatch, comment).at(tag.0, tag.1))
    };
    same("SOP Class UID", (0x0008, 0x0016), announced_by, &request.sop_class, &attributes.sop_class)?;
    same("SOP Instance UID", (0x0008, 0x0018), announced_by, &request.sop_instance, &attributes.sop_instance)?;
    let found = &attributes.study.study_instance;
    same("Study Instance UID", (0x0020, 0x000D), "the URL", study.unwrap_or(found), found)
}

fn refuse(request: &StoreRequest, status: StoreStatus, reason: String) -> StoreFailure {
    warn!(sop_instance = %request.sop_instance, %reason, "instance refused");
    StoreFailure::new(status, reason)
}

/// The one place that maps the store's errors to a DIMSE status.
fn failure(request: &StoreRequest, error: &StoreError) -> StoreFailure {
    // The peer need not know of our folders.
    let (status, comment) = match error {
        StoreError::DiskFull { .. } => (StoreStatus::OutOfResources, "disk is full".to_owned()),
        StoreError::StudyFull { most, .. } => {
            (StoreStatus::OutOfResources, format!("the study has {most} instances, the most allowed"))
        }
        _ => (StoreStatus::ProcessingFailure, "cannot be stored just now".to_owned()),
    };
    StoreFailure { comment, ..refuse(request, status, chain(error)) }
}
