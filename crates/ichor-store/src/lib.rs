//! The job log and index, the blobs, and the outbox.
//!
//! Everything a stage may do to the store is an *intent*, a method of [`Store`]: [`Store::record_instance`],
//! [`Store::claim_analysis`], [`Store::complete_analysis`] and so on, one module for each stage. An intent is one
//! transaction that also writes what happened into the event log; it is done wholly or not at all. The caller
//! gives the time, as a [`Timestamp`].
//!
//! Architecture Invariant: no SQL type leaves this crate, and no type of dicom-rs enters it. Events hold no patient
//! data. File names are made here, never from a peer's string.
//!
//! What is common to all backends (types, blobs, wake-ups, group commit) lies in this folder; `sqlite` holds the
//! statements. `tests/store/conformance.rs` runs one suite over each backend.

mod access;
mod analyse;
mod assemble;
mod audit_feed;
mod backup;
mod blobs;
mod changes;
mod commitment;
mod deliver;
mod destination;
mod error;
mod events;
mod figures;
mod forward;
mod group_commit;
mod held;
mod latency;
mod lookup;
mod map;
mod message;
mod models;
mod order;
mod proof;
mod provided;
mod query;
mod receive;
mod recovery;
mod retention;
mod scores;
mod search;
mod shadow;
mod sqlite;
mod store;
mod task;
mod timestamp;
mod trace;
mod triage;
mod worklist;

/// A temporary folder, in memory where there is one: what is tested there does not depend on the medium.
#[cfg(test)]
fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::TempDir::new_in(memory) } else { tempfile::TempDir::new() }.unwrap()
}

pub use access::{
    Admitted, AuditEntry, AuditFilter, DICOMWEB_ACTOR, NewAudit, NewSession, Role, SecretDigest, TokenSummary,
    UnknownRole, User, Witness,
};
pub use analyse::{
    AnalysisClaim, AnalysisOutcome, NewObject, Routed, SeriesOutcomeRow, SliceScore, StoredInstance, Verdict,
};
pub use assemble::StudyRef;
pub use audit_feed::{AuditBatch, AuditFeedFigures, AuditMatter, AuditPlace, AuditRecord, AuditedStudy, ClassCount};
pub use backup::{Copied, Examined, UnsoundBlob, Verified, examine, in_backup, restore, verify};
pub use blobs::{
    ArrivedBlob, BlobRef, BlobStore, HeaderLength, IncomingBlob, LastBlock, StagedBlob, WrittenBlob, free_bytes,
};
pub use changes::{Changes, Topic};
pub use commitment::{
    CLASS_INSTANCE_CONFLICT, CommitmentClaim, CommitmentRecorded, CommitmentSummary, NO_SUCH_INSTANCE, NewCommitment,
    PROCESSING_FAILURE,
};
pub use deliver::{DeliveryClaim, DeliveryObject, QueueDepth};
pub use destination::{Among, Context, DeliveryFilter, DeliverySummary, DestinationState};
pub use error::{StorageFailure, StoreError};
pub use events::Event;
pub use figures::{Figures, Recent};
pub use forward::{ClosedStudy, ForwardedDepth, Forwarding};
pub use held::{HeldFilter, HeldInstance, HeldStudy};
pub use latency::{LATENCY_BOUNDS_MS, Latency, LatencyHistogram, Measure};
pub use lookup::{Completeness, DueLookup, LookupAnswer, LookupFigures, LookupPeer, ToldInstances, ToldSeries};
pub use map::{MapFile, MapPlace, SliceMap};
pub use message::{ChannelDepth, MessageClaim, MessageSeries, MessageSummary};
pub use models::{Activation, NewOffer, Offer, ReanalysisWish};
pub use order::{UndecidedAnalysis, Urgency, WaitingAnalysis};
pub use proof::{Consequence, LostDelivery, ProofPlan, ProofReport, ProofReported, ProofRequest, Unproven};
pub use provided::{Provided, ProvidedLogout, ProvidedSession, ProvidedUser};
pub use query::{DeliveryDetail, ObjectDetail, RetryOutcome, SeriesDetail, StudyDetail, StudyKey, StudySummary};
pub use receive::{
    AssociationEnd, AssociationId, InstanceId, NewAssociation, NewInstance, Recorded, SeriesAttributes, StudyAttributes,
};
pub use recovery::{MissingBlob, Recovery};
pub use retention::{Candidate, FileKind, Follower, Protection, Removal, RetentionFigures, Settled, Sweep};
pub use scores::{BINS, Histogram, Scores};
pub use search::{
    Cursor, DayFigures, LoggedEvent, Page, ReasonCount, ReleaseOutcome, SourceFigures, Statistics, StudyFilter,
    StudyMark, StudyOrder, Turnaround, UnknownMark, study_day,
};
pub use shadow::{
    AgreementReport, Disagreement, ShadowClaim, ShadowDepth, ShadowOutcome, ShadowResult, SourceAgreement,
};
pub use store::{Store, StoreOptions};
pub use task::{NewTask, Task, TaskDepth, TaskFilter, TaskListState, TaskStep, TaskSummary};
pub use timestamp::Timestamp;
pub use trace::{TraceArrival, TraceClaim, TraceEvent, TraceFigures, TracePace};
pub use triage::{ArrivedInstance, ArrivedSlice, NewAlert, SliceProbability};
pub use worklist::{NewWorkitem, Subscribed, WorkitemReport, WorkitemRow};
