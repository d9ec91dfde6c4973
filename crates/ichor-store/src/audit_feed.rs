//! What an audit repository is told, in the order in which it happened: the audit trail, and of the event log what moves
//! patients' studies from place to place.

use ichor_core::Uid;
use serde::Serialize;

use crate::{AuditEntry, Store, StoreError, Timestamp};

/// Most rows of each log that are read at once.
const MOST_READ: u32 = 500;

/// A place in both logs: everything up to these rows was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditPlace {
    /// Row of the audit trail.
    pub audit: i64,
    /// Row of the event log.
    pub event: i64,
}

/// The patient and study that a record is about. Patient data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedStudy {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Patient ID.
    pub patient_id: Option<String>,
    /// Patient's Name.
    pub patient_name: Option<String>,
    /// Accession Number.
    pub accession_number: Option<String>,
}

/// Instances of one class.
pub type ClassCount = (Uid, u64);

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum AuditMatter {
    /// Somebody did something or looked at it.
    Entry(AuditEntry),
    /// An association or request has brought instances of a study.
    Received {
        /// Address of the peer.
        peer_address: String,
        /// Its title, or name.
        calling_ae: String,
        /// What it called.
        called_ae: String,
        /// How many new ones of which class.
        classes: Vec<ClassCount>,
    },
    /// A peer was refused.
    Refused {
        /// Its address.
        peer_address: String,
        /// Its title, or name.
        calling_ae: String,
        /// What it called.
        called_ae: String,
        /// Why.
        reason: String,
    },
    /// A destination has accepted a result object, or the last instance of a study that is forwarded to it.
    Delivered {
        /// Its name in the configuration.
        destination: String,
        /// How many of which class.
        classes: Vec<ClassCount>,
    },
    /// Files of a study were given up by retention.
    Removed {
        /// `pixels-removed` or `results-removed`.
        what: String,
        /// How many, by which rule.
        text: String,
    },
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditRecord {
    /// The place once it was told.
    pub after: AuditPlace,
    /// When it happened.
    pub at: Timestamp,
    /// Whom it is about.
    pub study: Option<AuditedStudy>,
    /// What it was.
    pub matter: AuditMatter,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditBatch {
    /// To be told, in this order.
    pub records: Vec<AuditRecord>,
    /// The place once all of them were told: past what is not for a repository, too.
    pub place: AuditPlace,
}

/// How the repository fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditFeedFigures {
    /// Messages told so far; one that was told twice counts twice.
    pub told: u64,
    /// Failed attempts so far.
    pub failures: u64,
    /// Rows that wait to be told.
    pub waiting: u64,
    /// When the oldest of them happened.
    pub waiting_since: Option<Timestamp>,
    /// Why it could not be told last; absent since it could.
    pub words: Option<String>,
    /// When it was told last.
    pub told_at: Option<Timestamp>,
}

impl Store {
    /// Notes whether a repository is told at all. The first that is hears what happens from then on.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn feed_audit(&self, is_fed: bool) -> Result<(), StoreError> {
        self.index().feed_audit(is_fed).await
    }

    /// The place up to which the repository was told.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] before [`Self::feed_audit`]; [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn audit_place(&self) -> Result<AuditPlace, StoreError> {
        self.index().audit_place().await
    }

    /// What comes after a place, about `most` records (500 at most). Of what happened in both logs the earlier comes first;
    /// none overtakes another of its own log.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn audit_after(&self, place: AuditPlace, most: u32) -> Result<AuditBatch, StoreError> {
        self.index().audit_after(place, most.clamp(1, MOST_READ)).await
    }

    /// Notes the place up to which the repository was told, with `told` more messages.
    ///
    /// # Errors
    /// As [`Self::feed_audit`].
    pub async fn audit_told(&self, place: AuditPlace, told: u64, now: Timestamp) -> Result<(), StoreError> {
        self.index().audit_told(place, told, now).await
    }

    /// Notes that it could not be told.
    ///
    /// # Errors
    /// As [`Self::feed_audit`].
    pub async fn audit_untold(&self, why: &str) -> Result<(), StoreError> {
        self.index().audit_untold(why).await
    }

    /// How it fares; `None` if no repository is configured.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn audit_feed_figures(&self) -> Result<Option<AuditFeedFigures>, StoreError> {
        self.index().audit_feed_figures().await
    }
}
