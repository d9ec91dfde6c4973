//! Look-ups: what peers say of studies that arrive, kept beside what was received.

use std::time::Duration;

use ichor_core::{AeTitle, Uid};

use crate::{Store, StoreError, Timestamp, Topic};

/// Who is asked, about what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupPeer {
    /// Its name.
    pub name: String,
    /// Its place among the peers: of two accession numbers that of the lower place is shown.
    pub rank: u32,
    /// Whether it is asked for the accession number of studies that came without.
    pub accession: bool,
    /// Whether it is asked how many instances a study has.
    pub counts: bool,
    /// Senders whose studies it is asked about; empty: everybody's.
    pub sources: Vec<AeTitle>,
}

/// A study that a peer is to be asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueLookup {
    /// The study's row.
    pub(crate) study: i64,
    /// Name of the peer.
    pub peer: String,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Patient ID, as received.
    pub patient_id: Option<String>,
    /// Study Date, YYYYMMDD, as received.
    pub study_date: Option<String>,
    /// Whether an accession number was received, or told by any peer.
    pub has_accession: bool,
    /// Whether more instances may come.
    pub is_receiving: bool,
    /// When the last one came.
    pub last_instance_at: Timestamp,
    /// The version after which it opened; 0: it is open for the first time.
    pub version: u32,
    /// Questions so far.
    pub asks: u32,
    /// Of these the last ones that brought nothing.
    pub failures: u32,
}

/// How many instances a peer says that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToldInstances {
    /// In the whole study (0020,1208).
    Study(u32),
    /// In each series of the study (0020,1209).
    Series(Vec<ToldSeries>),
}

/// How many instances a peer says that a series has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldSeries {
    /// Series Instance UID.
    pub series_instance: Uid,
    /// How many.
    pub instances: u32,
    /// Whether the study waits for them: of a kind that comes here.
    pub counts: bool,
}

/// What a peer answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookupAnswer {
    /// Accession number.
    pub accession_number: Option<String>,
    /// How many instances there are.
    pub instances: Option<ToldInstances>,
    /// What of the answer was not used, and why; without patient data.
    pub doubts: Vec<String>,
}

/// What follows from a number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completeness {
    /// When the question went out that was answered.
    pub asked_at: Timestamp,
    /// Whether a study that is complete closes before its quiet period has passed.
    pub close_when_complete: bool,
    /// For how long the same numbers must have been told, and nothing have arrived, before that.
    pub stable: Duration,
    /// For how long after its quiet period a study waits for instances that are missing.
    pub wait_for_missing: Duration,
}

/// How often a peer was asked, by what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupFigures {
    /// Name of the peer.
    pub peer: String,
    /// `answered`, `nothing`, `doubtful`, `failed`, or `due`: studies that it is to be asked about.
    pub outcome: &'static str,
    /// How many.
    pub count: u64,
}

impl Store {
    /// Makes every receiving study that `peer` knows nothing of yet due for it.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn open_lookups(&self, peer: &LookupPeer, now: Timestamp) -> Result<u64, StoreError> {
        self.index().open_lookups(peer, now).await
    }

    /// Studies that a peer is to be asked about, the longest due first.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn due_lookups(&self, peer: &str, limit: u32, now: Timestamp) -> Result<Vec<DueLookup>, StoreError> {
        self.index().due_lookups(peer, limit, now).await
    }

    /// When a peer is to be asked next.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn next_lookup(&self, peer: &str) -> Result<Option<Timestamp>, StoreError> {
        self.index().next_lookup(peer).await
    }

    /// Puts a question off, or drops it (`None`); nothing is counted.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn postpone_lookup(&self, due: &DueLookup, next: Option<Timestamp>) -> Result<(), StoreError> {
        self.index().postpone_lookup(due, next).await
    }

    /// Records what a peer answered: the accession number is kept beside the received one, and the study's expected
    /// instances, and what follows from them, are set. `next`: when it is asked again.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn record_lookup(
        &self,
        due: &DueLookup,
        answer: &LookupAnswer,
        completeness: Completeness,
        next: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.index().record_lookup(due, (answer, completeness), next, now).await? {
            // A deadline has moved.
            self.topics().notify(Topic::Received);
        }
        Ok(())
    }

    /// Records that a question came to nothing, and why. `next`: when it is asked again; `None`: never.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn lookup_failed(
        &self,
        due: &DueLookup,
        words: &str,
        next: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().lookup_failed(due, words, next, now).await
    }

    /// What came of all questions since the database was made, and how many are due.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn lookup_figures(&self) -> Result<Vec<LookupFigures>, StoreError> {
        self.index().lookup_figures().await
    }
}
