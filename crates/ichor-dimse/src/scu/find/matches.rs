//! What a match says: short values by their tags, and nothing else of it.

use super::RawMatch;
use crate::commitment::Reader;

/// Longest value that is kept, in bytes: what is asked for is shorter.
const LONGEST_VALUE: usize = 256;

/// Attributes that queries return (PS3.6).
pub mod attribute {
    /// Accession Number.
    pub const ACCESSION_NUMBER: (u16, u16) = (0x0008, 0x0050);
    /// Modality.
    pub const MODALITY: (u16, u16) = (0x0008, 0x0060);
    /// Patient ID.
    pub const PATIENT_ID: (u16, u16) = (0x0010, 0x0020);
    /// Study Instance UID.
    pub const STUDY_INSTANCE: (u16, u16) = (0x0020, 0x000D);
    /// Series Instance UID.
    pub const SERIES_INSTANCE: (u16, u16) = (0x0020, 0x000E);
    /// Number of Study Related Instances.
    pub const STUDY_INSTANCES: (u16, u16) = (0x0020, 0x1208);
    /// Number of Series Related Instances.
    pub const SERIES_INSTANCES: (u16, u16) = (0x0020, 0x1209);
}

/// One match of a query: its short values on the first level, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    values: Vec<((u16, u16), String)>,
}

impl Match {
    /// A value without padding; `None` if it is absent, empty or too long. What is no UTF-8 has U+FFFD in its place:
    /// whoever asks for codes and numbers sees that it is neither.
    #[must_use]
    pub fn get(&self, tag: (u16, u16)) -> Option<&str> {
        self.values.iter().find(|(found, _)| *found == tag).map(|(_, value)| value.as_str())
    }

    /// Reads as far as it can be read: a match that breaks off says what came before.
    pub(super) fn read(raw: &RawMatch) -> Self {
        let mut reader = Reader::new(&raw.data, &raw.transfer_syntax);
        let mut values = Vec::new();
        while let Ok(Some(header)) = reader.next_element() {
            let is_short = usize::try_from(header.length).is_ok_and(|length| length <= LONGEST_VALUE);
            if !is_short {
                if reader.skip(&header, 0).is_err() {
                    break;
                }
                continue;
            }
            let Ok(value) = reader.value(&header) else { break };
            let text = String::from_utf8_lossy(value);
            let text = text.trim_matches(['\0', ' ']);
            // Of an element that stands twice the first one counts, as for every reader.
            if !text.is_empty() && !values.iter().any(|(tag, _)| *tag == header.tag) {
                values.push((header.tag, text.to_owned()));
            }
        }
        Self { values }
    }
}
