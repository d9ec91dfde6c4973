//! Receive: associations and instances.

use ichor_core::{AeTitle, Uid};
use tokio::sync::oneshot;

use crate::group_commit::Entry;
use crate::{ArrivedBlob, Store, StoreError, Timestamp, Topic};

/// Number of an association in the job log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssociationId(pub(crate) i64);

impl AssociationId {
    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// Number of an instance in the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(pub(crate) i64);

impl InstanceId {
    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

/// An association, or an attempt at one, as the peer presented itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAssociation {
    /// Address and port.
    pub peer_address: String,
    /// Calling AE title, as received.
    pub calling_ae: String,
    /// Called AE title, as received.
    pub called_ae: String,
}

/// How an association ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssociationEnd {
    /// `released`, `aborted by the peer`, ... in the receiver's words.
    pub outcome: String,
    /// Instances that were answered with success.
    pub instances: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// What the index keeps of a study (PS3.3 C.7.1.1, C.7.2.1). The first value seen stays; later instances fill gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyAttributes {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Patient ID.
    pub patient_id: Option<String>,
    /// Patient's Name.
    pub patient_name: Option<String>,
    /// Accession Number.
    pub accession_number: Option<String>,
    /// Study Date, YYYYMMDD.
    pub study_date: Option<String>,
    /// Study Description.
    pub description: Option<String>,
}

/// What the index keeps of a series (PS3.3 C.7.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesAttributes {
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Modality.
    pub modality: Option<String>,
    /// Series Description.
    pub description: Option<String>,
    /// Series Number.
    pub number: Option<i32>,
}

/// An instance that arrived, its bytes in place.
#[derive(Debug)]
pub struct NewInstance {
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// The study it belongs to.
    pub study: StudyAttributes,
    /// The series it belongs to.
    pub series: SeriesAttributes,
    /// Transfer Syntax UID of the stored bytes.
    pub transfer_syntax: Uid,
    /// The association that brought it.
    pub association: Option<AssociationId>,
    /// Who sent it.
    pub source_ae: Option<AeTitle>,
    /// The bytes.
    pub arrived: ArrivedBlob,
    /// How long to wait for more of the study, in milliseconds.
    pub quiet_period_ms: i64,
    /// It says that this program made it. Such a one, and one whose SOP Instance UID is that of a result made here, is
    /// kept, never analysed, and opens no study again.
    pub own: bool,
    /// Most instances of its study, without our own results; one more is refused.
    pub max_study_instances: u32,
}

/// What became of an instance. All of these are durable when returned, and a success to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Not seen before.
    New {
        /// Its number.
        instance: InstanceId,
        /// Study Instance UID of its study.
        study: Uid,
    },
    /// Same SOP Instance UID, same content: the first one stays, nothing is refreshed.
    Duplicate,
    /// Same SOP Instance UID, other content: the first one stays, this one is kept apart.
    Conflict,
}

impl Store {
    /// Records that an association was accepted.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::Database`].
    pub async fn association_opened(
        &self,
        association: &NewAssociation,
        now: Timestamp,
    ) -> Result<AssociationId, StoreError> {
        self.index().association_opened(association, now).await
    }

    /// Records that an association was refused, and why.
    ///
    /// # Errors
    /// As [`Self::association_opened`].
    pub async fn association_refused(
        &self,
        association: &NewAssociation,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().association_refused(association, reason, now).await
    }

    /// Records that an association ended, and starts the quiet period anew of each receiving study to which it
    /// brought a new instance. A second end of the same association changes nothing.
    ///
    /// # Errors
    /// As [`Self::association_opened`]; [`StoreError::NotFound`] if there is no such association.
    pub async fn association_closed(
        &self,
        association: AssociationId,
        end: &AssociationEnd,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.index().association_closed(association, end, now).await?;
        self.topics().notify(Topic::Received);
        Ok(())
    }

    /// Brings the bytes onto the medium and commits the row; only then does it return. A new instance puts its study into
    /// `receiving` until the quiet period has passed. On a study that was closed before, it opens the next version.
    ///
    /// Instances of different associations that arrive together share one transaction and its fsync.
    ///
    /// # Errors
    /// [`StoreError::StudyFull`], [`StoreError::DiskFull`], [`StoreError::Busy`], [`StoreError::File`],
    /// [`StoreError::Database`]: nothing was kept. [`StoreError::Closed`] after [`Store::close`].
    pub async fn record_instance(&self, instance: NewInstance, now: Timestamp) -> Result<Recorded, StoreError> {
        let (answer, answered) = oneshot::channel();
        let (safe, made_safe) = oneshot::channel();
        let queue = self.record_queue()?;
        let (entry, unsynced) = Entry::new(instance, now, answer, made_safe);
        queue.send(entry).await.map_err(|_| StoreError::Closed)?;
        drop(queue);
        // While the row is made; it is committed after this.
        unsynced.sync(safe).await;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}
