//! Where workitems lie: whoever implements [`WorkitemShelf`] makes each change once or not at all.

use futures_util::future::BoxFuture;
use ichor_core::Uid;
use serde_json::Value;
use thiserror::Error;

use super::attributes::DataSet;
use super::workitem::{UpsState, Workitem};
use crate::server::handler::Sender;

/// The shelf cannot be used just now.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("workitems are not available: {0}")]
pub struct ShelfError(pub String);

/// What subscribers hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One workitem.
    Workitem(Uid),
    /// All, those to come included.
    Worklist,
}

/// Something that a subscriber has not heard yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Number, rising.
    pub id: i64,
    /// The event report as JSON.
    pub body: String,
}

/// What a client sees or changes, for the audit trail.
#[derive(Clone, Debug)]
pub struct Deed {
    /// Stable word, such as `workitem-viewed`.
    pub action: &'static str,
    /// The study that the workitem names.
    pub study: Option<Uid>,
    /// What exactly.
    pub detail: Value,
}

/// Who sees or changes something, and what they do.
#[derive(Clone, Debug)]
pub struct By<'a> {
    /// Who.
    pub who: &'a Sender,
    /// What they do.
    pub deed: Deed,
}

/// The answer of a shelf.
pub type Shelved<'a, T> = BoxFuture<'a, Result<T, ShelfError>>;

/// Keeps workitems, subscriptions and what subscribers have not heard yet. What a client changes is written down together
/// with the change: both are kept, or neither; what changes nothing is not written down.
pub trait WorkitemShelf: Send + Sync + 'static {
    /// Keeps a new one and tells subscribers; `false` if there is one of its name.
    fn insert<'a>(&'a self, by: By<'a>, item: &'a Workitem, reports: &'a [DataSet]) -> Shelved<'a, bool>;

    /// One by its name.
    fn get<'a>(&'a self, uid: &'a Uid) -> Shelved<'a, Option<Workitem>>;

    /// Replaces the revision that `item` names and tells subscribers; `false` if somebody else was first.
    fn replace<'a>(&'a self, by: By<'a>, item: &'a Workitem, reports: &'a [DataSet]) -> Shelved<'a, bool>;

    /// In the order in which they are to be done; `states` empty: of any state.
    fn list<'a>(&'a self, states: &'a [UpsState], offset: u64, limit: u32) -> Shelved<'a, Vec<Workitem>>;

    /// Subscribes; `reports` is what the subscriber is told at once.
    fn subscribe<'a>(
        &'a self,
        by: By<'a>,
        subscriber: &'a str,
        target: &'a Target,
        deletion_lock: bool,
        reports: &'a [DataSet],
    ) -> Shelved<'a, ()>;

    /// Ends a subscription; `false` if there was none.
    fn unsubscribe<'a>(&'a self, by: By<'a>, subscriber: &'a str, target: &'a Target) -> Shelved<'a, bool>;

    /// No workitem to come is told of any more; `false` if there was no subscription to the worklist.
    fn suspend<'a>(&'a self, by: By<'a>, subscriber: &'a str) -> Shelved<'a, bool>;

    /// Whether anybody would hear of a change.
    fn has_subscriber<'a>(&'a self, uid: &'a Uid) -> Shelved<'a, bool>;

    /// What a subscriber has not heard yet, the oldest first.
    fn pending<'a>(&'a self, subscriber: &'a str, limit: u32) -> Shelved<'a, Vec<Pending>>;

    /// Forgets what a subscriber has heard.
    fn forget<'a>(&'a self, subscriber: &'a str, id: i64) -> Shelved<'a, ()>;

    /// Writes down who sees what. The answer goes out after it, or not at all.
    fn audit<'a>(&'a self, by: By<'a>) -> Shelved<'a, ()>;

    /// Completes when something may be pending; a poll now and then finds what it misses.
    fn changed(&self) -> BoxFuture<'static, ()>;
}
