//! Deflated data sets: the whole data set, bytes as they come.
#![no_main]

mod slice_file;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| slice_file::inflate(bytes));
