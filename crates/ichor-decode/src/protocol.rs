//! What parent and child say to each other: fixed headers, lengths checked before anything is allocated.
//!
//! ```text
//! child  → parent   hello:    "ICHD" version
//! parent → child    request:  "ICHQ" number rows columns cell length, then `length` bytes of a Part 10 file
//! child  → parent   answer:   "ICHA" number kind, then
//!                             slice:    rows columns window(3 × f32) and rows × columns values
//!                             cells:    rows columns and rows × columns × cell bytes
//!                             refused:  code and text, each with its length
//! ```
//!
//! `cell` 0 asks for Hounsfield units, 1 or 2 for stored values of so many bytes. Numbers are little endian. Requests are answered one by one, in order, under the request's own number.

use std::io::{self, Read, Write};

use ichor_core::Reason;
use thiserror::Error;

/// Raised with any change of what is said.
pub const VERSION: u32 = 2;

const HELLO: [u8; 4] = *b"ICHD";
const REQUEST: [u8; 4] = *b"ICHQ";
const ANSWER: [u8; 4] = *b"ICHA";
const SLICE: u8 = 0;
const REFUSED: u8 = 1;
const PANICKED: u8 = 2;
const CELLS: u8 = 3;

/// Longest text of a refusal, in bytes; longer ones are cut.
const MOST_TEXT: usize = 1024;

/// What a child may answer as the code of a refusal: those of `ichor_ct::CtError`.
const CODES: [&str; 12] = [
    "unreadable",
    "attribute-missing",
    "attribute-invalid",
    "orientation-singular",
    "spacing-not-positive",
    "geometry-invalid",
    "modality-lut",
    "not-hounsfield",
    "pixel-data-undecodable",
    "codec-unsupported",
    "pixel-data-mismatch",
    "pixel-data-short",
];

/// One slice to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Goes back with the answer.
    pub number: u64,
    /// Rows that the parent read in the header.
    pub rows: u32,
    /// Columns that the parent read in the header.
    pub columns: u32,
    /// Bytes of a stored value, 1 or 2, if stored values are wanted; `None`: Hounsfield units are.
    pub cell: Option<u8>,
    /// Bytes of the file, which follow.
    pub length: u64,
}

/// Pixels as a child gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    /// Hounsfield units, row by row.
    pub hu: Vec<i16>,
    /// Window Center and Width.
    pub window: Option<(f32, f32)>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The slice.
    Slice(Pixels),
    /// Stored values, little endian, row by row.
    Cells(Vec<u8>),
    /// The image cannot be decoded, for this reason.
    Refused(Reason),
    /// The decoder panicked; the text is the panic's. The child ends.
    Panicked(String),
}

/// Why what was read is no message.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// The other side is gone, or too slow.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Bytes that are not what they should be.
    #[error("{0}")]
    Nonsense(String),
}

fn nonsense<T>(text: String) -> Result<T, ProtocolError> {
    Err(ProtocolError::Nonsense(text))
}

/// Writes the child's first words.
///
/// # Errors
/// If the parent is gone.
pub fn write_hello(sink: &mut impl Write) -> io::Result<()> {
    sink.write_all(&[HELLO, VERSION.to_le_bytes()].concat())
}

/// Reads the child's first words.
///
/// # Errors
/// [`ProtocolError`] if they are others, or of another version.
pub fn read_hello(source: &mut impl Read) -> Result<(), ProtocolError> {
    expect(source, HELLO)?;
    match u32::from_le_bytes(read(source)?) {
        VERSION => Ok(()),
        other => nonsense(format!("it speaks version {other} of the protocol, {VERSION} is needed")),
    }
}

/// Writes a request's header; `length` bytes have to follow.
///
/// # Errors
/// If the child is gone.
pub fn write_request(sink: &mut impl Write, request: &Request) -> io::Result<()> {
    let mut bytes = REQUEST.to_vec();
    bytes.extend(request.number.to_le_bytes());
    bytes.extend(request.rows.to_le_bytes());
    bytes.extend(request.columns.to_le_bytes());
    bytes.push(request.cell.unwrap_or(0));
    bytes.extend(request.length.to_le_bytes());
    sink.write_all(&bytes)
}

/// Reads a request's header; `None` if the parent has no more.
///
/// # Errors
/// [`ProtocolError`] if it is none.
pub fn read_request(source: &mut impl Read) -> Result<Option<Request>, ProtocolError> {
    let mut magic = [0; 4];
    let first = loop {
        match source.read(&mut magic[..1]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    source.read_exact(&mut magic[1..])?;
    if magic != REQUEST {
        return nonsense(format!("{magic:?} is no request"));
    }
    let number = u64::from_le_bytes(read(source)?);
    let (rows, columns) = (u32::from_le_bytes(read(source)?), u32::from_le_bytes(read(source)?));
    let cell = match read::<1>(source)?[0] {
        0 => None,
        bytes @ 1..=2 => Some(bytes),
        other => return nonsense(format!("values of {other} bytes are none")),
    };
    Ok(Some(Request { number, rows, columns, cell, length: u64::from_le_bytes(read(source)?) }))
}

/// Writes an answer.
///
/// # Errors
/// If the parent is gone.
pub fn write_answer(sink: &mut impl Write, request: &Request, answer: &Answer) -> io::Result<()> {
    let mut bytes = ANSWER.to_vec();
    bytes.extend(request.number.to_le_bytes());
    match answer {
        Answer::Slice(pixels) => {
            bytes.reserve_exact(32 + pixels.hu.len() * 2);
            bytes.push(SLICE);
            bytes.extend(request.rows.to_le_bytes());
            bytes.extend(request.columns.to_le_bytes());
            let (is_there, (centre, width)) = (pixels.window.is_some(), pixels.window.unwrap_or_default());
            for value in [f32::from(u8::from(is_there)), centre, width] {
                bytes.extend(value.to_le_bytes());
            }
            let start = bytes.len();
            bytes.resize(start + pixels.hu.len() * 2, 0);
            for (pair, value) in bytes[start..].chunks_exact_mut(2).zip(&pixels.hu) {
                pair.copy_from_slice(&value.to_le_bytes());
            }
        }
        Answer::Cells(cells) => {
            bytes.push(CELLS);
            bytes.extend(request.rows.to_le_bytes());
            bytes.extend(request.columns.to_le_bytes());
            bytes.extend_from_slice(cells);
        }
        Answer::Refused(reason) => {
            bytes.push(REFUSED);
            push_text(&mut bytes, reason.code.as_str());
            push_text(&mut bytes, &reason.text);
        }
        Answer::Panicked(text) => {
            bytes.push(PANICKED);
            push_text(&mut bytes, text);
        }
    }
    sink.write_all(&bytes)
}

/// Reads the answer to a request. Only an answer of the request's own number, rows and columns is one, and what is
/// allocated for it hangs on the request alone.
///
/// # Errors
/// [`ProtocolError`] if it is none.
pub fn read_answer(source: &mut impl Read, request: &Request) -> Result<Answer, ProtocolError> {
    expect(source, ANSWER)?;
    let number = u64::from_le_bytes(read(source)?);
    if number != request.number {
        return nonsense(format!("it answered request {number} instead of {}", request.number));
    }
    match read::<1>(source)?[0] {
        SLICE if request.cell.is_none() => read_pixels(source, request).map(Answer::Slice),
        CELLS if request.cell.is_some() => read_cells(source, request).map(Answer::Cells),
        REFUSED => {
            let (code, text) = (read_text(source)?, read_text(source)?);
            match CODES.into_iter().find(|known| *known == code) {
                Some(known) => Ok(Answer::Refused(Reason::new(known, text))),
                None => nonsense(format!("{code:?} is no reason")),
            }
        }
        PANICKED => read_text(source).map(Answer::Panicked),
        kind => nonsense(format!("it answered with kind {kind}")),
    }
}

fn read_cells(source: &mut impl Read, request: &Request) -> Result<Vec<u8>, ProtocolError> {
    let (rows, columns) = read_matrix(source, request)?;
    let mut bytes = vec![0; rows as usize * columns as usize * usize::from(request.cell.unwrap_or(0))];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The matrix of an answer: that of the request, or none.
fn read_matrix(source: &mut impl Read, request: &Request) -> Result<(u32, u32), ProtocolError> {
    let (rows, columns) = (u32::from_le_bytes(read(source)?), u32::from_le_bytes(read(source)?));
    if (rows, columns) != (request.rows, request.columns) {
        return nonsense(format!(
            "it gave {rows} rows × {columns} columns, the header says {} × {}",
            request.rows, request.columns
        ));
    }
    Ok((rows, columns))
}

fn read_pixels(source: &mut impl Read, request: &Request) -> Result<Pixels, ProtocolError> {
    let (rows, columns) = read_matrix(source, request)?;
    let [is_there, centre, width] = [read(source)?, read(source)?, read(source)?].map(f32::from_le_bytes);
    let window = match (is_there, centre.is_finite() && width.is_finite() && width >= 1.0) {
        (1.0, true) => Some((centre, width)),
        (0.0, _) => None,
        _ => return nonsense("it gave a window that is none".to_owned()),
    };
    let mut bytes = vec![0; rows as usize * columns as usize * 2];
    source.read_exact(&mut bytes)?;
    Ok(Pixels { hu: bytes.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect(), window })
}

fn expect(source: &mut impl Read, magic: [u8; 4]) -> Result<(), ProtocolError> {
    let found: [u8; 4] = read(source)?;
    if found == magic { Ok(()) } else { nonsense(format!("it said {:?}", String::from_utf8_lossy(&found))) }
}

fn read<const N: usize>(source: &mut impl Read) -> Result<[u8; N], ProtocolError> {
    let mut bytes = [0; N];
    source.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let cut = text.floor_char_boundary(MOST_TEXT);
    bytes.extend((cut as u16).to_le_bytes());
    bytes.extend(&text.as_bytes()[..cut]);
}

/// A text of one line; what would not print is replaced.
fn read_text(source: &mut impl Read) -> Result<String, ProtocolError> {
    let length = usize::from(u16::from_le_bytes(read(source)?));
    if length > MOST_TEXT {
        return nonsense(format!("it gave a text of {length} bytes"));
    }
    let mut bytes = vec![0; length];
    source.read_exact(&mut bytes)?;
    Ok(printable(&bytes))
}

/// Bytes from outside as one line of text.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKED: Request = Request { number: 7, rows: 2, columns: 3, cell: None, length: 10 };

    fn said(answer: &Answer) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_answer(&mut bytes, &ASKED, answer).unwrap();
        bytes
    }

    fn heard(bytes: &[u8]) -> Result<Answer, ProtocolError> {
        read_answer(&mut &*bytes, &ASKED)
    }

    fn slice() -> Answer {
        Answer::Slice(Pixels { hu: vec![i16::MIN, -1, 0, 1, 40, i16::MAX], window: Some((40.0, 80.0)) })
    }

    #[test]
    fn what_is_said_is_heard() {
        let mut bytes = Vec::new();
        write_request(&mut bytes, &ASKED).unwrap();
        assert_eq!(read_request(&mut &*bytes).unwrap(), Some(ASKED));
        assert_eq!(read_request(&mut &[][..]).unwrap(), None);
        let without = Answer::Slice(Pixels { hu: vec![0; 6], window: None });
        let refused = Answer::Refused(Reason::new("pixel-data-short", "too short"));
        for answer in [slice(), without, refused, Answer::Panicked("index out of bounds".to_owned())] {
            assert_eq!(heard(&said(&answer)).unwrap(), answer);
        }
    }

    #[test]
    fn stored_values_are_an_answer_to_their_question_only() {
        let asked = Request { cell: Some(2), ..ASKED };
        let mut bytes = Vec::new();
        write_request(&mut bytes, &asked).unwrap();
        assert_eq!(read_request(&mut &*bytes).unwrap(), Some(asked));
        bytes[20] = 3;
        assert!(matches!(read_request(&mut &*bytes), Err(ProtocolError::Nonsense(_))));
        let cells = Answer::Cells((0..12).collect());
        assert_eq!(read_answer(&mut &*said(&cells), &asked).unwrap(), cells);
        assert!(matches!(heard(&said(&cells)), Err(ProtocolError::Nonsense(_))));
        assert!(matches!(read_answer(&mut &*said(&slice()), &asked), Err(ProtocolError::Nonsense(_))));
        assert!(read_answer(&mut &*said(&Answer::Cells(vec![0; 11])), &asked).is_err(), "too short");
    }

    #[test]
    fn every_code_of_the_slice_reader_is_known() {
        use ichor_core::InvalidPlane;
        use ichor_ct::CtError;
        let text = String::new;
        for error in [
            CtError::Parse(text()),
            CtError::Missing("Rows"),
            CtError::Attribute { name: "Rows", problem: text() },
            CtError::Plane(InvalidPlane::Spacing([0.0, 0.0])),
            CtError::ModalityLut,
            CtError::RescaleType(text()),
            CtError::Decode(text()),
            CtError::Codestream(text()),
            CtError::ShortPixelData { found: 0, wanted: 1, rows: 1, columns: 1 },
        ] {
            assert!(CODES.contains(&error.reason().code.as_str()), "{error:?}");
        }
    }

    #[test]
    fn lies_are_nonsense() {
        let good = said(&slice());
        let with = |at: usize, bytes: &[u8]| {
            let mut changed = good.clone();
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            changed
        };
        for (name, bytes) in [
            ("magic", with(0, b"HTTP")),
            ("number", with(4, &8u64.to_le_bytes())),
            ("kind", with(12, &[9])),
            ("rows", with(13, &60_000u32.to_le_bytes())),
            ("columns", with(17, &u32::MAX.to_le_bytes())),
            ("window", with(25, &f32::NAN.to_le_bytes())),
            ("code", said(&Answer::Refused(Reason::new("negative", "")))),
        ] {
            assert!(matches!(heard(&bytes), Err(ProtocolError::Nonsense(_))), "{name}: {:?}", heard(&bytes));
        }
        let long = [&ANSWER[..], &7u64.to_le_bytes(), &[PANICKED], &u16::MAX.to_le_bytes()].concat();
        assert!(matches!(heard(&long), Err(ProtocolError::Nonsense(_))));
    }

    #[test]
    fn texts_are_cut_and_of_one_line() {
        let Answer::Panicked(text) = heard(&said(&Answer::Panicked("a\nb\x1b[2Jé".repeat(500)))).unwrap() else {
            panic!("another answer");
        };
        assert!(text.len() <= MOST_TEXT && text.starts_with("a b [2Jé"), "{text}");
    }

    proptest! {
        #[test]
        fn arbitrary_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = heard(&bytes);
            let _ = heard(&[&ANSWER[..], &7u64.to_le_bytes(), &bytes].concat());
            let _ = read_request(&mut &*bytes);
            let _ = read_hello(&mut &*bytes);
        }
    }
}
