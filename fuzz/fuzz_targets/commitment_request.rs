//! Action and event data sets of Storage Commitment: arbitrary bytes never panic, no more references are read than allowed, and
//! what is read is written to the same request or report.
#![no_main]

use ichor_core::Uid;
use ichor_dimse::commitment::{CommitmentReport, CommitmentRequest};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 100;

fuzz_target!(|bytes: &[u8]| {
    for syntax in ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"] {
        let Ok(syntax) = Uid::parse(syntax) else { return };
        if let Ok(report) = CommitmentReport::read(bytes, &syntax, MOST) {
            assert!(report.committed.len() <= MOST && report.failed.len() <= MOST);
            let again = CommitmentReport::read(&report.write(&syntax), &syntax, MOST);
            assert_eq!(again.as_ref().ok(), Some(&report));
        }
        let Ok(request) = CommitmentRequest::read(bytes, &syntax, MOST) else { continue };
        assert!(request.references.len() <= MOST);
        let again = CommitmentRequest::read(&request.write(&syntax), &syntax, MOST);
        assert_eq!(again.as_ref().ok(), Some(&request));
    }
});
