//! Ingest: what a Storage SCP hands over becomes a durable blob and a committed row, in that order, before the
//! peer hears of success (invariant 2).

mod attributes;
mod commitment;
mod dataset;

use std::sync::Arc;
use std::time::Duration;

use ichor_core::{AeTitle, Uid};
use ichor_dimse::commitment::CommitmentRequest;
use ichor_dimse::part10;
use ichor_dimse::scp::{
    AssociationEnd, InstanceSink, PeerInfo, PeerRule, PendingReport, Rejection, StorageHandler, StoreFailure,
    StoreOutcome, StoreRequest,
};
use ichor_dimse::status::StoreStatus;
use ichor_store::{AssociationId, IncomingBlob, NewAssociation, NewInstance, Recorded, Store, StoreError};
use tracing::{debug, info, warn};

pub(crate) use attributes::chain;
pub use attributes::{AttributeError, InstanceAttributes};
pub use dataset::{DatasetError, DatasetLimits, DatasetShape, walk_file};

use crate::now;

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
    /// Requests for storage commitment.
    pub commitment: CommitmentOptions,
}

/// Settings of storage commitment on the association that asks.
#[derive(Clone, Copy, Debug)]
pub struct CommitmentOptions {
    /// How long instances that are not there yet may still come before a failure is reported.
    pub wait: Duration,
    /// Wait after a peer refused a report.
    pub retry_after: Duration,
}

/// The stage, as the handler of a Storage SCP.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    options: Arc<IngestOptions>,
}

/// An open association, as the stage knows it.
pub struct OpenAssociation {
    id: AssociationId,
    calling_ae: Option<AeTitle>,
    quiet_period: Duration,
}

impl Ingest {
    /// Makes the stage.
    #[must_use]
    pub fn new(store: Store, options: IngestOptions) -> Self {
        Self { store, options: Arc::new(options) }
    }

    fn source_of(&self, peer: &PeerInfo) -> Option<&Source> {
        self.options.sources.iter().find(|source| source.peer.matches(peer))
    }
}

impl StorageHandler for Ingest {
    type Association = OpenAssociation;
    type Sink = IngestSink;

    async fn association_opened(&self, peer: &PeerInfo) -> Result<OpenAssociation, Rejection> {
        let Some(source) = self.source_of(peer) else { return Err(Rejection::CallingAeNotRecognized) };
        let opened = NewAssociation {
            peer_address: peer.address.to_string(),
            calling_ae: peer.calling_ae.clone(),
            called_ae: peer.called_ae.clone(),
        };
        let id = self.store.association_opened(&opened, now()).await.map_err(|error| {
            warn!(peer = %peer.address, %error, "association rejected: the job log cannot record it");
            Rejection::TemporaryCongestion
        })?;
        debug!(association = id.get(), peer = %peer.address, calling_ae = %peer.calling_ae, "association opened");
        let calling_ae = AeTitle::parse(&peer.calling_ae).ok();
        Ok(OpenAssociation { id, calling_ae, quiet_period: source.quiet_period })
    }

    async fn association_refused(&self, peer: &PeerInfo, rejection: &Rejection) {
        warn!(peer = %peer.address, calling_ae = %peer.calling_ae, reason = %rejection, "association refused");
        let refused = NewAssociation {
            peer_address: peer.address.to_string(),
            calling_ae: peer.calling_ae.clone(),
            called_ae: peer.called_ae.clone(),
        };
        if let Err(error) = self.store.association_refused(&refused, &rejection.to_string(), now()).await {
            warn!(peer = %peer.address, %error, "the refusal could not be recorded");
        }
    }

    async fn association_closed(&self, association: OpenAssociation, end: AssociationEnd) {
        let outcome = ichor_store::AssociationEnd {
            outcome: end.outcome.to_string(),
            instances: end.instances,
            bytes: end.bytes,
        };
        info!(
            association = association.id.get(),
            outcome = %outcome.outcome,
            instances = end.instances,
            bytes = end.bytes,
            "association closed"
        );
        if let Err(error) = self.store.requeue_commitment_reports(Some(association.id), now()).await {
            warn!(association = association.id.get(), %error, "unanswered commitment reports wait for a restart");
        }
        if let Err(error) = self.store.association_closed(association.id, &outcome, now()).await {
            warn!(association = association.id.get(), %error, "the end of the association could not be recorded");
        }
    }

    async fn begin(&self, association: &OpenAssociation, request: &StoreRequest) -> Result<IngestSink, StoreFailure> {
        match self.store.blobs().free_bytes() {
            Ok(free) if free < self.options.min_free_bytes => {
                warn!(free, wanted = self.options.min_free_bytes, "instance refused: the disk is almost full");
                return Err(StoreFailure::new(StoreStatus::OutOfResources, "disk is almost full"));
            }
            Ok(_) => {}
            Err(error) => warn!(%error, "free space is not known"),
        }
        let header = part10::write_header(&part10::Part10Meta {
            sop_class: request.sop_class.clone(),
            sop_instance: request.sop_instance.clone(),
            transfer_syntax: request.transfer_syntax.clone(),
            source_ae: association.calling_ae.clone(),
        });
        // Not part of the digest: the same data set from another peer is the same instance.
        let blob = self.store.blobs().begin_with_header(&header);
        let blob = blob.await.map_err(|error| failure(request, &error))?;
        Ok(IngestSink {
            store: self.store.clone(),
            limits: self.options.limits,
            blob,
            header_length: header.len() as u64,
            request: request.clone(),
            association: association.id,
            source_ae: association.calling_ae.clone(),
            quiet_period: association.quiet_period,
        })
    }

    async fn commitment_requested(
        &self,
        association: &OpenAssociation,
        request: &CommitmentRequest,
    ) -> Result<(), StoreFailure> {
        self.record_request(association, request).await
    }

    async fn report_due(&self, association: &OpenAssociation) {
        self.wait_for_report(association).await;
    }

    async fn take_report(&self, association: &OpenAssociation) -> Option<PendingReport> {
        self.claim_report(association).await
    }

    async fn report_answered(
        &self,
        _association: &OpenAssociation,
        id: i64,
        status: StoreStatus,
        comment: Option<String>,
    ) {
        self.record_answer(id, status, comment).await;
    }
}

/// One instance on its way in. Dropped before [`InstanceSink::commit`] it leaves nothing behind.
pub struct IngestSink {
    store: Store,
    limits: DatasetLimits,
    blob: IncomingBlob,
    header_length: u64,
    request: StoreRequest,
    association: AssociationId,
    source_ae: Option<AeTitle>,
    quiet_period: Duration,
}

impl InstanceSink for IngestSink {
    async fn write(&mut self, fragment: &[u8]) -> Result<(), StoreFailure> {
        self.blob.write(fragment).await.map_err(|error| failure(&self.request, &error))
    }

    async fn commit(self) -> Result<StoreOutcome, StoreFailure> {
        let Self { store, limits, blob, header_length, request, association, source_ae, quiet_period } = self;
        let staged = blob.finish().await.map_err(|error| failure(&request, &error))?;
        let path = staged.path().to_owned();
        let transfer_syntax = request.transfer_syntax.clone();
        let read = move || inspect(&path, header_length, &transfer_syntax, limits);
        let attributes = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| refuse(&request, StoreStatus::CannotUnderstand, format!("reader failed: {error}")))?
            .map_err(|reason| refuse(&request, StoreStatus::CannotUnderstand, reason))?;
        check_identity(&request, &attributes)?;
        let own = attributes.made_by_ichor
            || store.is_own_object(&attributes.sop_instance).await.map_err(|error| failure(&request, &error))?;
        let recorded = store
            .record_instance(
                NewInstance {
                    own,
                    sop_instance: attributes.sop_instance,
                    sop_class: attributes.sop_class,
                    study: attributes.study,
                    series: attributes.series,
                    transfer_syntax: request.transfer_syntax.clone(),
                    association: Some(association),
                    source_ae,
                    staged,
                    quiet_period_ms: i64::try_from(quiet_period.as_millis()).unwrap_or(i64::MAX),
                },
                now(),
            )
            .await
            .map_err(|error| failure(&request, &error))?;
        if let Recorded::Conflict = recorded {
            warn!(
                sop_instance = %request.sop_instance,
                "another object under a known SOP Instance UID: kept apart, the first one stays"
            );
        }
        Ok(StoreOutcome::Success)
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

/// The data set must be what the command said it is (PS3.4 B.2.3: 0xA900).
fn check_identity(request: &StoreRequest, attributes: &InstanceAttributes) -> Result<(), StoreFailure> {
    let differs = |what, said: &Uid, found: &Uid| {
        refuse(request, StoreStatus::DataSetDoesNotMatch, format!("{what} is {found}, the command said {said}"))
    };
    if attributes.sop_class != request.sop_class {
        return Err(differs("SOP Class UID", &request.sop_class, &attributes.sop_class));
    }
    if attributes.sop_instance != request.sop_instance {
        return Err(differs("SOP Instance UID", &request.sop_instance, &attributes.sop_instance));
    }
    Ok(())
}

fn refuse(request: &StoreRequest, status: StoreStatus, reason: String) -> StoreFailure {
    warn!(sop_instance = %request.sop_instance, %reason, "instance refused");
    StoreFailure::new(status, reason)
}

/// The one place that maps the store's errors to a DIMSE status.
fn failure(request: &StoreRequest, error: &StoreError) -> StoreFailure {
    let status = match error {
        StoreError::DiskFull { .. } => StoreStatus::OutOfResources,
        _ => StoreStatus::ProcessingFailure,
    };
    refuse(request, status, chain(error))
}
