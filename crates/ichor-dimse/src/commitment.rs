//! Data sets of the Storage Commitment Push Model (PS3.4 J.3.2 and J.3.3): the Action Information of a request is read
//! within named bounds, the Event Information of a report is written.

mod data_set;

use ichor_core::Uid;
use thiserror::Error;

use data_set::once;
pub(crate) use data_set::{Reader, Writer};

/// Action Type ID of a commitment request (PS3.4 table J.3-1).
pub const REQUEST_ACTION: u16 = 1;
/// Event Type ID of a report in which everything is committed (PS3.4 table J.3-2).
pub const ALL_COMMITTED_EVENT: u16 = 1;
/// Event Type ID of a report with failures.
pub const FAILURES_EVENT: u16 = 2;

/// What a failure without a Failure Reason counts as: processing failure (PS3.3 C.14.1.1).
const NO_REASON: u16 = 0x0110;

/// Deepest nesting of sequences that is read; the request itself needs one level.
const MAX_DEPTH: usize = 8;

const TRANSACTION: (u16, u16) = (0x0008, 0x1195);
const FAILED_SEQUENCE: (u16, u16) = (0x0008, 0x1198);
const REFERENCED_SEQUENCE: (u16, u16) = (0x0008, 0x1199);

/// An instance that a peer asks about, by class and identifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Referenced SOP Class UID.
    pub sop_class: Uid,
    /// Referenced SOP Instance UID.
    pub sop_instance: Uid,
}

/// What a peer asks for: is each of these kept?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentRequest {
    /// Transaction UID, which the report repeats.
    pub transaction: Uid,
    /// Instances, in the peer's order; at least one, each once.
    pub references: Vec<Reference>,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitmentReport {
    /// Transaction UID of the request.
    pub transaction: Uid,
    /// Instances that are kept.
    pub committed: Vec<Reference>,
    /// Instances that are not, each with its Failure Reason (0008,1197; PS3.3 C.14.1.1).
    pub failed: Vec<(Reference, u16)>,
}

/// Why Action Information is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommitmentError {
    /// The bytes do not hold together.
    #[error("data set is malformed at byte {0}")]
    Malformed(usize),
    /// Sequences in sequences beyond any use.
    #[error("data set nests deeper than {MAX_DEPTH} sequences")]
    TooDeep,
    /// An attribute is absent or empty.
    #[error("data set lacks {0}")]
    Missing(&'static str),
    /// An attribute stands twice where it may stand once.
    #[error("{0} stands twice")]
    Twice(&'static str),
    /// The value is no UID.
    #[error("{0} is no UID")]
    NoUid(&'static str),
    /// The same instance twice: the report could not tell them apart.
    #[error("an instance is referenced twice")]
    DuplicateReference,
    /// More instances than are accepted.
    #[error("more than {0} referenced instances")]
    TooMany(usize),
}

impl CommitmentRequest {
    /// Reads the Action Information (PS3.4 J.3.2.1.2), in Implicit or Explicit VR Little Endian. Attributes that are not
    /// asked for are skipped; no length is used before it is checked against what is there.
    ///
    /// # Errors
    /// [`CommitmentError`]
    pub fn read(bytes: &[u8], transfer_syntax: &Uid, max_references: usize) -> Result<Self, CommitmentError> {
        let mut reader = Reader::new(bytes, transfer_syntax);
        let mut transaction = None;
        let mut references = None;
        while let Some(header) = reader.next_element()? {
            match header.tag {
                TRANSACTION => once(&mut transaction, reader.uid(&header, "Transaction UID")?, "Transaction UID")?,
                REFERENCED_SEQUENCE => {
                    let found = reader.references(&header, max_references)?;
                    let found = found.into_iter().map(|(reference, _)| reference).collect();
                    once(&mut references, found, "Referenced SOP Sequence")?;
                }
                _ => reader.skip(&header, 0)?,
            }
        }
        let transaction = transaction.ok_or(CommitmentError::Missing("Transaction UID"))?;
        let references = references.filter(|references: &Vec<Reference>| !references.is_empty());
        let references = references.ok_or(CommitmentError::Missing("Referenced SOP Sequence"))?;
        let mut instances: Vec<&Uid> = references.iter().map(|reference| &reference.sop_instance).collect();
        instances.sort_unstable();
        if instances.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(CommitmentError::DuplicateReference);
        }
        Ok(Self { transaction, references })
    }

    /// Writes the Action Information, as a user sends it.
    #[must_use]
    pub fn write(&self, transfer_syntax: &Uid) -> Vec<u8> {
        let mut writer = Writer::new(transfer_syntax);
        writer.uid(TRANSACTION, &self.transaction);
        writer.sequence(REFERENCED_SEQUENCE, self.references.iter().map(|reference| (reference, None)));
        writer.into_bytes()
    }
}

impl CommitmentReport {
    /// Reads the Event Information (PS3.4 J.3.3.1.2), in Implicit or Explicit VR Little Endian, within the bounds of
    /// [`CommitmentRequest::read`]. A failed instance without a reason has failed all the same.
    ///
    /// # Errors
    /// [`CommitmentError`]
    pub fn read(bytes: &[u8], transfer_syntax: &Uid, max_references: usize) -> Result<Self, CommitmentError> {
        let mut reader = Reader::new(bytes, transfer_syntax);
        let (mut transaction, mut committed, mut failed) = (None, None, None);
        while let Some(header) = reader.next_element()? {
            match header.tag {
                TRANSACTION => once(&mut transaction, reader.uid(&header, "Transaction UID")?, "Transaction UID")?,
                REFERENCED_SEQUENCE => {
                    once(&mut committed, reader.references(&header, max_references)?, "Referenced SOP Sequence")?;
                }
                FAILED_SEQUENCE => {
                    once(&mut failed, reader.references(&header, max_references)?, "Failed SOP Sequence")?;
                }
                _ => reader.skip(&header, 0)?,
            }
        }
        Ok(Self {
            transaction: transaction.ok_or(CommitmentError::Missing("Transaction UID"))?,
            committed: committed.unwrap_or_default().into_iter().map(|(reference, _)| reference).collect(),
            failed: (failed.unwrap_or_default().into_iter())
                .map(|(reference, reason)| (reference, reason.unwrap_or(NO_REASON)))
                .collect(),
        })
    }

    /// Event Type ID of the report (PS3.4 table J.3-2).
    #[must_use]
    pub fn event_type(&self) -> u16 {
        if self.failed.is_empty() { ALL_COMMITTED_EVENT } else { FAILURES_EVENT }
    }

    /// Writes the Event Information (PS3.4 J.3.3.1.2), in Implicit or Explicit VR Little Endian.
    #[must_use]
    pub fn write(&self, transfer_syntax: &Uid) -> Vec<u8> {
        let mut writer = Writer::new(transfer_syntax);
        writer.uid(TRANSACTION, &self.transaction);
        if !self.failed.is_empty() {
            writer.sequence(FAILED_SEQUENCE, self.failed.iter().map(|(reference, reason)| (reference, Some(*reason))));
        }
        if !self.committed.is_empty() {
            writer.sequence(REFERENCED_SEQUENCE, self.committed.iter().map(|reference| (reference, None)));
        }
        writer.into_bytes()
    }
}

/// What a Failure Reason (0008,1197) says (PS3.3 C.14.1.1).
#[must_use]
pub const fn failure_words(reason: u16) -> &'static str {
    match reason {
        0x0110 => "processing failure",
        0x0112 => "no such object instance",
        0x0119 => "class-instance conflict",
        0x0122 => "referenced SOP class not supported",
        0x0131 => "duplicate transaction UID",
        0x0213 => "resource limitation",
        _ => "unnamed reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uids;
    use proptest::prelude::*;

    fn uid(text: &str) -> Uid {
        Uid::parse(text).unwrap()
    }

    fn request(count: usize) -> CommitmentRequest {
        let references = (0..count)
            .map(|n| Reference { sop_class: uid(uids::CT_IMAGE_STORAGE), sop_instance: uid(&format!("1.2.{n}")) })
            .collect();
        CommitmentRequest { transaction: uid("1.2.3.4"), references }
    }

    fn syntaxes() -> [Uid; 2] {
        [uid(uids::IMPLICIT_VR_LITTLE_ENDIAN), uid(uids::EXPLICIT_VR_LITTLE_ENDIAN)]
    }

    #[test]
    fn bounds_and_missing_parts() {
        for syntax in syntaxes() {
            let read =
                |request: &CommitmentRequest, most| CommitmentRequest::read(&request.write(&syntax), &syntax, most);
            assert_eq!(read(&request(5), 5), Ok(request(5)));
            assert_eq!(read(&request(6), 5), Err(CommitmentError::TooMany(5)));
            assert_eq!(read(&request(0), 5), Err(CommitmentError::Missing("Referenced SOP Sequence")));
            let mut twice = request(2);
            twice.references[1] = twice.references[0].clone();
            assert_eq!(read(&twice, 5), Err(CommitmentError::DuplicateReference));
            let whole = request(2).write(&syntax);
            // Tag, VR and length take 8 bytes in both encodings; the UID is padded to 8.
            let transaction = 16;
            let error = CommitmentRequest::read(&whole[transaction..], &syntax, 5).unwrap_err();
            assert_eq!(error, CommitmentError::Missing("Transaction UID"));
            let double = [&whole[..transaction], &whole[..]].concat();
            let error = CommitmentRequest::read(&double, &syntax, 5).unwrap_err();
            assert_eq!(error, CommitmentError::Twice("Transaction UID"));
        }
    }

    #[test]
    fn a_hundred_thousand_levels_are_refused() {
        let mut bytes = Vec::new();
        for _ in 0..100_000 {
            bytes.extend_from_slice(&[0x08, 0x00, 0x15, 0x11, 0xff, 0xff, 0xff, 0xff]);
            bytes.extend_from_slice(&[0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff]);
        }
        assert_eq!(CommitmentRequest::read(&bytes, &syntaxes()[0], 10), Err(CommitmentError::TooDeep));
    }

    #[test]
    fn the_kind_of_a_report_follows_its_failures() {
        let CommitmentRequest { transaction, references } = request(2);
        let mut report = CommitmentReport { transaction, committed: references, failed: Vec::new() };
        assert_eq!(report.event_type(), ALL_COMMITTED_EVENT);
        let lost = report.committed.remove(0);
        report.failed.push((lost, 0x0112));
        assert_eq!(report.event_type(), FAILURES_EVENT);
    }

    #[test]
    fn reports_round_trip_and_are_bounded() {
        let CommitmentRequest { transaction, mut references } = request(5);
        let failed = references.split_off(3).into_iter().zip([0x0112, 0x0110]).collect();
        let report = CommitmentReport { transaction, committed: references, failed };
        for syntax in syntaxes() {
            let bytes = report.write(&syntax);
            assert_eq!(CommitmentReport::read(&bytes, &syntax, 3), Ok(report.clone()));
            assert_eq!(CommitmentReport::read(&bytes, &syntax, 2), Err(CommitmentError::TooMany(2)));
            let nothing = CommitmentReport::read(&[], &syntax, 3).unwrap_err();
            assert_eq!(nothing, CommitmentError::Missing("Transaction UID"));
        }
    }

    #[test]
    fn a_failure_without_a_reason_is_one() {
        let [syntax, _] = syntaxes();
        let bytes = request(1).write(&syntax);
        // The Failed SOP Sequence (0008,1198) in the place of the Referenced SOP Sequence (0008,1199).
        let at = bytes.windows(4).position(|tag| tag == [0x08, 0x00, 0x99, 0x11]).unwrap();
        let mut bytes = bytes;
        bytes[at + 2] = 0x98;
        let report = CommitmentReport::read(&bytes, &syntax, 5).unwrap();
        assert_eq!((report.committed.len(), report.failed[0].1), (0, 0x0110));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for syntax in syntaxes() {
                let _ = CommitmentRequest::read(&bytes, &syntax, 100);
                let _ = CommitmentReport::read(&bytes, &syntax, 100);
            }
        }

        #[test]
        fn damaged_requests_never_panic(at in 0usize..400, flip in any::<u8>(), cut in 0usize..64, count in 1usize..6) {
            for syntax in syntaxes() {
                let mut bytes = request(count).write(&syntax);
                prop_assert_eq!(CommitmentRequest::read(&bytes, &syntax, 6), Ok(request(count)));
                let at = at % bytes.len();
                bytes[at] ^= flip;
                bytes.truncate(bytes.len() - cut.min(bytes.len()));
                if let Ok(read) = CommitmentRequest::read(&bytes, &syntax, 6) {
                    prop_assert_eq!(CommitmentRequest::read(&read.write(&syntax), &syntax, 6), Ok(read));
                }
            }
        }
    }
}
