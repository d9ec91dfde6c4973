//! Stored values, for those who pass images on: the same bytes as before they were compressed, and nothing of the patient on the
//! way to the child.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use dicom_dictionary_std::tags;
use ichor_core::Uid;
use ichor_ct::frames::StoredPixels;
use ichor_decode::DecodeError;
use support::{compressed, decoder, plain};
use tempfile::TempDir;

#[test]
fn stored_values_are_those_of_the_uncompressed_file() {
    let folder = TempDir::new().unwrap();
    let decoder = decoder();
    let original = StoredPixels::open(&plain(folder.path(), 128)).unwrap();
    assert!(original.is_native());
    let wanted = original.raw(1).unwrap();
    assert_eq!(wanted.len(), 128 * 128 * 2);
    let patient = original.header().element(tags::PATIENT_ID).unwrap().to_str().unwrap().into_owned();
    assert!(!patient.is_empty());
    for (codec, path) in compressed(folder.path(), 128) {
        // (A deflated file is native once it is inflated.)
        let pixels = StoredPixels::open(&path).unwrap_or_else(|error| panic!("{codec}: {error}"));
        if pixels.is_native() {
            assert!(pixels.raw(1).unwrap() == wanted, "{codec}");
            continue;
        }
        let file = pixels.single(1).unwrap();
        let tells = |bytes: &[u8]| bytes.windows(patient.len()).any(|word| word == patient.as_bytes());
        assert!(tells(&std::fs::read(&path).unwrap()) && !tells(&file), "{codec}: the child is told whose image it is");
        let series = Uid::derive(["series"]);
        let width = (pixels.description().allocated / 8) as u8;
        let cells = decoder.read_cells(&file, &series, [128, 128], width).unwrap();
        if codec != "JPEG baseline" {
            assert!(cells == wanted, "{codec} {}", path.display());
        }
        for (sides, width) in [([128, 127], width), ([64, 64], width), ([128, 128], 3 - width)] {
            let Err(DecodeError::Slice(reason)) = decoder.read_cells(&file, &series, sides, width) else {
                panic!("{codec} was decoded as {sides:?} of {width} bytes");
            };
            assert_eq!(reason.code.as_str(), "attribute-invalid", "{codec}: {reason}");
        }
        assert!(pixels.raw(2).is_err() && pixels.single(0).is_err(), "{codec} has one frame");
    }
}
