//! The header of a DICOM file: preamble, prefix and file meta information (PS3.10 chapter 7). A received data set plus
//! this header is a file; a file minus this header is what C-STORE sends.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ichor_core::{AeTitle, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, Uid};
use thiserror::Error;

/// Longest header that is read, in bytes. Ordinary ones have about 350.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

const PREAMBLE: usize = 128;
const PREFIX: &[u8; 4] = b"DICM";
const META_GROUP: u16 = 0x0002;

const GROUP_LENGTH: u16 = 0x0000;
const VERSION: u16 = 0x0001;
const SOP_CLASS: u16 = 0x0002;
const SOP_INSTANCE: u16 = 0x0003;
const TRANSFER_SYNTAX: u16 = 0x0010;
const IMPLEMENTATION_CLASS: u16 = 0x0012;
const IMPLEMENTATION_VERSION: u16 = 0x0013;
const SOURCE_AE: u16 = 0x0016;

/// What a header to be written says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part10Meta {
    /// Media Storage SOP Class UID (0002,0002).
    pub sop_class: Uid,
    /// Media Storage SOP Instance UID (0002,0003).
    pub sop_instance: Uid,
    /// Transfer Syntax UID (0002,0010).
    pub transfer_syntax: Uid,
    /// Source Application Entity Title (0002,0016), where known.
    pub source_ae: Option<AeTitle>,
}

/// What a header that was read says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part10 {
    /// Media Storage SOP Class UID (0002,0002).
    pub sop_class: Uid,
    /// Media Storage SOP Instance UID (0002,0003).
    pub sop_instance: Uid,
    /// Transfer Syntax UID (0002,0010).
    pub transfer_syntax: Uid,
    /// Where the data set begins, in bytes from the start of the file.
    pub dataset_offset: u64,
}

/// Why a header could not be read.
#[derive(Debug, Error)]
pub enum Part10Error {
    /// The file could not be read.
    #[error("{path}: cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: HeaderError,
    },
}

/// Why bytes are not the header of a DICOM file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// No `DICM` behind the preamble.
    #[error("not a DICOM file: no DICM after 128 bytes")]
    NotDicom,
    /// The bytes end inside the file meta information, or it is longer than [`MAX_HEADER_BYTES`].
    #[error("file meta information ends inside the element at byte {0}")]
    Truncated(usize),
    /// An element that must be there is not, or is empty.
    #[error("file meta information lacks (0002,{0:04x})")]
    Missing(u16),
    /// A UID that is none.
    #[error("(0002,{element:04x}) of the file meta information is no UID: {reason}")]
    Uid {
        /// Element number.
        element: u16,
        /// What is wrong.
        reason: String,
    },
}

/// Encodes preamble, prefix and file meta information. The implementation named is this program: whoever writes the
/// file, not whoever made the instance.
#[must_use]
pub fn write_header(meta: &Part10Meta) -> Vec<u8> {
    let mut group = Vec::with_capacity(256);
    // OB: two reserved bytes and a long length (PS3.5 7.1.2).
    group.extend_from_slice(&META_GROUP.to_le_bytes());
    group.extend_from_slice(&VERSION.to_le_bytes());
    group.extend_from_slice(b"OB\0\0\x02\0\0\0\0\x01");
    short(&mut group, SOP_CLASS, *b"UI", meta.sop_class.as_str());
    short(&mut group, SOP_INSTANCE, *b"UI", meta.sop_instance.as_str());
    short(&mut group, TRANSFER_SYNTAX, *b"UI", meta.transfer_syntax.as_str());
    short(&mut group, IMPLEMENTATION_CLASS, *b"UI", IMPLEMENTATION_CLASS_UID);
    short(&mut group, IMPLEMENTATION_VERSION, *b"SH", IMPLEMENTATION_VERSION_NAME);
    if let Some(source) = &meta.source_ae {
        short(&mut group, SOURCE_AE, *b"AE", source.as_str());
    }
    let length = u32::try_from(group.len()).unwrap_or(u32::MAX);
    let mut bytes = vec![0; PREAMBLE];
    bytes.extend_from_slice(PREFIX);
    bytes.extend_from_slice(&META_GROUP.to_le_bytes());
    bytes.extend_from_slice(&GROUP_LENGTH.to_le_bytes());
    bytes.extend_from_slice(b"UL\x04\0");
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&group);
    bytes
}

/// Writes an element of a VR with a short length. Every value here has at most 64 bytes, by its type.
fn short(bytes: &mut Vec<u8>, element: u16, vr: [u8; 2], value: &str) {
    let pad = if &vr == b"UI" { 0 } else { b' ' };
    let length = value.len() + value.len() % 2;
    bytes.extend_from_slice(&META_GROUP.to_le_bytes());
    bytes.extend_from_slice(&element.to_le_bytes());
    bytes.extend_from_slice(&vr);
    bytes.extend_from_slice(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
    if value.len() % 2 == 1 {
        bytes.push(pad);
    }
}

/// Reads the header of a file.
///
/// # Errors
/// If the file cannot be read or does not begin with a DICOM header.
pub fn read_header(path: &Path) -> Result<Part10, Part10Error> {
    let io = |source| Part10Error::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    let mut bytes = Vec::with_capacity(MAX_HEADER_BYTES);
    file.take(MAX_HEADER_BYTES as u64).read_to_end(&mut bytes).map_err(io)?;
    decode_header(&bytes).map_err(|source| Part10Error::File { path: path.to_owned(), source })
}

/// Decodes a header from the first bytes of a file, of which there may be more than the header.
///
/// # Errors
/// [`HeaderError`]; no length in the bytes is used before it is checked against what is there.
pub fn decode_header(bytes: &[u8]) -> Result<Part10, HeaderError> {
    if bytes.get(PREAMBLE..PREAMBLE + PREFIX.len()) != Some(PREFIX) {
        return Err(HeaderError::NotDicom);
    }
    let start = PREAMBLE + PREFIX.len();
    // The group length is right in nearly every file, and only it tells the group's end from a deflated data set that
    // happens to begin like an element of group 0002. Where it does not fit the elements, these count.
    if let Some(end) = declared_end(bytes, start)
        && let Ok(header) = walk(bytes, start, Some(end))
    {
        return Ok(header);
    }
    walk(bytes, start, None)
}

/// Decodes a header of which more may still come: `Some` as soon as its group length says that it is complete and its
/// elements agree. Where they never do, [`decode_header`] decides once [`MAX_HEADER_BYTES`], or the whole file, are
/// there; both find the same header.
#[must_use]
pub fn decode_arriving_header(bytes: &[u8]) -> Option<Part10> {
    let start = PREAMBLE + PREFIX.len();
    if bytes.get(PREAMBLE..start) != Some(PREFIX) {
        return None;
    }
    let end = declared_end(bytes, start)?;
    walk(bytes, start, Some(end)).ok()
}

fn declared_end(bytes: &[u8], start: usize) -> Option<usize> {
    let first = next_element(bytes, start).ok().flatten()?;
    if first.number != GROUP_LENGTH {
        return None;
    }
    let length = u32::from_le_bytes(first.value.try_into().ok()?);
    let end = first.end.checked_add(usize::try_from(length).ok()?)?;
    (end <= bytes.len()).then_some(end)
}

/// Collects the elements up to `end`, or up to the first of another group.
fn walk(bytes: &[u8], start: usize, end: Option<usize>) -> Result<Part10, HeaderError> {
    let (mut sop_class, mut sop_instance, mut transfer_syntax) = (None, None, None);
    let mut at = start;
    while end.is_none_or(|end| at < end) {
        let Some(element) = next_element(bytes, at)? else {
            if end.is_some() {
                return Err(HeaderError::Truncated(at));
            }
            break;
        };
        match element.number {
            SOP_CLASS => sop_class = Some(uid(&element)?),
            SOP_INSTANCE => sop_instance = Some(uid(&element)?),
            TRANSFER_SYNTAX => transfer_syntax = Some(uid(&element)?),
            _ => {}
        }
        at = element.end;
    }
    if end.is_some_and(|end| at != end) {
        return Err(HeaderError::Truncated(at));
    }
    Ok(Part10 {
        sop_class: sop_class.ok_or(HeaderError::Missing(SOP_CLASS))?,
        sop_instance: sop_instance.ok_or(HeaderError::Missing(SOP_INSTANCE))?,
        transfer_syntax: transfer_syntax.ok_or(HeaderError::Missing(TRANSFER_SYNTAX))?,
        dataset_offset: at as u64,
    })
}

struct Element<'a> {
    number: u16,
    value: &'a [u8],
    end: usize,
}

/// The element of group 0002 at a position; `None` at the end of the bytes or before another group.
fn next_element(bytes: &[u8], at: usize) -> Result<Option<Element<'_>>, HeaderError> {
    let truncated = HeaderError::Truncated(at);
    let rest = bytes.get(at..).unwrap_or_default();
    let Some(([g0, g1], rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
    if u16::from_le_bytes([*g0, *g1]) != META_GROUP {
        return Ok(None);
    }
    let Some(([e0, e1, v0, v1, l0, l1], rest)) = rest.split_first_chunk::<6>() else { return Err(truncated) };
    let is_long =
        matches!(&[*v0, *v1], b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"UC" | b"UN" | b"UR" | b"UT");
    let (length, rest) = if is_long {
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Err(truncated) };
        (u32::from_le_bytes(*length), rest)
    } else {
        (u32::from(u16::from_le_bytes([*l0, *l1])), rest)
    };
    let Some((value, rest)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) else {
        return Err(truncated);
    };
    Ok(Some(Element { number: u16::from_le_bytes([*e0, *e1]), value, end: bytes.len() - rest.len() }))
}

fn uid(element: &Element<'_>) -> Result<Uid, HeaderError> {
    let invalid = |reason| HeaderError::Uid { element: element.number, reason };
    let text = std::str::from_utf8(element.value).map_err(|_| invalid("not ASCII".to_owned()))?;
    if text.trim_matches(['\0', ' ']).is_empty() {
        return Err(HeaderError::Missing(element.number));
    }
    Uid::parse(text).map_err(|error| invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn meta(instance: &str) -> Part10Meta {
        Part10Meta {
            sop_class: crate::uids::known(crate::uids::CT_IMAGE_STORAGE),
            sop_instance: Uid::parse(instance).unwrap(),
            transfer_syntax: crate::uids::known(crate::uids::EXPLICIT_VR_LITTLE_ENDIAN),
            source_ae: Some(AeTitle::parse("CT1").unwrap()),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (instance, source_ae) in [("1.2.3", None), ("1.2.34", Some(AeTitle::parse("ROUTER").unwrap()))] {
            let meta = Part10Meta { source_ae, ..meta(instance) };
            let mut bytes = write_header(&meta);
            let length = bytes.len() as u64;
            assert_eq!(length % 2, 0);
            bytes.extend_from_slice(&[0x08, 0, 0x05, 0]);
            let read = decode_header(&bytes).unwrap();
            assert_eq!(read.dataset_offset, length);
            assert_eq!((read.sop_class, read.sop_instance), (meta.sop_class, meta.sop_instance));
            assert_eq!(read.transfer_syntax, meta.transfer_syntax);
        }
    }

    #[test]
    fn a_data_set_that_begins_like_the_group() {
        let header = write_header(&meta("1.2.3"));
        let deflated = [0x02, 0x00, 0xff, 0x00, 0x13, 0x37, 0xff, 0xff];
        let read = decode_header(&[&header[..], &deflated].concat()).unwrap();
        assert_eq!(read.dataset_offset, header.len() as u64);
    }

    #[test]
    fn a_wrong_group_length_does_not_mislead() {
        let header = write_header(&meta("1.2.3"));
        for wrong in [0u32, 1, 7, 10_000, u32::MAX] {
            let mut bytes = [&header[..], &[0x08, 0, 0x05, 0, b'C', b'S', 0, 0]].concat();
            bytes[140..144].copy_from_slice(&wrong.to_le_bytes());
            assert_eq!(decode_header(&bytes).unwrap().dataset_offset, header.len() as u64, "{wrong}");
        }
    }

    #[test]
    fn no_header() {
        let header = write_header(&meta("1.2.3"));
        assert_eq!(decode_header(b""), Err(HeaderError::NotDicom));
        assert_eq!(decode_header(&[b'x'; 4000]), Err(HeaderError::NotDicom));
        assert_eq!(decode_header(&header[..132]), Err(HeaderError::Missing(SOP_CLASS)));
        assert!(matches!(decode_header(&header[..200]), Err(HeaderError::Truncated(_))));
        let mut hostile = header.clone();
        let at = hostile.windows(5).position(|w| w == b"1.2.3").unwrap();
        hostile[at..at + 5].copy_from_slice(b"../..");
        assert!(matches!(decode_header(&hostile), Err(HeaderError::Uid { element: SOP_INSTANCE, .. })));
        let missing = read_header(Path::new("no such file")).unwrap_err();
        assert_eq!(missing.to_string(), "no such file: cannot be read");
    }

    #[test]
    fn an_arriving_header_is_found_at_its_last_byte() {
        let header = write_header(&meta("1.2.3"));
        let file = [&header[..], &[0x08, 0, 0x05, 0, b'C', b'S', 0, 0]].concat();
        for length in 0..=file.len() {
            let found = decode_arriving_header(&file[..length]);
            assert_eq!(found.is_some(), length >= header.len(), "{length} bytes");
            assert!(found.is_none_or(|found| found.dataset_offset == header.len() as u64));
        }
        let mut wrong = file.clone();
        wrong[140..144].copy_from_slice(&7u32.to_le_bytes());
        assert_eq!(decode_arriving_header(&wrong), None);
        assert_eq!(decode_arriving_header(&[0; 4000]), None);
    }

    proptest! {
        #[test]
        fn arriving_headers_are_decoded_alike(at in 132usize..350, byte in any::<u8>(), behind in 0usize..40) {
            let mut file = write_header(&meta("1.2.3"));
            let length = file.len();
            file[at % length] = byte;
            file.extend(std::iter::repeat_n(byte, behind));
            for length in 0..=file.len() {
                if let Some(found) = decode_arriving_header(&file[..length]) {
                    prop_assert_eq!(Ok(found), decode_header(&file));
                    break;
                }
            }
        }

        #[test]
        fn damaged_headers_never_panic(at in 132usize..350, byte in any::<u8>(), cut in 0usize..400) {
            let mut bytes = write_header(&meta("1.2.3"));
            let length = bytes.len();
            bytes[at % length] = byte;
            bytes.truncate(length - cut % length);
            if let Ok(read) = decode_header(&bytes) {
                prop_assert!(read.dataset_offset <= bytes.len() as u64);
            }
        }

        #[test]
        fn noise_behind_the_prefix_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_header(&[&[0; 128][..], b"DICM", &noise].concat());
        }
    }
}
