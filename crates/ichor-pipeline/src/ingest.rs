//! Ingest: what a Storage SCP hands over becomes a durable blob and a committed row, in that order, before the
//! peer hears of success (invariant 2).

mod attributes;
mod dataset;

use std::sync::Arc;
use std::time::Duration;

use ichor_core::{AeTitle, Uid};
use ichor_dimse::part10;
use ichor_dimse::scp::{
    AssociationEnd, InstanceSink, PeerInfo, PeerRule, Rejection, StorageHandler, StoreFailure, StoreOutcome,
    StoreRequest,
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
}

/// The stage, as the handler of a Storage SCP.
#[derive(Clone)]
pub struct Ingest {
    store: Store,
    options: Arc<IngestOptions>,
}
