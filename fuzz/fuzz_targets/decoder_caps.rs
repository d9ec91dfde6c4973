//! What the daemon's own process reads of a file before its slice is decoded: arbitrary data sets, deflated ones too,
//! never panic, and nothing is allocated from a declared length (run with `-malloc_limit_mb=64`).
#![no_main]

use std::io::Cursor;

use dicom_object::FileMetaTableBuilder;
use ichor_decode::Caps;
use libfuzzer_sys::fuzz_target;

/// Native, deflated and encapsulated.
const SYNTAXES: [&str; 4] =
    ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2"];

fuzz_target!(|bytes: &[u8]| {
    let Some((first, data_set)) = bytes.split_first() else { return };
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(SYNTAXES[usize::from(*first) % SYNTAXES.len()])
        .media_storage_sop_class_uid("1.2.840.10008.5.1.4.1.1.2")
        .media_storage_sop_instance_uid("2.25.1")
        .build();
    let mut file = [&[0; 128][..], b"DICM"].concat();
    if !meta.is_ok_and(|meta| meta.write(&mut file).is_ok()) {
        return;
    }
    file.extend(data_set);
    let caps = Caps { max_inflated_bytes: 1 << 20, ..Caps::default() };
    let length = file.len() as u64;
    let _ = caps.check_file(Cursor::new(file), length);
});
