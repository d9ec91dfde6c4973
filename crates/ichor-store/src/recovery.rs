//! Recovery: what a process does first when it takes over a store.

use std::path::PathBuf;

use serde::Serialize;

use crate::{Store, StoreError, Timestamp, Topic};

/// A row whose file is not there, or not of its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingBlob {
    /// `instance`, `conflict` or `object`.
    pub kind: String,
    /// SOP Instance UID.
    pub sop_instance: String,
    /// Where the file should be.
    pub path: PathBuf,
}

/// What recovery found and put right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Analyses that were under way and are queued again.
    pub requeued_analyses: u64,
    /// Deliveries that were under way and are queued again.
    pub requeued_deliveries: u64,
    /// Commitment reports that were under way and are queued again.
    pub requeued_commitments: u64,
    /// Messages that were under way and are queued again.
    pub requeued_messages: u64,
    /// Associations that were open and are marked as ended by the restart.
    pub ended_associations: u64,
    /// Files removed from `incoming/`.
    pub removed_incoming: u64,
    /// Published files without a row, removed.
    pub removed_orphans: u64,
    /// Rows without a file. The files of the last run and those that queued work needs are looked at.
    pub missing_blobs: Vec<MissingBlob>,
}

impl Store {
    /// Takes ownership of the store for this process and puts right what the last owner left: running analyses and
    /// deliveries are queued again, open associations are ended (which starts the quiet period of their studies
    /// anew), files without a row are removed, and rows without a file are reported.
    ///
    /// A process that receives, analyses or delivers calls this once before it does; one that only asks does not.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process owns the store; [`StoreError::DiskFull`], [`StoreError::Busy`],
    /// [`StoreError::File`], [`StoreError::Database`].
    pub async fn recover(&self, now: Timestamp) -> Result<Recovery, StoreError> {
        self.own().await?;
        let mut recovery = self.index().requeue_interrupted(now).await?;
        recovery.requeued_commitments = self.index().requeue_commitment_reports(None, now).await?;
        recovery.requeued_messages = self.index().requeue_messages(None, now).await?;
        recovery.removed_incoming = self.blobs().clear_incoming().await?;
        for shelf in self.blobs().unswept_shelves().await? {
            let rows = self.index().blobs_with_prefix(&shelf.prefix()).await?;
            for blob in self.blobs().blobs_on(&shelf).await? {
                if !rows.contains(&blob) {
                    self.blobs().remove(&blob).await;
                    recovery.removed_orphans += 1;
                }
            }
            let missing = self.index().missing_on_shelf(self.blobs(), &shelf.prefix()).await?;
            recovery.missing_blobs.extend(missing);
            self.blobs().unmark(&shelf).await?;
        }
        for missing in self.index().missing_for_pending_work(self.blobs()).await? {
            if !recovery.missing_blobs.contains(&missing) {
                recovery.missing_blobs.push(missing);
            }
        }
        self.index().report_missing(&recovery.missing_blobs, now).await?;
        for topic in [Topic::Received, Topic::Closed, Topic::Outbox, Topic::Messages, Topic::Commitments] {
            self.topics().notify(topic);
        }
        Ok(recovery)
    }
}
