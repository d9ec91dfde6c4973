//! What a decoder's child may say: arbitrary bytes never panic, and an accepted slice has the size that was asked for.
#![no_main]

use ichor_decode::protocol::{Answer, Request, read_answer, read_hello};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let request = Request { number: 1, rows: 4, columns: 5, cell: None, length: 0 };
    let _ = read_hello(&mut &*bytes);
    if let Ok(Answer::Slice(pixels)) = read_answer(&mut &*bytes, &request) {
        assert_eq!(pixels.hu.len(), 20);
    }
    let stored = Request { cell: Some(2), ..request };
    if let Ok(Answer::Cells(bytes)) = read_answer(&mut &*bytes, &stored) {
        assert_eq!(bytes.len(), 40);
    }
});
