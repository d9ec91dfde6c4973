//! UPS-RS as origin server (PS3.18 chapter 11, PS3.4 Annex CC): workitems are created, found, claimed, reported on and
//! finished; subscribers hear of it over a WebSocket.
//!
//! Architecture Invariant: this room knows HTTP, DICOM JSON and what may follow what. Where workitems are kept is the
//! [`WorkitemShelf`]'s.

pub(crate) mod attributes;
mod channel;
mod fault;
mod query;
mod report;
mod resource;
mod service;
mod shelf;
mod workitem;

use std::fmt;
use std::sync::Arc;

pub use attributes::{DataSet, attribute, code, data_set, items, sequence, text, uid};
pub(super) use channel::{Channels, Upgrade};
pub use fault::Fault;
pub use report::of_state as state_report;
pub(super) use service::{is_ours, serve};
pub use shelf::{By, Deed, Pending, ShelfError, Shelved, Target, WorkitemShelf};
pub use workitem::{UpsState, Workitem, create, date_time};

/// Settings of the worklist.
#[derive(Clone)]
pub struct UpsOptions {
    /// Where workitems lie.
    pub shelf: Arc<dyn WorkitemShelf>,
    /// Longest body, in bytes; a longer one is answered with 413.
    pub max_body_bytes: usize,
    /// Most workitems in an answer; more are asked for with `offset`.
    pub max_results: u32,
}

impl fmt::Debug for UpsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpsOptions")
            .field("max_body_bytes", &self.max_body_bytes)
            .field("max_results", &self.max_results)
            .finish_non_exhaustive()
    }
}
