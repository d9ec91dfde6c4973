//! Figures: what a monitor wants to know of the whole store.

use ichor_core::StudyStatus;

use crate::{ChannelDepth, QueueDepth, Store, StoreError, Timestamp};

/// The store at one moment. Holds no patient data.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// How many studies are in which state.
    pub studies: Vec<(StudyStatus, u64)>,
    /// Number of the newest instance: as many were recorded since the database was made.
    pub instances: u64,
    /// Associations and STOW-RS requests that are open.
    pub open_associations: u64,
    /// Since when the analysis that has waited longest is due.
    pub oldest_analysis: Option<Timestamp>,
    /// Deliveries by destination and state.
    pub deliveries: Vec<QueueDepth>,
    /// By destination, since when the delivery that has waited longest is in the outbox.
    pub oldest_deliveries: Vec<(String, Timestamp)>,
    /// By destination, how many deliveries are accepted and still to be proven.
    pub unproven: Vec<(String, u64)>,
    /// Messages by channel and state.
    pub messages: Vec<ChannelDepth>,
    /// By channel, since when the message that has waited longest is in the queue.
    pub oldest_messages: Vec<(String, Timestamp)>,
    /// Of the studies that arrived since the moment asked for.
    pub recent: Recent,
}

/// What came of the studies of a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// Positive ones.
    pub positive: u64,
    /// Negative ones.
    pub negative: u64,
    /// Those that were alerted before they were complete.
    pub alerted: u64,
}

impl Store {
    /// The store's figures; `since` is from when on studies count as recent.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn figures(&self, since: Timestamp) -> Result<Figures, StoreError> {
        let figures = self.index().figures(since).await?;
        Ok(Figures { deliveries: self.queue_depths().await?, messages: self.channel_depths().await?, ..figures })
    }
}
