//! Bodies of STOW-RS requests: arbitrary bytes never panic, what is held is bounded, and the parts are the same however
//! the bytes are cut.
#![no_main]

use ichor_dicomweb::server::multipart::{Event, MultipartError, MultipartParser, PartHeader};
use libfuzzer_sys::fuzz_target;

/// Parts with their bytes and whether they were complete, and how the body ended.
type Read = (Vec<(PartHeader, Vec<u8>, bool)>, Result<bool, MultipartError>);

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut parser = MultipartParser::new("b");
    let mut parts: Vec<(PartHeader, Vec<u8>, bool)> = Vec::new();
    let mut ended = false;
    for chunk in chunks {
        parser.push(chunk);
        loop {
            match parser.next() {
                Err(error) => return (parts, Err(error)),
                Ok(None) => break,
                Ok(Some(Event::Part(header))) => parts.push((header, Vec::new(), false)),
                Ok(Some(Event::Data(data))) => parts.last_mut().unwrap().1.extend_from_slice(&data),
                Ok(Some(Event::PartEnd)) => parts.last_mut().unwrap().2 = true,
                Ok(Some(Event::End)) => {
                    assert!(!ended);
                    ended = true;
                }
            }
        }
    }
    (parts, parser.finish().map(|()| ended))
}

fuzz_target!(|bytes: &[u8]| {
    // The first byte is the size of the chunks; most of what there is to find lies behind the first boundary.
    let Some((size, body)) = bytes.split_first() else { return };
    let body = [b"--b\r\n", body].concat();
    let whole = read(std::iter::once(&body[..]));
    let cut = read(body.chunks(usize::from(*size).max(1)));
    assert_eq!(whole, cut);
    if whole.1 == Ok(true) {
        assert!(whole.0.iter().all(|part| part.2));
    }
});
