//! A query for single instances (C-FIND of the Study Root model at the IMAGE level, PS3.4 C.4.1): are they there?

use ichor_core::Uid;

use super::{Queried, QueryModel, RawMatch, ScuError, StorageScu, StoreResponse};
use crate::commitment::{Reader, Writer};

/// Most matches of a query by unique keys that are read.
const MAX_MATCHES: usize = 64;

const SOP_INSTANCE: (u16, u16) = (0x0008, 0x0018);
const LEVEL: (u16, u16) = (0x0008, 0x0052);
const STUDY_INSTANCE: (u16, u16) = (0x0020, 0x000D);
const SERIES_INSTANCE: (u16, u16) = (0x0020, 0x000E);

/// The unique keys of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceKey {
    /// Study Instance UID.
    pub study: Uid,
    /// Series Instance UID.
    pub series: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
}

/// What a query came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A match names the instance.
    Yes,
    /// The peer has answered, and no match names it.
    No,
    /// The peer did not answer the query.
    Refused(StoreResponse),
}

impl StorageScu {
    /// Asks whether the peer finds an instance.
    ///
    /// # Errors
    /// [`ScuError::ContextNotAccepted`] leaves the association as it was; every other error ends it.
    pub async fn find(&mut self, key: &InstanceKey) -> Result<Found, ScuError> {
        let answered = self.query(QueryModel::StudyRoot, MAX_MATCHES, |syntax| identifier(key, syntax)).await?;
        Ok(match answered {
            Queried::Matches(matches) => {
                let is_it = |found: &RawMatch| names(&found.data, &found.transfer_syntax, &key.sop_instance);
                if matches.iter().any(is_it) { Found::Yes } else { Found::No }
            }
            Queried::Refused(response) => Found::Refused(response),
        })
    }
}

/// The identifier of the query (PS3.4 C.4.1.1.3), elements in ascending order.
fn identifier(key: &InstanceKey, transfer_syntax: &Uid) -> Vec<u8> {
    let mut writer = Writer::new(transfer_syntax);
    writer.uid(SOP_INSTANCE, &key.sop_instance);
    writer.element(LEVEL, *b"CS", b"IMAGE ");
    writer.uid(STUDY_INSTANCE, &key.study);
    writer.uid(SERIES_INSTANCE, &key.series);
    writer.into_bytes()
}

/// Whether a match is about this instance; one that cannot be read is not.
fn names(data: &[u8], transfer_syntax: &Uid, wanted: &Uid) -> bool {
    let mut reader = Reader::new(data, transfer_syntax);
    while let Ok(Some(header)) = reader.next_element() {
        if header.tag == SOP_INSTANCE {
            return reader.uid(&header, "SOP Instance UID").is_ok_and(|found| found == *wanted);
        }
        if reader.skip(&header, 0).is_err() {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uids;

    #[test]
    fn only_a_match_that_names_the_instance_is_one() {
        let uid = |text: &str| Uid::parse(text).unwrap();
        let key = InstanceKey { study: uid("1.2"), series: uid("1.2.3"), sop_instance: uid("1.2.3.4") };
        for syntax in [uids::IMPLICIT_VR_LITTLE_ENDIAN, uids::EXPLICIT_VR_LITTLE_ENDIAN].map(uid) {
            let data = identifier(&key, &syntax);
            assert!(names(&data, &syntax, &key.sop_instance));
            assert!(!names(&data, &syntax, &uid("1.2.3.40")));
            assert!(!names(&data[16..], &syntax, &key.sop_instance), "without its SOP Instance UID");
            for cut in 0..data.len() {
                names(&data[..cut], &syntax, &key.sop_instance);
            }
        }
    }
}
