//! Small data sets in Little Endian, Implicit or Explicit VR, read and written by hand: nothing is believed, and nothing is
//! held but the bytes.

use ichor_core::Uid;

use super::{CommitmentError, MAX_DEPTH, Reference};
use crate::uids;

/// A length that is not known beforehand (PS3.5 7.1.1).
const UNDEFINED: u32 = u32::MAX;

const REFERENCED_CLASS: (u16, u16) = (0x0008, 0x1150);
const REFERENCED_INSTANCE: (u16, u16) = (0x0008, 0x1155);
const FAILURE_REASON: (u16, u16) = (0x0008, 0x1197);
const ITEM: (u16, u16) = (0xFFFE, 0xE000);
const ITEM_END: (u16, u16) = (0xFFFE, 0xE00D);
const SEQUENCE_END: (u16, u16) = (0xFFFE, 0xE0DD);

pub(super) fn once<T>(slot: &mut Option<T>, value: T, what: &'static str) -> Result<(), CommitmentError> {
    if slot.replace(value).is_some() { Err(CommitmentError::Twice(what)) } else { Ok(()) }
}

/// Tag, VR and length of an element.
pub(crate) struct Header {
    pub(crate) tag: (u16, u16),
    vr: Option<[u8; 2]>,
    pub(crate) length: u32,
}

/// Reads a data set element by element; no length is used before it is checked against what is there.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    explicit: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], transfer_syntax: &Uid) -> Self {
        Self { bytes, at: 0, explicit: transfer_syntax.as_str() != uids::IMPLICIT_VR_LITTLE_ENDIAN }
    }

    /// The next element, or `None` at the end of the data set.
    pub(crate) fn next_element(&mut self) -> Result<Option<Header>, CommitmentError> {
        if self.at < self.bytes.len() { self.header().map(Some) } else { Ok(None) }
    }

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

    pub(crate) fn value(&mut self, header: &Header) -> Result<&'a [u8], CommitmentError> {
        match usize::try_from(header.length) {
            Ok(length) if header.length != UNDEFINED => self.take(length),
            _ => self.malformed(),
        }
    }

    pub(crate) fn uid(&mut self, header: &Header, what: &'static str) -> Result<Uid, CommitmentError> {
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

    /// References, each with its Failure Reason if it has one.
    pub(super) fn references(
        &mut self,
        header: &Header,
        most: usize,
    ) -> Result<Vec<(Reference, Option<u16>)>, CommitmentError> {
        if header.vr.is_some_and(|vr| &vr != b"SQ") {
            return self.malformed();
        }
        let mut references = Vec::new();
        self.items(header.length, |reader, end| {
            if references.len() >= most {
                return Err(CommitmentError::TooMany(most));
            }
            let (mut class, mut instance, mut reason) = (None, None, None);
            while let Some(header) = reader.next_in_item(end)? {
                let (slot, what) = match header.tag {
                    REFERENCED_CLASS => (&mut class, "Referenced SOP Class UID"),
                    REFERENCED_INSTANCE => (&mut instance, "Referenced SOP Instance UID"),
                    FAILURE_REASON => {
                        let value = reader.value(&header)?;
                        let value = <[u8; 2]>::try_from(value).map_err(|_| CommitmentError::Malformed(reader.at))?;
                        once(&mut reason, u16::from_le_bytes(value), "Failure Reason")?;
                        continue;
                    }
                    _ => {
                        reader.skip(&header, 1)?;
                        continue;
                    }
                };
                once(slot, reader.uid(&header, what)?, what)?;
            }
            let reference = Reference {
                sop_class: class.ok_or(CommitmentError::Missing("Referenced SOP Class UID"))?,
                sop_instance: instance.ok_or(CommitmentError::Missing("Referenced SOP Instance UID"))?,
            };
            references.push((reference, reason));
            Ok(())
        })?;
        Ok(references)
    }

    pub(crate) fn skip(&mut self, header: &Header, depth: usize) -> Result<(), CommitmentError> {
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

/// Writes a data set element by element.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    explicit: bool,
}

impl Writer {
    pub(crate) fn new(transfer_syntax: &Uid) -> Self {
        Self { bytes: Vec::new(), explicit: transfer_syntax.as_str() != uids::IMPLICIT_VR_LITTLE_ENDIAN }
    }

    fn tag(&mut self, (group, element): (u16, u16)) {
        self.bytes.extend_from_slice(&group.to_le_bytes());
        self.bytes.extend_from_slice(&element.to_le_bytes());
    }

    /// A short element; values here have at most 64 bytes.
    pub(crate) fn element(&mut self, tag: (u16, u16), vr: [u8; 2], value: &[u8]) {
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

    pub(crate) fn uid(&mut self, tag: (u16, u16), uid: &Uid) {
        let mut value = uid.as_str().as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(0);
        }
        self.element(tag, *b"UI", &value);
    }

    /// A short text, padded to even length.
    pub(crate) fn text(&mut self, tag: (u16, u16), vr: [u8; 2], text: &str) {
        let mut value = text.as_bytes().to_vec();
        if value.len() % 2 == 1 {
            value.push(b' ');
        }
        self.element(tag, vr, &value);
    }

    /// A sequence of one item, both of undefined length.
    pub(crate) fn sequence_of_one(&mut self, tag: (u16, u16), fill: impl FnOnce(&mut Self)) {
        self.tag(tag);
        if self.explicit {
            self.bytes.extend_from_slice(b"SQ\0\0");
        }
        self.bytes.extend_from_slice(&UNDEFINED.to_le_bytes());
        self.tag(ITEM);
        self.bytes.extend_from_slice(&UNDEFINED.to_le_bytes());
        fill(self);
        self.delimiter(ITEM_END);
        self.delimiter(SEQUENCE_END);
    }

    /// A sequence and items of undefined length, which no count of bytes can overflow.
    pub(super) fn sequence<'a>(&mut self, tag: (u16, u16), items: impl Iterator<Item = (&'a Reference, Option<u16>)>) {
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

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn delimiter(&mut self, tag: (u16, u16)) {
        self.tag(tag);
        self.bytes.extend_from_slice(&[0; 4]);
    }
}
