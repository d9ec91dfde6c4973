//! JPEG-LS (CharLS): one fragment, bytes as they come.
#![no_main]

mod slice_file;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| slice_file::decode_fragment("1.2.840.10008.1.2.4.80", bytes));
