//! File headers: arbitrary bytes never panic, and what a header says can be written and read again.
#![no_main]

use ichor_dimse::part10::{Part10Meta, decode_header, write_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Behind preamble and prefix, so that every input gets past them.
    let file = [&[0; 128][..], b"DICM", bytes].concat();
    let Ok(header) = decode_header(&file) else { return };
    assert!(header.dataset_offset <= file.len() as u64);
    let meta = Part10Meta {
        sop_class: header.sop_class.clone(),
        sop_instance: header.sop_instance.clone(),
        transfer_syntax: header.transfer_syntax.clone(),
        source_ae: None,
    };
    let again = decode_header(&write_header(&meta));
    assert!(again.is_ok_and(|again| again.sop_instance == header.sop_instance));
});
