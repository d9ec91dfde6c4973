//! Data sets of the Storage Commitment Push Model (PS3.4 J.3.2 and J.3.3): the Action Information of a request is read
//! within named bounds, the Event Information of a report is written.

use ichor_core::Uid;
use thiserror::Error;

use crate::uids;

/// Action Type ID of a commitment request (PS3.4 table J.3-1).
pub const REQUEST_ACTION: u16 = 1;
/// Event Type ID of a report in which everything is committed (PS3.4 table J.3-2).
pub const ALL_COMMITTED_EVENT: u16 = 1;
/// Event Type ID of a report with failures.
pub const FAILURES_EVENT: u16 = 2;

/// Deepest nesting of sequences that is read; the request itself needs one level.
const MAX_DEPTH: usize = 8;
/// A length that is not known beforehand (PS3.5 7.1.1).
const UNDEFINED: u32 = u32::MAX;

const TRANSACTION: (u16, u16) = (0x0008, 0x1195);
const FAILED_SEQUENCE: (u16, u16) = (0x0008, 0x1198);
const REFERENCED_SEQUENCE: (u16, u16) = (0x0008, 0x1199);
const REFERENCED_CLASS: (u16, u16) = (0x0008, 0x1150);
const REFERENCED_INSTANCE: (u16, u16) = (0x0008, 0x1155);
const FAILURE_REASON: (u16, u16) = (0x0008, 0x1197);
const ITEM: (u16, u16) = (0xFFFE, 0xE000);
const ITEM_END: (u16, u16) = (0xFFFE, 0xE00D);
const SEQUENCE_END: (u16, u16) = (0xFFFE, 0xE0DD);

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
        let mut reader = Reader { bytes, at: 0, explicit: transfer_syntax.as_str() != uids::IMPLICIT_VR_LITTLE_ENDIAN };
        let mut transaction = None;
        let mut references = None;
        while reader.at < bytes.len() {
            let header = reader.header()?;
            match header.tag {
                TRANSACTION => once(&mut transaction, reader.uid(&header, "Transaction UID")?, "Transaction UID")?,
                REFERENCED_SEQUENCE => {
                    once(&mut references, reader.references(&header, max_references)?, "Referenced SOP Sequence")?;
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
        writer.bytes
    }
}

impl CommitmentReport {
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
        writer.bytes
    }
}

fn once<T>(slot: &mut Option<T>, value: T, what: &'static str) -> Result<(), CommitmentError> {
    if slot.replace(value).is_some() { Err(CommitmentError::Twice(what)) } else { Ok(()) }
}

struct Header {
    tag: (u16, u16),
    vr: Option<[u8; 2]>,
    length: u32,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    explicit: bool,
}

impl<'a> Reader<'a> {
    fn malformed<T>(&self) -> Result<T, CommitmentError> {
        Err(CommitmentError::Malformed(self.at))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], CommitmentError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let Some((taken, _)) = rest.split_at_checked(count) else { return self.malformed() };
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], CommitmentError> {
        let at = self.at;
        <[u8; N]>::try_from(self.take(N)?).map_err(|_| CommitmentError::Malformed(at))
    }

    fn u16(&mut self) -> Result<u16, CommitmentError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, CommitmentError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Tag, VR and length (PS3.5 7.1.2 and 7.1.3). Items and their ends have no VR in either encoding.
    fn header(&mut self) -> Result<Header, CommitmentError> {
        let tag = (self.u16()?, self.u16()?);
        if tag.0 == 0xFFFE || !self.explicit {
            return Ok(Header { tag, vr: None, length: self.u32()? });
        }
        let vr: [u8; 2] = self.array()?;
        let length = match &vr {
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV" => {
                self.take(2)?;
                self.u32()?
            }
            _ if vr.iter().all(u8::is_ascii_uppercase) => u32::from(self.u16()?),
            _ => return self.malformed(),
        };
        Ok(Header { tag, vr: Some(vr), length })
    }

    fn value(&mut self, header: &Header) -> Result<&'a [u8], CommitmentError> {
        match usize::try_from(header.length) {
            Ok(length) if header.length != UNDEFINED => self.take(length),
            _ => self.malformed(),
        }
    }

    fn uid(&mut self, header: &Header, what: &'static str) -> Result<Uid, CommitmentError> {
        if header.vr.is_some_and(|vr| &vr != b"UI") {
            return Err(CommitmentError::NoUid(what));
        }
        let value = self.value(header)?;
        let text = std::str::from_utf8(value).map_err(|_| CommitmentError::NoUid(what))?;
        if text.trim_end_matches(['\0', ' ']).is_empty() {
            return Err(CommitmentError::Missing(what));
        }
        Uid::parse(text).map_err(|_| CommitmentError::NoUid(what))
    }

    /// Where a value ends: `None` for one that ends with a delimiter.
    fn end(&self, length: u32, outer: usize) -> Result<Option<usize>, CommitmentError> {
        if length == UNDEFINED {
            return Ok(None);
        }
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        match end {
            Some(end) if end <= outer => Ok(Some(end)),
            _ => self.malformed(),
        }
    }

    /// Visits the items of a sequence: `each` gets the reader and the end of the item.
    fn items(
        &mut self,
        length: u32,
        mut each: impl FnMut(&mut Self, Option<usize>) -> Result<(), CommitmentError>,
    ) -> Result<(), CommitmentError> {
        let end = self.end(length, self.bytes.len())?;
        loop {
            match end {
                Some(end) if self.at == end => return Ok(()),
                Some(end) if self.at > end => return self.malformed(),
                _ => {}
            }
            let item = self.header()?;
            match item.tag {
                ITEM => {
                    let item_end = self.end(item.length, end.unwrap_or(self.bytes.len()))?;
                    each(self, item_end)?;
                }
                SEQUENCE_END if end.is_none() && item.length == 0 => return Ok(()),
                _ => return self.malformed(),
            }
        }
    }

    /// The next element of an item, or `None` at its end.
    fn next_in_item(&mut self, end: Option<usize>) -> Result<Option<Header>, CommitmentError> {
        match end {
            Some(end) if self.at == end => return Ok(None),
            Some(end) if self.at > end => return self.malformed(),
            _ => {}
        }
        let header = self.header()?;
        if header.tag == ITEM_END && end.is_none() && header.length == 0 {
            return Ok(None);
        }
        if header.tag.0 == 0xFFFE { self.malformed() } else { Ok(Some(header)) }
    }

    fn references(&mut self, header: &Header, most: usize) -> Result<Vec<Reference>, CommitmentError> {
        if header.vr.is_some_and(|vr| &vr != b"SQ") {
            return self.malformed();
        }
        let mut references = Vec::new();
        self.items(header.length, |reader, end| {
            if references.len() >= most {
                return Err(CommitmentError::TooMany(most));
            }
            let (mut class, mut instance) = (None, None);
            while let Some(header) = reader.next_in_item(end)? {
                let (slot, what) = match header.tag {
                    REFERENCED_CLASS => (&mut class, "Referenced SOP Class UID"),
                    REFERENCED_INSTANCE => (&mut instance, "Referenced SOP Instance UID"),
                    _ => {
                        reader.skip(&header, 1)?;
                        continue;
                    }
                };
                once(slot, reader.uid(&header, what)?, what)?;
            }
            references.push(Reference {
                sop_class: class.ok_or(CommitmentError::Missing("Referenced SOP Class UID"))?,
                sop_instance: instance.ok_or(CommitmentError::Missing("Referenced SOP Instance UID"))?,
            });
            Ok(())
        })?;
        Ok(references)
    }

    fn skip(&mut self, header: &Header, depth: usize) -> Result<(), CommitmentError> {
        if header.tag.0 == 0xFFFE {
            return self.malformed();
        }
        if header.length != UNDEFINED {
            return self.value(header).map(|_| ());
        }
        if depth >= MAX_DEPTH {
            return Err(CommitmentError::TooDeep);
        }
        // Unknown VR of undefined length is a sequence in Implicit VR (PS3.5 6.2.2 note 2).
        let explicit = self.explicit;
        self.explicit &= header.vr != Some(*b"UN");
        let skipped = self.items(UNDEFINED, |reader, end| {
            while let Some(inner) = reader.next_in_item(end)? {
                reader.skip(&inner, depth + 1)?;
            }
            Ok(())
        });
        self.explicit = explicit;
        skipped
    }
}

struct Writer {
    bytes: Vec<u8>,
    explicit: bool,
}

impl Writer {
    fn new(transfer_syntax: &Uid) -> Self {
        Self { bytes: Vec::new(), explicit: transfer_syntax.as_str() != uids::IMPLICIT_VR_LITTLE_ENDIAN }
    }

    fn tag(&mut self, (group, element): (u16, u16)) {
        self.bytes.extend_from_slice(&group.to_le_bytes());
        self.bytes.extend_from_slice(&element.to_le_bytes());
    }

    /// A short element; values here have at most 64 bytes.
    fn element(&mut self, tag: (u16, u16), vr: [u8; 2], value: &[u8]) {
        self.tag(tag);
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        if self.explicit {
            self.bytes.extend_from_slice(&vr);
            self.bytes.extend_from_slice(&length.to_le_bytes());
        } else {
            self.bytes.extend_from_slice(&u32::from(length).to_le_bytes());
        }
        self.bytes.extend_from_slice(value);
    }

    fn uid(&mut self, tag: (u16, u16), uid: &Uid) {
        let mut value = uid.as_str().as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(0);
        }
        self.element(tag, *b"UI", &value);
    }

    /// A sequence and items of undefined length, which no count of bytes can overflow.
    fn sequence<'a>(&mut self, tag: (u16, u16), items: impl Iterator<Item = (&'a Reference, Option<u16>)>) {
        self.tag(tag);
        if self.explicit {
            self.bytes.extend_from_slice(b"SQ\0\0");
        }
        self.bytes.extend_from_slice(&UNDEFINED.to_le_bytes());
        for (reference, reason) in items {
            self.tag(ITEM);
            self.bytes.extend_from_slice(&UNDEFINED.to_le_bytes());
            self.uid(REFERENCED_CLASS, &reference.sop_class);
            self.uid(REFERENCED_INSTANCE, &reference.sop_instance);
            if let Some(reason) = reason {
                self.element(FAILURE_REASON, *b"US", &reason.to_le_bytes());
            }
            self.delimiter(ITEM_END);
        }
        self.delimiter(SEQUENCE_END);
    }

    fn delimiter(&mut self, tag: (u16, u16)) {
        self.tag(tag);
        self.bytes.extend_from_slice(&[0; 4]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for syntax in syntaxes() {
                let _ = CommitmentRequest::read(&bytes, &syntax, 100);
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
