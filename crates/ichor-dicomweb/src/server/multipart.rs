//! The body of a request: multipart/related (RFC 2046 5.1), read as it arrives.
//!
//! The parser is given the body in chunks of any size and hands out the parts' bytes as soon as it is sure that they
//! are no boundary. It holds one chunk, at most one part's header, and never the part.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use thiserror::Error;

/// Longest header of a part, in bytes. Ordinary ones have about 100.
pub const MAX_PART_HEADER: usize = 8 * 1024;
/// Most bytes before the first boundary.
pub const MAX_PREAMBLE: usize = 64 * 1024;
/// Most spaces and tabs behind a boundary (RFC 2046 calls them transport padding).
const MAX_PADDING: usize = 256;

/// What the parser found next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part begins.
    Part(PartHeader),
    /// Bytes of the part; never empty.
    Data(Bytes),
    /// The part is complete: the whole line of the boundary behind it was seen.
    PartEnd,
    /// The last boundary was seen; what follows does not count.
    End,
}

/// What matters of a part's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartHeader {
    /// Content-Type, as sent.
    pub content_type: Option<String>,
    /// Content-Transfer-Encoding, in lower case.
    pub transfer_encoding: Option<String>,
}

/// Why a body is no multipart body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MultipartError {
    /// Too much stands before the first boundary, or there is none.
    #[error(
        "no boundary in the first {MAX_PREAMBLE} bytes; lines end with CRLF, and the boundary is the Content-Type's"
    )]
    NoBoundary,
    /// Something other than the end of the line follows a boundary.
    #[error("a boundary is followed by something other than the end of its line")]
    AfterBoundary,
    /// A part's header is too long.
    #[error("the header of a part is longer than {MAX_PART_HEADER} bytes")]
    LongHeader,
    /// A part's header is broken.
    #[error("the header of a part is malformed")]
    Header,
    /// The body ends before the last boundary.
    #[error("the body ends before its closing boundary")]
    Incomplete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Preamble,
    /// Behind a boundary, which may be the last.
    AfterBoundary,
    Header,
    Data,
    /// Behind the last boundary.
    Closing,
    Epilogue,
}

/// A multipart body on its way in.
#[derive(Debug)]
pub struct MultipartParser {
    /// CRLF, two hyphens, and the boundary.
    delimiter: Vec<u8>,
    finder: memmem::Finder<'static>,
    buffer: BytesMut,
    state: State,
    /// Whether the boundary that was seen ends a part, whose end has not been told.
    ends_part: bool,
    preamble: usize,
}

impl MultipartParser {
    /// Begins a body with this boundary, given without its leading hyphens.
    #[must_use]
    pub fn new(boundary: &str) -> Self {
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        let finder = memmem::Finder::new(&delimiter).into_owned();
        // The first boundary may stand at the very beginning, where no line ends before it.
        let buffer = BytesMut::from(&b"\r\n"[..]);
        Self { delimiter, finder, buffer, state: State::Preamble, ends_part: false, preamble: 0 }
    }

    /// Takes the next bytes of the body. [`Self::next`] should have returned `None` before, or the buffer grows.
    pub fn push(&mut self, chunk: &[u8]) {
        if !matches!(self.state, State::Closing | State::Epilogue) {
            self.buffer.extend_from_slice(chunk);
        }
    }

    /// The next event; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`MultipartError`]; the parser is of no use then.
    #[expect(clippy::should_implement_trait, reason = "None is not the end: more may come with the next chunk")]
    pub fn next(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            match self.state {
                State::Preamble => {
                    let Some(skipped) = self.up_to_delimiter(true) else {
                        return if self.preamble > MAX_PREAMBLE { Err(MultipartError::NoBoundary) } else { Ok(None) };
                    };
                    self.preamble += skipped.len();
                    if self.preamble > MAX_PREAMBLE {
                        return Err(MultipartError::NoBoundary);
                    }
                }
                State::AfterBoundary => {
                    let Some(next) = self.after_boundary()? else { return Ok(None) };
                    self.state = next;
                    // Not before: what only begins like a boundary must not make half a part look whole.
                    if std::mem::take(&mut self.ends_part) {
                        return Ok(Some(Event::PartEnd));
                    }
                }
                State::Closing => {
                    self.state = State::Epilogue;
                    self.buffer.clear();
                    return Ok(Some(Event::End));
                }
                State::Header => {
                    let Some(header) = self.header()? else { return Ok(None) };
                    self.state = State::Data;
                    return Ok(Some(Event::Part(header)));
                }
                State::Data => match self.up_to_delimiter(false) {
                    None => return Ok(None),
                    Some(data) if !data.is_empty() => return Ok(Some(Event::Data(data))),
                    Some(_) => {}
                },
                State::Epilogue => return Ok(None),
            }
        }
    }

    /// To be called at the end of the body.
    ///
    /// # Errors
    /// [`MultipartError::Incomplete`] if the last boundary has not come, [`MultipartError::NoBoundary`] if none has.
    pub fn finish(&self) -> Result<(), MultipartError> {
        match self.state {
            State::Closing | State::Epilogue => Ok(()),
            State::Preamble => Err(MultipartError::NoBoundary),
            State::AfterBoundary | State::Header | State::Data => Err(MultipartError::Incomplete),
        }
    }

    /// Takes the bytes that stand before the next delimiter. If the whole delimiter is there it is taken too, and the
    /// state moves on; the bytes may be empty then. `None` if it takes more bytes to say.
    fn up_to_delimiter(&mut self, is_preamble: bool) -> Option<Bytes> {
        if let Some(at) = self.finder.find(&self.buffer) {
            let before = self.buffer.split_to(at).freeze();
            self.buffer.advance(self.delimiter.len());
            self.state = State::AfterBoundary;
            self.ends_part = !is_preamble;
            return Some(before);
        }
        // What could be the beginning of a delimiter stays.
        let kept = (1..self.delimiter.len())
            .rev()
            .find(|length| self.buffer.ends_with(&self.delimiter[..*length]))
            .unwrap_or(0);
        let sure = self.buffer.len() - kept;
        if is_preamble {
            self.preamble += sure;
            self.buffer.advance(sure);
            return None;
        }
        (sure > 0).then(|| self.buffer.split_to(sure).freeze())
    }

    /// What follows a boundary: the closing hyphens, or padding and the end of the line.
    fn after_boundary(&mut self) -> Result<Option<State>, MultipartError> {
        if self.buffer.starts_with(b"--") {
            return Ok(Some(State::Closing));
        }
        if &self.buffer[..] == b"-" {
            return Ok(None);
        }
        let padding = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if padding > MAX_PADDING {
            return Err(MultipartError::AfterBoundary);
        }
        match &self.buffer[padding..] {
            [] | [b'\r'] => Ok(None),
            [b'\r', b'\n', ..] => {
                // The line's end stays: a part without header fields begins with the empty line that it makes.
                self.buffer.advance(padding);
                Ok(Some(State::Header))
            }
            _ => Err(MultipartError::AfterBoundary),
        }
    }

    /// The header, which begins with the end of the boundary's line and ends with an empty one.
    fn header(&mut self) -> Result<Option<PartHeader>, MultipartError> {
        const END: &[u8] = b"\r\n\r\n";
        let window = &self.buffer[..self.buffer.len().min(MAX_PART_HEADER + END.len())];
        let Some(end) = memmem::find(window, END) else {
            return if window.len() < MAX_PART_HEADER + END.len() { Ok(None) } else { Err(MultipartError::LongHeader) };
        };
        let bytes = self.buffer.split_to(end + END.len());
        parse_header(&bytes[..end]).map(Some)
    }
}

/// Reads `CRLF name: value` again and again; a line that begins with a space goes on with the one before (RFC 5322
/// 2.2.3).
fn parse_header(bytes: &[u8]) -> Result<PartHeader, MultipartError> {
    let text = std::str::from_utf8(bytes).map_err(|_| MultipartError::Header)?;
    let mut fields: Vec<(&str, String)> = Vec::new();
    for line in text.split("\r\n").skip(1) {
        if line.contains(['\r', '\n', '\0']) {
            return Err(MultipartError::Header);
        }
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut().ok_or(MultipartError::Header)?;
            value.push_str(line);
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(MultipartError::Header)?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(MultipartError::Header);
        }
        fields.push((name, value.to_owned()));
    }
    let field = |wanted: &str| {
        let found = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim().to_owned())
    };
    Ok(PartHeader {
        content_type: field("content-type"),
        transfer_encoding: field("content-transfer-encoding").map(|value| value.to_ascii_lowercase()),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Parts with their data, whether each was complete, and how the body ended.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Read {
        parts: Vec<(PartHeader, Vec<u8>, bool)>,
        ended: bool,
        error: Option<MultipartError>,
    }

    fn read<'a>(boundary: &str, chunks: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let mut parser = MultipartParser::new(boundary);
        let mut read = Read::default();
        let mut drain = |parser: &mut MultipartParser| -> Result<(), MultipartError> {
            while let Some(event) = parser.next()? {
                match event {
                    Event::Part(header) => read.parts.push((header, Vec::new(), false)),
                    Event::Data(data) => {
                        assert!(!data.is_empty());
                        read.parts.last_mut().unwrap().1.extend_from_slice(&data);
                    }
                    Event::PartEnd => read.parts.last_mut().unwrap().2 = true,
                    Event::End => read.ended = true,
                }
            }
            Ok(())
        };
        let mut error = None;
        for chunk in chunks {
            parser.push(chunk);
            if let Err(failed) = drain(&mut parser) {
                error = Some(failed);
                break;
            }
            assert!(parser.buffer.len() <= MAX_PART_HEADER + 4 + parser.delimiter.len());
        }
        read.error = error.or_else(|| parser.finish().err());
        read
    }

    fn part(content_type: &str, data: &[u8]) -> (PartHeader, Vec<u8>, bool) {
        let header = PartHeader { content_type: Some(content_type.to_owned()), transfer_encoding: None };
        (header, data.to_vec(), true)
    }

    const DICOM: &str = "application/dicom";

    #[test]
    fn a_body_of_every_kind() {
        let body = b"preamble\r\n--xx\r\n--x \t\r\nContent-Type: application/dicom\r\n\r\none\r\n--y\r\n\
                     --x\r\ncontent-type:\r\n application/dicom\r\nContent-ID: <1>\r\n\r\n\r\n--x\r\n\r\n\r\n--x--\r\nepilogue\r\n--x\r\n";
        let read_all = read("x", [&body[..]]);
        // `--xx` begins with the boundary, which no line of the preamble may (RFC 2046 5.1.1).
        assert_eq!(read_all.error, Some(MultipartError::AfterBoundary));
        let body = &body[b"preamble\r\n--xx".len()..];
        let read_all = read("x", [body]);
        let bare = (PartHeader::default(), Vec::new(), true);
        assert_eq!(read_all.parts, [part(DICOM, b"one\r\n--y"), part(DICOM, b""), bare]);
        assert_eq!((read_all.ended, read_all.error), (true, None));
        for cut in 0..=body.len() {
            assert_eq!(read("x", [&body[..cut], &body[cut..]]), read_all, "cut at {cut}");
        }
        assert_eq!(read("x", body.chunks(1)), read_all);
    }

    #[test]
    fn a_body_that_ends_early_has_no_end() {
        let body = b"--x\r\nContent-Type: application/dicom\r\n\r\none\r\n--x\r\n\r\ntwo\r\n--x--";
        let whole = read("x", [&body[..]]);
        assert_eq!((whole.parts.len(), whole.error), (2, None));
        for cut in 0..body.len() {
            let read = read("x", [&body[..cut]]);
            assert!(!read.ended && read.error.is_some(), "cut at {cut}: {read:?}");
            let complete = read.parts.iter().filter(|part| part.2).count();
            assert!(complete < 2, "cut at {cut}: {read:?}");
        }
    }

    #[test]
    fn malformed_bodies() {
        for (body, error) in [
            (&b"--x\n\ndata\n--x--\n"[..], MultipartError::AfterBoundary),
            (b"a\n--x\r\n\r\ndata", MultipartError::NoBoundary),
            (b"", MultipartError::NoBoundary),
            (b"--x\r\nno colon\r\n\r\n", MultipartError::Header),
            (b"--x\r\n: no name\r\n\r\n", MultipartError::Header),
            (b"--x\r\n folded at once\r\n\r\n", MultipartError::Header),
            (b"--x\r\na: b\nc: d\r\n\r\n", MultipartError::Header),
            (b"--x\r\na: \xff\r\n\r\n", MultipartError::Header),
            (b"--x-y\r\n\r\n", MultipartError::AfterBoundary),
            (b"--x\r", MultipartError::Incomplete),
        ] {
            let name = String::from_utf8_lossy(body).into_owned();
            assert_eq!(read("x", [body]).error, Some(error), "{name:?}");
            assert_eq!(read("x", body.chunks(1)).error, Some(error), "{name:?} byte by byte");
        }
    }

    #[test]
    fn everything_that_is_held_is_bounded() {
        let endless = [b"a: ".to_vec(), vec![b'x'; 2 * MAX_PART_HEADER]].concat();
        let header = [b"--x\r\n".as_slice(), &endless].concat();
        assert_eq!(read("x", header.chunks(1000)).error, Some(MultipartError::LongHeader));
        let padding = [b"--x".as_slice(), &vec![b' '; 2 * MAX_PADDING]].concat();
        assert_eq!(read("x", padding.chunks(10)).error, Some(MultipartError::AfterBoundary));
        let preamble = vec![b'\r'; MAX_PREAMBLE + 100];
        assert_eq!(read("x", preamble.chunks(1000)).error, Some(MultipartError::NoBoundary));
        let late = [&preamble[..], b"\r\n--x--"].concat();
        assert_eq!(read("x", [&late[..]]).error, Some(MultipartError::NoBoundary));
    }

    /// Data that is full of what looks like a boundary.
    fn tricky() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"\r\n--".to_vec()),
            Just(b"\r\n--boundar".to_vec()),
            Just(b"\r\r\n-".to_vec()),
            Just(b"--boundary".to_vec()),
            Just(b"\n--boundary--\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..40),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn every_chunking_reads_the_same(
            parts in proptest::collection::vec(tricky(), 1..5),
            preamble in "[a-z \r\n-]{0,20}",
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..30),
        ) {
            let holds = |data: &[u8]| memmem::find(&[b"\r\n", data].concat(), b"\r\n--boundary").is_some();
            prop_assume!(!holds(preamble.as_bytes()) && !parts.iter().any(|data| holds(data)));
            let mut body = preamble.into_bytes();
            if !body.is_empty() {
                body.extend(b"\r\n");
            }
            for data in &parts {
                body.extend(b"--boundary\r\nContent-Type: application/dicom\r\n\r\n");
                body.extend(data);
                body.extend(b"\r\n");
            }
            body.extend(b"--boundary--\r\n");
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            at.extend([0, body.len()]);
            at.sort_unstable();
            let chunks = at.windows(2).map(|pair| &body[pair[0]..pair[1]]);
            let read = read("boundary", chunks);
            let wanted: Vec<_> = parts.iter().map(|data| part(DICOM, data)).collect();
            prop_assert_eq!(read, Read { parts: wanted, ended: true, error: None });
        }

        #[test]
        fn arbitrary_bytes_read_the_same_in_every_chunking(
            body in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'x'), Just(b':'), any::<u8>()], 0..300),
            size in 1usize..20,
        ) {
            let body = [b"--x\r\n".as_slice(), &body].concat();
            prop_assert_eq!(read("x", body.chunks(size)), read("x", [&body[..]]));
        }
    }
}
