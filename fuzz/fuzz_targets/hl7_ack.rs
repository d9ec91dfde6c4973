//! An HL7 receiver's answer.
#![no_main]

use ichor_worklist::hl7::Ack;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(ack) = Ack::parse(bytes) {
        // What stands in the job log is short and holds nothing of the peer's choosing but a code.
        let words = ack.words();
        assert!(words.len() < 40 && words.chars().all(|c| c.is_ascii_alphanumeric() || ", -".contains(c)), "{words:?}");
    }
});
