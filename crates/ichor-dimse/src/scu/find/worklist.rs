//! A modality's worklist (PS3.4 Annex K).

use ichor_core::{AeTitle, Uid};

use super::{Match, Queried, QueryModel, ScuError, StorageScu, attribute};
use crate::commitment::Writer;

const CHARACTER_SET: (u16, u16) = (0x0008, 0x0005);
const STATION: (u16, u16) = (0x0040, 0x0001);
const START_DATE: (u16, u16) = (0x0040, 0x0002);
const STEPS: (u16, u16) = (0x0040, 0x0100);

/// What a scheduled procedure step must have; `None` fits everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorklistKeys {
    /// Study Instance UID (optional for providers).
    pub study: Option<Uid>,
    /// Patient ID (required of providers).
    pub patient_id: Option<String>,
    /// Modality (required of providers).
    pub modality: Option<String>,
    /// Scheduled Station AE Title (required of providers).
    pub station: Option<AeTitle>,
    /// Scheduled Procedure Step Start Date, or a range of dates (required of providers).
    pub date: Option<String>,
}

impl StorageScu {
    /// Asks for scheduled procedure steps: Accession Number, Patient ID, Study Instance UID.
    ///
    /// # Errors
    /// [`ScuError::ContextNotAccepted`] leaves the association as it was; every other error ends it.
    pub async fn find_worklist(&mut self, keys: &WorklistKeys, most: usize) -> Result<Queried<Match>, ScuError> {
        let identifier = |syntax: &Uid| identifier(keys, syntax);
        Ok(self.query(QueryModel::Worklist, most, identifier).await?.map(|raw| Match::read(&raw)))
    }
}

/// The identifier of the query (PS3.4 K.6.1.2.2), elements in ascending order.
fn identifier(keys: &WorklistKeys, syntax: &Uid) -> Vec<u8> {
    let mut writer = Writer::new(syntax);
    let patient_id = keys.patient_id.as_deref().unwrap_or_default();
    if !patient_id.is_ascii() {
        writer.element(CHARACTER_SET, *b"CS", b"ISO_IR 192");
    }
    writer.element(attribute::ACCESSION_NUMBER, *b"SH", b"");
    writer.text(attribute::PATIENT_ID, *b"LO", patient_id);
    match &keys.study {
        Some(study) => writer.uid(attribute::STUDY_INSTANCE, study),
        None => writer.element(attribute::STUDY_INSTANCE, *b"UI", b""),
    }
    writer.sequence_of_one(STEPS, |step| {
        step.text(attribute::MODALITY, *b"CS", keys.modality.as_deref().unwrap_or_default());
        step.text(STATION, *b"AE", keys.station.as_ref().map_or("", AeTitle::as_str));
        step.text(START_DATE, *b"DA", keys.date.as_deref().unwrap_or_default());
    });
    writer.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::RawMatch;
    use super::*;
    use crate::uids;

    #[test]
    fn identifiers_are_read_as_they_were_written() {
        let keys = WorklistKeys {
            study: Some(Uid::parse("1.2.3").unwrap()),
            patient_id: Some("P-7".to_owned()),
            modality: Some("CT".to_owned()),
            station: Some(AeTitle::parse("CT1").unwrap()),
            date: Some("20260301-20260302".to_owned()),
        };
        for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN].map(uids::known) {
            let data = identifier(&keys, &syntax);
            assert_eq!(data.len() % 2, 0);
            let read = Match::read(&RawMatch { data: data.clone(), transfer_syntax: syntax.clone() });
            assert_eq!(read.get(attribute::PATIENT_ID), Some("P-7"));
            assert_eq!(read.get(attribute::STUDY_INSTANCE), Some("1.2.3"));
            assert_eq!(read.get(attribute::ACCESSION_NUMBER), None, "empty: it is asked for");
            assert_eq!(read.get(attribute::MODALITY), None, "on the second level");
            // What breaks off anywhere is no reason to panic.
            for cut in 0..data.len() {
                let data = data[..cut].to_vec();
                Match::read(&RawMatch { data, transfer_syntax: syntax.clone() });
            }
        }
    }
}
