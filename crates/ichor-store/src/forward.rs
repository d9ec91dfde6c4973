//! Forwarding: received instances of closed studies go into the outbox, as they are.

use std::net::IpAddr;
use std::path::PathBuf;

use ichor_core::{AeTitle, DeliveryStatus, Uid};
use serde::Serialize;

use crate::{Store, StoreError, Timestamp, Topic};

/// A study that closed, and of which nobody has decided yet whether it is forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedStudy {
    pub(crate) id: i64,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// The version that closed.
    pub version: u32,
    /// Who sent the first instance.
    pub source_ae: Option<AeTitle>,
    /// From which address; `None` if it was fetched, or the job log does not say.
    pub source_address: Option<IpAddr>,
    /// The file of the first instance that is not our own.
    pub first_instance: Option<PathBuf>,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Where its instances go.
    pub destinations: Vec<String>,
    /// Whether they go before others.
    pub urgent: bool,
    /// What the job log is to say; `None`: nothing.
    pub words: Option<String>,
}

/// How many received instances of a study stand where, on their way to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ForwardedDepth {
    /// Name of the destination.
    pub destination: String,
    /// The state.
    pub status: DeliveryStatus,
    /// How many.
    pub count: u64,
    /// What the peer, or the last failed attempt, said of the newest of them.
    pub last_words: Option<String>,
}

impl Store {
    /// How the instances of a study stand that are forwarded, by destination and state.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn forwarded(&self, study: &Uid) -> Result<Vec<ForwardedDepth>, StoreError> {
        self.index().forwarded(study).await
    }

    /// Closed versions that wait for the decision, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn undecided_studies(&self, most: u32) -> Result<Vec<ClosedStudy>, StoreError> {
        self.index().undecided_studies(self.blobs(), most).await
    }

    /// The address that sent the first instance of a study; `None` if it was fetched, or the job log does not say.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn source_address(&self, study: &Uid) -> Result<Option<IpAddr>, StoreError> {
        self.index().source_address(study).await
    }

    /// Queues every instance of a study that was not queued for these destinations before, and records the decision, in one
    /// transaction. Returns how many were queued.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn forward(
        &self,
        study: &ClosedStudy,
        forwarding: &Forwarding,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let queued = self.index().forward(study, forwarding, now).await?;
        if queued > 0 {
            self.topics().notify(Topic::Outbox);
        }
        Ok(queued)
    }

    /// Notes, once a version, why it cannot be decided yet whether a study is forwarded.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn forwarding_waits(&self, study: &ClosedStudy, why: &str, now: Timestamp) -> Result<(), StoreError> {
        self.index().forwarding_waits(study, &crate::events::peer_text(why), now).await
    }
}
