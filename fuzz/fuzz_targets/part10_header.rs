//! File headers: arbitrary bytes never panic, and what a header says can be written and read again.
#![no_main]

use ichor_dimse::part10::{Part10Meta, decode_arriving_header, decode_header, write_header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Behind preamble and prefix, so that every input gets past them.
    let file = [&[0; 128][..], b"DICM", bytes].concat();
    // What is found in a file that is still arriving is what is found in the whole one.
    let arriving = (0..=file.len()).step_by(file.len() / 16 + 1).find_map(|length| decode_arriving_header(&file[..length]));
    let decoded = decode_header(&file);
    assert!(arriving.is_none() || arriving.as_ref() == decoded.as_ref().ok());
    let Ok(header) = decoded else { return };
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
