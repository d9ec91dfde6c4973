//! What is held: received instances and our own results side by side, as a peer that searches and retrieves sees them.

use std::path::PathBuf;

use ichor_core::Uid;

use crate::{Store, StoreError};

/// Most studies of one page.
const LONGEST_PAGE: u32 = 1_000;

/// Which studies are looked at. Fields that are empty do not filter. Texts are patterns: `*` stands for any characters, `?`
/// for one; what they leave is looked at again by whoever asks, so that more than fits may come, and never less.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldFilter {
    /// Any of these studies.
    pub studies: Vec<Uid>,
    /// Holding any of these series.
    pub series: Vec<Uid>,
    /// Holding any of these instances.
    pub instances: Vec<Uid>,
    /// Patient ID.
    pub patient_id: Option<String>,
    /// Patient's Name; case does not matter.
    pub patient_name: Option<String>,
    /// Accession Number.
    pub accession_number: Option<String>,
    /// Study Date from, YYYYMMDD.
    pub date_from: Option<String>,
    /// Study Date to, inclusive, YYYYMMDD.
    pub date_to: Option<String>,
}

/// A study that holds something, as the index knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldStudy {
    /// Its place in the order of studies: where the next page begins.
    pub place: i64,
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

/// An instance that is held: received, or a result made here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldInstance {
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Series Instance UID.
    pub series_instance: Uid,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Transfer Syntax UID of the stored bytes.
    pub transfer_syntax: Uid,
    /// Modality, where the index has it: of received series.
    pub modality: Option<String>,
    /// Series Description, as [`Self::modality`].
    pub series_description: Option<String>,
    /// Series Number, as [`Self::modality`].
    pub series_number: Option<i32>,
    /// Size of the Part 10 file in bytes.
    pub size: u64,
    /// BLAKE3 of the data set.
    pub digest: Vec<u8>,
    /// The Part 10 file.
    pub path: PathBuf,
}

impl Store {
    /// Studies that may fit, the newest first, a page of at most `limit`; `after` is the place of the last one seen.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn held_studies(
        &self,
        filter: &HeldFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Vec<HeldStudy>, StoreError> {
        self.index().held_studies(filter, after, limit.clamp(1, LONGEST_PAGE)).await
    }

    /// Instances of a study, of one of its series, or one of them, series by series in the order of their arrival. A result
    /// of ours that came back is held once, as it was made.
    ///
    /// # Errors
    /// As [`Self::held_studies`]. A study that is not there holds nothing.
    pub async fn held_instances(
        &self,
        study: &Uid,
        series: Option<&Uid>,
        instance: Option<&Uid>,
    ) -> Result<Vec<HeldInstance>, StoreError> {
        self.index().held_instances(self.blobs(), study, series, instance).await
    }

    /// How many instances of a study, or of one of its series, were held and are no longer: retention gave their files up.
    ///
    /// # Errors
    /// As [`Self::held_studies`].
    pub async fn given_up_instances(&self, study: &Uid, series: Option<&Uid>) -> Result<u64, StoreError> {
        self.index().given_up_instances(study, series).await
    }

    /// Study and series of an instance; `None` if it is not held.
    ///
    /// # Errors
    /// As [`Self::held_studies`].
    pub async fn holder_of(&self, instance: &Uid) -> Result<Option<(Uid, Uid)>, StoreError> {
        self.index().holder_of(instance).await
    }
}
