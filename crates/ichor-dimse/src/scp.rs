//! Storage and Verification as provider (PS3.4 Annex A and B): who may come, what is taken, and to whom it is handed.

mod admission;
mod association;
mod commitment;
mod establish;
mod handler;
mod listener;
mod options;
mod pace;
mod thread;

pub(crate) use commitment::report_command;
pub use commitment::{CommitmentLimits, PendingReport};
pub use handler::{
    AssociationEnd, AssociationOutcome, InstanceSink, PeerInfo, Rejection, StorageHandler, StoreFailure, StoreOutcome,
    StoreRequest,
};
pub use listener::{StorageScp, serve_stream};
pub use options::{PeerRule, Preference, ScpOptions, SopClassRule, UserRule};
