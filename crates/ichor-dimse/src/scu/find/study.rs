//! A study and its series, with their numbers of instances (PS3.4 C.3.4, C.6.2.1).

use ichor_core::Uid;

use super::{Match, Queried, QueryModel, ScuError, StorageScu, attribute};
use crate::commitment::Writer;

const LEVEL: (u16, u16) = (0x0008, 0x0052);

impl StorageScu {
    /// Asks for a study at the STUDY level: Accession Number, Patient ID, Number of Study Related Instances.
    ///
    /// # Errors
    /// [`ScuError::ContextNotAccepted`] leaves the association as it was; every other error ends it.
    pub async fn find_study(&mut self, study: &Uid, most: usize) -> Result<Queried<Match>, ScuError> {
        let identifier = |syntax: &Uid| {
            let mut writer = Writer::new(syntax);
            writer.element(attribute::ACCESSION_NUMBER, *b"SH", b"");
            writer.element(LEVEL, *b"CS", b"STUDY ");
            writer.element(attribute::PATIENT_ID, *b"LO", b"");
            writer.uid(attribute::STUDY_INSTANCE, study);
            writer.element(attribute::STUDY_INSTANCES, *b"IS", b"");
            writer.into_bytes()
        };
        Ok(self.query(QueryModel::StudyRoot, most, identifier).await?.map(|raw| Match::read(&raw)))
    }

    /// Asks for the series of a study: Modality, Number of Series Related Instances.
    ///
    /// # Errors
    /// As [`Self::find_study`].
    pub async fn find_series(&mut self, study: &Uid, most: usize) -> Result<Queried<Match>, ScuError> {
        let identifier = |syntax: &Uid| {
            let mut writer = Writer::new(syntax);
            writer.element(LEVEL, *b"CS", b"SERIES");
            writer.element(attribute::MODALITY, *b"CS", b"");
            writer.uid(attribute::STUDY_INSTANCE, study);
            writer.element(attribute::SERIES_INSTANCE, *b"UI", b"");
            writer.element(attribute::SERIES_INSTANCES, *b"IS", b"");
            writer.into_bytes()
        };
        Ok(self.query(QueryModel::StudyRoot, most, identifier).await?.map(|raw| Match::read(&raw)))
    }
}
