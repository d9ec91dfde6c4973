//! The worklist: workitems as their DICOM JSON, who hears of them, and what they have not heard yet. What a change means
//! is decided elsewhere (PS3.4 Annex CC); here it is made once or not at all.

use ichor_core::Uid;
use serde_json::Value;

use crate::{Store, StoreError, Timestamp, Topic};

/// A unified procedure step.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkitemRow {
    /// SOP Instance UID.
    pub uid: Uid,
    /// Procedure Step State (0074,1000), as its word.
    pub state: String,
    /// Transaction UID (0008,1195) of whoever has claimed it.
    pub transaction: Option<Uid>,
    /// How often it was changed, from 1.
    pub revision: i64,
    /// 0 high, 1 medium, 2 low.
    pub priority: u8,
    /// Scheduled Procedure Step Start DateTime (0040,4005), as its text.
    pub starts: String,
    /// The data set as DICOM JSON.
    pub attributes: Value,
}

/// A workitem that an analysis leaves behind.
#[derive(Clone, Debug, PartialEq)]
pub struct NewWorkitem {
    /// The workitem, SCHEDULED.
    pub row: WorkitemRow,
    /// What subscribers are told of it, as JSON.
    pub report: String,
    /// Those of earlier versions that nobody has begun are over, for this reason.
    pub supersedes: String,
}

/// What subscribers hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// One workitem.
    Workitem(Uid),
    /// All, those to come included.
    Worklist,
}

/// Something that a subscriber has not heard yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkitemReport {
    /// Number, rising.
    pub id: i64,
    /// The event report as JSON.
    pub body: String,
}

impl Store {
    /// Keeps a new workitem and tells subscribers; `false` if there is one of its name.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn create_workitem(
        &self,
        row: &WorkitemRow,
        reports: &[String],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let is_new = self.index().create_workitem(row, reports, now).await?;
        self.topics().notify(Topic::Workitems);
        Ok(is_new)
    }

    /// A workitem by its name.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn workitem(&self, uid: &Uid) -> Result<Option<WorkitemRow>, StoreError> {
        self.index().workitem(uid).await
    }

    /// Workitems in the order in which they are to be done: by priority, then by their start. `states` empty: of any state.
    ///
    /// # Errors
    /// As [`Self::workitem`].
    pub async fn workitems(&self, states: &[&str], offset: u64, limit: u32) -> Result<Vec<WorkitemRow>, StoreError> {
        self.index().workitems(states, offset, limit).await
    }

    /// Replaces the revision that `row` names by its successor and tells subscribers, in one transaction; `false` if somebody
    /// else was first.
    ///
    /// # Errors
    /// As [`Self::create_workitem`].
    pub async fn change_workitem(
        &self,
        row: &WorkitemRow,
        reports: &[String],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = self.index().change_workitem(row, reports, now).await?;
        self.topics().notify(Topic::Workitems);
        Ok(changed)
    }

    /// Subscribes; `reports` is what the subscriber is told at once.
    ///
    /// # Errors
    /// As [`Self::create_workitem`].
    pub async fn subscribe_workitems(
        &self,
        subscriber: &str,
        what: &Subscribed,
        deletion_lock: bool,
        reports: &[String],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().subscribe_workitems(subscriber, what, deletion_lock, reports, now).await?;
        self.topics().notify(Topic::Workitems);
        Ok(())
    }

    /// Ends a subscription, that of the worklist with those of all workitems; `false` if there was none.
    ///
    /// # Errors
    /// As [`Self::create_workitem`].
    pub async fn unsubscribe_workitems(&self, subscriber: &str, what: &Subscribed) -> Result<bool, StoreError> {
        self.index().unsubscribe_workitems(subscriber, what).await
    }

    /// Turns a subscription to the worklist into one of each workitem that is there; `false` if there was none.
    ///
    /// # Errors
    /// As [`Self::create_workitem`].
    pub async fn suspend_worklist(&self, subscriber: &str) -> Result<bool, StoreError> {
        self.index().suspend_worklist(subscriber).await
    }

    /// Whether anybody would hear of a change of this workitem.
    ///
    /// # Errors
    /// As [`Self::workitem`].
    pub async fn has_workitem_subscriber(&self, uid: &Uid) -> Result<bool, StoreError> {
        self.index().has_workitem_subscriber(uid).await
    }

    /// What a subscriber has not heard yet, the oldest first.
    ///
    /// # Errors
    /// As [`Self::workitem`].
    pub async fn workitem_reports(&self, subscriber: &str, limit: u32) -> Result<Vec<WorkitemReport>, StoreError> {
        self.index().workitem_reports(subscriber, limit).await
    }

    /// Forgets what a subscriber has heard, and counts how long it took.
    ///
    /// # Errors
    /// As [`Self::create_workitem`].
    pub async fn workitem_report_heard(&self, subscriber: &str, id: i64, now: Timestamp) -> Result<(), StoreError> {
        self.index().workitem_report_heard(subscriber, id, now).await
    }
}
