//! Walks a received data set to its last byte before anything else believes it.
//!
//! The walk follows tags, value representations and lengths (PS3.5 chapter 7) with seeks instead of reads: it holds
//! no value, allocates nothing from a declared length, and knows at each step how many bytes are left. A data set
//! that ends in the middle of an element, nests too deep or holds too many elements is found here, so that the
//! parser behind it only ever sees complete ones.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use ichor_core::Uid;
use thiserror::Error;

/// Caps on the shape of one data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetLimits {
    /// Deepest nesting of sequences.
    pub nesting: u32,
    /// Most elements and items, all levels together.
    pub elements: u64,
    /// Most bytes that a deflated data set may inflate to.
    pub inflated_bytes: u64,
}

impl Default for DatasetLimits {
    fn default() -> Self {
        Self { nesting: 32, elements: 2_000_000, inflated_bytes: 4 << 30 }
    }
}

/// Why a data set is not complete, with the byte at which it was found, counted from the data set's start.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// The bytes end inside an element.
    #[error(
        "data set ends at byte {at} inside ({group:04X},{element:04X}), which wants {wanted} more bytes and has {left}"
    )]
    Truncated {
        /// Offset of the value or header.
        at: u64,
        /// Group of the element.
        group: u16,
        /// Element number.
        element: u16,
        /// Bytes that it declares.
        wanted: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// The bytes end in the middle of an element's header.
    #[error("data set ends at byte {at} in the middle of an element header")]
    TruncatedHeader {
        /// Offset of the header.
        at: u64,
    },
    /// No value representation that the standard knows.
    #[error("byte {at}: ({group:04X},{element:04X}) has the value representation {vr:?}")]
    ValueRepresentation {
        /// Offset of the header.
        at: u64,
        /// Group.
        group: u16,
        /// Element number.
        element: u16,
        /// The two bytes.
        vr: String,
    },
    /// An item or delimiter where none may be, or something else where one must be.
    #[error("byte {at}: ({group:04X},{element:04X}) is out of place")]
    OutOfPlace {
        /// Offset of the header.
        at: u64,
        /// Group.
        group: u16,
        /// Element number.
        element: u16,
    },
    /// Sequences nested too deep.
    #[error("sequences nest deeper than {0}")]
    Nesting(u32),
    /// Too many elements.
    #[error("more than {0} elements")]
    Elements(u64),
    /// A deflated data set that inflates beyond the cap, or not at all.
    #[error("deflated data set: {0}")]
    Deflate(String),
    /// No element at all.
    #[error("empty data set")]
    Empty,
    /// The file could not be read.
    #[error("cannot read the received data set: {0}")]
    Io(#[from] io::Error),
}

/// What the walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatasetShape {
    /// Elements and items, all levels together.
    pub elements: u64,
    /// Whether top-level Pixel Data, Float Pixel Data or Double Float Pixel Data is there.
    pub has_pixel_data: bool,
}

/// How the data set is encoded, as far as walking it is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    ImplicitLittle,
    ExplicitLittle,
    ExplicitBig,
}

const UNDEFINED: u32 = 0xFFFF_FFFF;
const ITEM_GROUP: u16 = 0xFFFE;
const ITEM: u16 = 0xE000;
const ITEM_END: u16 = 0xE00D;
const SEQUENCE_END: u16 = 0xE0DD;

/// Walks the data set that starts at `offset` of a file.
///
/// # Errors
/// [`DatasetError`] says where it stops being one.
pub fn walk_file(
    path: &Path,
    offset: u64,
    transfer_syntax: &Uid,
    limits: DatasetLimits,
) -> Result<DatasetShape, DatasetError> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len().saturating_sub(offset);
    file.seek(SeekFrom::Start(offset))?;
    match transfer_syntax.as_str() {
        "1.2.840.10008.1.2" => walk(BufReader::new(file), length, Encoding::ImplicitLittle, limits),
        "1.2.840.10008.1.2.2" => walk(BufReader::new(file), length, Encoding::ExplicitBig, limits),
        "1.2.840.10008.1.2.1.99" => walk_deflated(file, limits),
        _ => walk(BufReader::new(file), length, Encoding::ExplicitLittle, limits),
    }
}

/// Inflates into a temporary file, at most the cap, and walks that.
fn walk_deflated(file: File, limits: DatasetLimits) -> Result<DatasetShape, DatasetError> {
    let mut inflated = tempfile::tempfile()?;
    let mut source = flate2::read::DeflateDecoder::new(BufReader::new(file)).take(limits.inflated_bytes + 1);
    let length = io::copy(&mut source, &mut inflated).map_err(|e| DatasetError::Deflate(e.to_string()))?;
    if length > limits.inflated_bytes {
        return Err(DatasetError::Deflate(format!("inflates to more than {} bytes", limits.inflated_bytes)));
    }
    inflated.seek(SeekFrom::Start(0))?;
    walk(BufReader::new(inflated), length, Encoding::ExplicitLittle, limits)
}

fn walk<R: Read + Seek>(
    source: R,
    length: u64,
    encoding: Encoding,
    limits: DatasetLimits,
) -> Result<DatasetShape, DatasetError> {
    let mut walker = Walker { source: Counted { inner: source, at: 0 }, encoding, limits, elements: 0, pixels: false };
    if length == 0 {
        return Err(DatasetError::Empty);
    }
    walker.elements_until(length, 0, None)?;
    Ok(DatasetShape { elements: walker.elements, has_pixel_data: walker.pixels })
}

/// A reader that knows where it is.
struct Counted<R> {
    inner: R,
    at: u64,
}

impl<R: Read + Seek> Counted<R> {
    fn read<const N: usize>(&mut self) -> Result<[u8; N], DatasetError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }
}

/// One element's header.
struct Header {
    at: u64,
    group: u16,
    element: u16,
    vr: [u8; 2],
    length: u32,
}

impl Header {
    fn out_of_place(&self) -> DatasetError {
        DatasetError::OutOfPlace { at: self.at, group: self.group, element: self.element }
    }
}

struct Walker<R> {
    source: Counted<R>,
    encoding: Encoding,
    limits: DatasetLimits,
    elements: u64,
    pixels: bool,
}

impl<R: Read + Seek> Walker<R> {
    /// Walks elements until `end`, or until the delimiter `stop` (an element number of group FFFE).
    fn elements_until(&mut self, end: u64, depth: u32, stop: Option<u16>) -> Result<(), DatasetError> {
        if depth > self.limits.nesting {
            return Err(DatasetError::Nesting(self.limits.nesting));
        }
        while self.source.at < end {
            let header = self.header(end)?;
            if header.group == ITEM_GROUP {
                if stop == Some(header.element) {
                    return Ok(());
                }
                return Err(header.out_of_place());
            }
            self.value(&header, end, depth)?;
        }
        match stop {
            None => Ok(()),
            Some(_) => Err(DatasetError::TruncatedHeader { at: self.source.at }),
        }
    }

    fn value(&mut self, header: &Header, end: u64, depth: u32) -> Result<(), DatasetError> {
        if depth == 0 && header.group == 0x7FE0 && matches!(header.element, 0x0008..=0x0010) {
            self.pixels = true;
        }
        let is_sequence = &header.vr == b"SQ" || (header.length == UNDEFINED && self.is_implicit(header));
        if is_sequence {
            return self.sequence(header, end, depth);
        }
        if header.length != UNDEFINED {
            return self.skip(header, end);
        }
        match &header.vr {
            // Encapsulated pixel data: items that hold bytes (PS3.5 A.4).
            b"OB" | b"OW" => self.fragments(end),
            // An unknown sequence in Implicit VR Little Endian (PS3.5 6.2.2, note 2).
            b"UN" => {
                let outer = std::mem::replace(&mut self.encoding, Encoding::ImplicitLittle);
                let walked = self.sequence(header, end, depth);
                self.encoding = outer;
                walked
            }
            _ => Err(header.out_of_place()),
        }
    }

    fn is_implicit(&self, header: &Header) -> bool {
        self.encoding == Encoding::ImplicitLittle && !(header.group == 0x7FE0 && header.element == 0x0010)
    }

    fn sequence(&mut self, header: &Header, end: u64, depth: u32) -> Result<(), DatasetError> {
        let end = self.end_of(header, end)?;
        let delimited = header.length == UNDEFINED;
        while self.source.at < end {
            let item = self.header(end)?;
            match (item.group, item.element) {
                (ITEM_GROUP, SEQUENCE_END) if delimited => return Ok(()),
                (ITEM_GROUP, ITEM) => {
                    let item_end = self.end_of(&item, end)?;
                    let stop = (item.length == UNDEFINED).then_some(ITEM_END);
                    self.elements_until(item_end, depth + 1, stop)?;
                }
                _ => return Err(item.out_of_place()),
            }
        }
        if delimited { Err(DatasetError::TruncatedHeader { at: self.source.at }) } else { Ok(()) }
    }

    fn fragments(&mut self, end: u64) -> Result<(), DatasetError> {
        loop {
            let item = self.header(end)?;
            match (item.group, item.element) {
                (ITEM_GROUP, SEQUENCE_END) => return Ok(()),
                (ITEM_GROUP, ITEM) if item.length != UNDEFINED => self.skip(&item, end)?,
                _ => return Err(item.out_of_place()),
            }
        }
    }

    /// Where the value ends: by its length, or with the surrounding one. A length beyond the end is an error.
    fn end_of(&self, header: &Header, end: u64) -> Result<u64, DatasetError> {
        if header.length == UNDEFINED {
            return Ok(end);
        }
        let (wanted, left) = (u64::from(header.length), end - self.source.at);
        if wanted > left {
            return Err(DatasetError::Truncated {
                at: self.source.at,
                group: header.group,
                element: header.element,
                wanted,
                left,
            });
        }
        Ok(self.source.at + wanted)
    }

    fn skip(&mut self, header: &Header, end: u64) -> Result<(), DatasetError> {
        let target = self.end_of(header, end)?;
        let distance = i64::from(header.length);
        self.source.inner.seek_relative(distance)?;
        self.source.at = target;
        Ok(())
    }

    fn header(&mut self, end: u64) -> Result<Header, DatasetError> {
        let at = self.source.at;
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(DatasetError::Elements(self.limits.elements));
        }
        let need = |bytes: u64| if end - at < bytes { Err(DatasetError::TruncatedHeader { at }) } else { Ok(()) };
        need(8)?;
        let tag: [u8; 4] = self.source.read()?;
        let (group, element) = (self.u16([tag[0], tag[1]]), self.u16([tag[2], tag[3]]));
        let rest: [u8; 4] = self.source.read()?;
        let implicit = self.encoding == Encoding::ImplicitLittle || group == ITEM_GROUP;
        if implicit {
            // Pixel Data of undefined length is encapsulated also where no VR says so.
            return Ok(Header { at, group, element, vr: *b"OW", length: self.u32(rest) });
        }
        let vr = [rest[0], rest[1]];
        let length = match &vr {
            b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV" => {
                need(12)?;
                let long = self.source.read()?;
                self.u32(long)
            }
            b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FD" | b"FL" | b"IS" | b"LO" | b"LT" | b"PN"
            | b"SH" | b"SL" | b"SS" | b"ST" | b"TM" | b"UI" | b"UL" | b"US" => u32::from(self.u16([rest[2], rest[3]])),
            _ => {
                let vr = String::from_utf8_lossy(&vr).into_owned();
                return Err(DatasetError::ValueRepresentation { at, group, element, vr });
            }
        };
        Ok(Header { at, group, element, vr, length })
    }

    fn u16(&self, bytes: [u8; 2]) -> u16 {
        if self.encoding == Encoding::ExplicitBig { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(&self, bytes: [u8; 4]) -> u32 {
        if self.encoding == Encoding::ExplicitBig { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn explicit(bytes: &[u8]) -> Result<DatasetShape, DatasetError> {
        walk(Cursor::new(bytes), bytes.len() as u64, Encoding::ExplicitLittle, DatasetLimits::default())
    }

    fn element(group: u16, number: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut bytes = [group.to_le_bytes(), number.to_le_bytes()].concat();
        bytes.extend(vr);
        if matches!(vr, b"OW" | b"OB" | b"SQ" | b"UN") {
            bytes.extend([0, 0]);
            bytes.extend((value.len() as u32).to_le_bytes());
        } else {
            bytes.extend((value.len() as u16).to_le_bytes());
        }
        bytes.extend(value);
        bytes
    }

    #[test]
    fn whole_data_set_is_walked() {
        let bytes = [element(8, 0x60, b"CS", b"CT"), element(0x7FE0, 0x10, b"OW", &[0; 32])].concat();
        assert_eq!(explicit(&bytes).unwrap(), DatasetShape { elements: 2, has_pixel_data: true });
    }

    #[test]
    fn each_cut_is_found() {
        let item = [&[0xFE, 0xFF, 0x00, 0xE0, 10, 0, 0, 0], &element(8, 0x60, b"CS", b"CT")[..]].concat();
        let bytes = [element(8, 0x1140, b"SQ", &item), element(0x7FE0, 0x10, b"OW", &[0; 32])].concat();
        let boundary = bytes.len() - 44;
        assert!(explicit(&bytes).is_ok());
        for cut in (0..bytes.len()).filter(|cut| *cut != boundary) {
            assert!(explicit(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn encapsulated_fragments_are_walked() {
        let mut bytes = vec![0xE0, 0x7F, 0x10, 0x00, b'O', b'B', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF];
        for fragment in [&[][..], &[1, 2, 3, 4]] {
            bytes.extend([0xFE, 0xFF, 0x00, 0xE0]);
            bytes.extend((fragment.len() as u32).to_le_bytes());
            bytes.extend(fragment);
        }
        assert!(explicit(&bytes).is_err(), "without the sequence delimiter");
        bytes.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        assert!(explicit(&bytes).unwrap().has_pixel_data);
    }

    #[test]
    fn nesting_is_capped_and_flat_on_the_stack() {
        let mut bytes = Vec::new();
        for _ in 0..100_000 {
            bytes.extend([0x08, 0, 0x40, 0x11, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
            bytes.extend([0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
        }
        assert!(matches!(explicit(&bytes), Err(DatasetError::Nesting(32))));
    }

    #[test]
    fn declared_lengths_are_not_believed() {
        let bytes = [0xE0, 0x7F, 0x10, 0x00, b'O', b'W', 0, 0, 0xFE, 0xFF, 0xFF, 0xFF, 0, 0];
        assert!(matches!(explicit(&bytes), Err(DatasetError::Truncated { left: 2, .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for encoding in [Encoding::ImplicitLittle, Encoding::ExplicitLittle, Encoding::ExplicitBig] {
                let _ = walk(Cursor::new(&bytes), bytes.len() as u64, encoding, DatasetLimits::default());
            }
        }
    }
}
