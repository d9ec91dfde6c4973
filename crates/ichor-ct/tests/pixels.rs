//! Stored values → Hounsfield units, in every transfer syntax that the counterparts can write.

mod support;

use std::path::Path;
use std::process::Command;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use ichor_ct::CtError;
use ichor_ct::volume::{PADDING_HU, read_slice};
use support::CtFile;
use tempfile::TempDir;

/// A ramp of stored values, the same in every file.
fn ramp() -> Vec<i16> {
    (0..64 * 64).map(|at| ((at * 7) % 3000) as i16).collect()
}

fn ramp_file() -> CtFile {
    let mut file = CtFile::new("1.1", 1, 0.0, 64, 0);
    file.pixels(&ramp());
    file
}

#[test]
fn rescale_and_padding_on_stored_values() {
    let folder = TempDir::new().unwrap();
    let mut file = CtFile::new("1.1", 1, 0.0, 2, 0).with(tags::PIXEL_PADDING_VALUE, VR::SS, "").with(
        tags::RESCALE_SLOPE,
        VR::DS,
        "2",
    );
    file.object.put(dicom_core::DataElement::new(
        tags::PIXEL_PADDING_VALUE,
        VR::SS,
        dicom_core::PrimitiveValue::from(-2000i16),
    ));
    file.pixels(&[-2000, 0, 532, 1000]);
    let slice = read_slice(&file.save(folder.path(), "a.dcm")).unwrap();
    assert_eq!(slice.hu, [PADDING_HU, -1024, 40, 976]);
}

#[test]
fn padding_outside_of_bits_stored_does_not_alias() {
    let folder = TempDir::new().unwrap();
    let mut file = CtFile::new("1.1", 1, 0.0, 2, 0).with_u16(tags::BITS_STORED, 12).with_u16(tags::HIGH_BIT, 11).with(
        tags::RESCALE_INTERCEPT,
        VR::DS,
        "0",
    );
    file.pixels(&[-3024, 0, 40, 1000]);
    let slice = read_slice(&file.save(folder.path(), "a.dcm")).unwrap();
    assert_eq!(slice.hu, [-3024, 0, 40, 1000]);
}

#[test]
fn what_cannot_be_decoded_says_why() {
    let folder = TempDir::new().unwrap();
    let check = |name: &str, file: CtFile, expected: &str| {
        let error = read_slice(&file.save(folder.path(), name)).unwrap_err();
        assert_eq!(error.reason().code.as_str(), expected, "{name}: {error}");
    };
    let mut short = CtFile::new("1.1", 1, 0.0, 64, 0);
    short.pixels(&[0; 100]);
    check("short", short, "pixel-data-short");
    check("missing", ramp_file().without(tags::PIXEL_DATA), "attribute-missing");
    check("no-rows", ramp_file().with_u16(tags::ROWS, 0), "attribute-invalid");
    check("huge", ramp_file().with_u16(tags::ROWS, 65_535), "attribute-invalid");
    check("no-slope", ramp_file().without(tags::RESCALE_SLOPE), "attribute-missing");
    check("empty-intercept", ramp_file().with(tags::RESCALE_INTERCEPT, VR::DS, ""), "attribute-missing");
    check("optical-density", ramp_file().with(tags::RESCALE_TYPE, VR::LO, "OD"), "not-hounsfield");
    check("effective-z", ramp_file().with(tags::RESCALE_TYPE, VR::LO, "Z_EFF"), "not-hounsfield");
    check("slope", ramp_file().with(tags::RESCALE_SLOPE, VR::DS, "0"), "attribute-invalid");
    check("colour", ramp_file().with_u16(tags::SAMPLES_PER_PIXEL, 3), "attribute-invalid");
    check("lut", ramp_file().with(tags::MODALITY_LUT_SEQUENCE, VR::SQ, ""), "modality-lut");
}

#[test]
fn cut_and_flipped_files_never_panic() {
    let folder = TempDir::new().unwrap();
    let bytes = std::fs::read(ramp_file().save(folder.path(), "whole.dcm")).unwrap();
    let path = folder.path().join("broken.dcm");
    for step in 0..64 {
        std::fs::write(&path, &bytes[..bytes.len() * step / 64]).unwrap();
        assert!(
            matches!(
                read_slice(&path),
                Err(CtError::Parse(_) | CtError::ShortPixelData { .. } | CtError::Missing(_) | CtError::Decode(_))
            ),
            "{step}"
        );
    }
    // The data set's header: one byte in seven of it is flipped. The file meta group before it is always our own.
    let start = 144 + u32::from_le_bytes(bytes[140..144].try_into().unwrap()) as usize;
    for at in (start..bytes.len().min(start + 900)).step_by(7) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0xFF;
        std::fs::write(&path, &flipped).unwrap();
        let _ = read_slice(&path);
    }
}

fn convert(tool: &str, arguments: &[&str], from: &Path, to: &Path) -> bool {
    match Command::new(tool).args(arguments).arg(from).arg(to).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => panic!("{tool} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => {
            println!("skipped: {tool} {arguments:?}: {error}");
            false
        }
    }
}

#[test]
fn every_lossless_syntax_gives_the_same_hounsfield_units() {
    let folder = TempDir::new().unwrap();
    let original = ramp_file().save(folder.path(), "original.dcm");
    let expected: Vec<i16> = ramp().iter().map(|value| value - 1024).collect();
    assert_eq!(read_slice(&original).unwrap().hu, expected);
    let tools: [(&str, &[&str]); 9] = [
        ("dcmconv", &["+ti"]),
        ("dcmconv", &["+tb"]),
        ("dcmconv", &["+td"]),
        ("dcmcjpeg", &["+e1"]),
        ("dcmcjpeg", &["+el"]),
        ("dcmcjpls", &["+el"]),
        ("dcmcrle", &[]),
        ("gdcmconv", &["--j2k"]),
        ("gdcmconv", &["--jpegls"]),
    ];
    for (index, (tool, arguments)) in tools.into_iter().enumerate() {
        let path = folder.path().join(format!("{index}.dcm"));
        if convert(tool, arguments, &original, &path) {
            let slice = read_slice(&path).unwrap_or_else(|error| panic!("{tool} {arguments:?}: {error}"));
            assert!(slice.hu == expected, "{tool} {arguments:?} decodes to other values");
        }
    }
}

#[test]
fn a_missing_rescale_attribute_is_named() {
    let folder = TempDir::new().unwrap();
    for (tag, name) in [(tags::RESCALE_SLOPE, "Rescale Slope"), (tags::RESCALE_INTERCEPT, "Rescale Intercept")] {
        let error = read_slice(&ramp_file().without(tag).save(folder.path(), "a.dcm")).unwrap_err();
        assert_eq!(error.to_string(), format!("{name} is missing"));
    }
}

#[test]
fn rescale_types_of_hounsfield_units() {
    let folder = TempDir::new().unwrap();
    for unit in ["HU", "hu", "US", ""] {
        let slice = read_slice(&ramp_file().with(tags::RESCALE_TYPE, VR::LO, unit).save(folder.path(), "a.dcm"));
        assert!(slice.is_ok(), "{unit:?}: {:?}", slice.err());
    }
}

/// A signed file of `bits` stored bits without rescaling, padding −2000.
fn signed_file(bits: u16, stored: &[i16], side: u16) -> CtFile {
    let mut file = CtFile::new("1.1", 1, 0.0, side, 0)
        .with_u16(tags::BITS_STORED, bits)
        .with_u16(tags::HIGH_BIT, bits - 1)
        .with(tags::RESCALE_INTERCEPT, VR::DS, "0");
    file.object.put(dicom_core::DataElement::new(
        tags::PIXEL_PADDING_VALUE,
        VR::SS,
        dicom_core::PrimitiveValue::from(-2000i16),
    ));
    file.pixels(stored);
    file
}

#[test]
fn signed_values_with_zeroed_high_bits_keep_their_sign() {
    let folder = TempDir::new().unwrap();
    // Bits stored, cells as written, Hounsfield units.
    let cases: [(&str, u16, [i16; 4], [i16; 4]); 6] = [
        ("zeroed", 12, [0xC00, 0xFFF, 40, 0x7FF], [-1024, -1, 40, 2047]),
        ("padding", 12, [0x830, 0xC00, 40, 0], [PADDING_HU, -1024, 40, 0]),
        ("extended", 12, [-1024, -1, 40, 2047], [-1024, -1, 40, 2047]),
        ("outside", 12, [-3024, -1024, 40, 0xC00], [-3024, -1024, 40, 0xC00]),
        ("fifteen", 15, [0x7C00, 0x7FFF, 40, 0x3FFF], [-1024, -1, 40, 0x3FFF]),
        ("sixteen", 16, [-1024, -1, 40, i16::MAX], [-1024, -1, 40, i16::MAX]),
    ];
    for (name, bits, stored, expected) in cases {
        let slice = read_slice(&signed_file(bits, &stored, 2).save(folder.path(), name)).unwrap();
        assert_eq!(slice.hu, expected, "{name}");
    }
    let padded = signed_file(12, &[0x830, 0xC00, 40, 0], 2).with_u16(tags::PIXEL_PADDING_VALUE, 0x830);
    assert_eq!(read_slice(&padded.save(folder.path(), "narrow")).unwrap().hu, [PADDING_HU, -1024, 40, 0]);
}

#[test]
fn every_lossless_syntax_keeps_the_sign_of_twelve_bits() {
    let folder = TempDir::new().unwrap();
    let expected: Vec<i16> = (0..64 * 64).map(|at| (at * 7) % 3000 - 1024).map(|value: i16| value.min(2047)).collect();
    let zeroed: Vec<i16> = expected.iter().map(|value| value & 0xFFF).collect();
    let tools: [(&str, &[&str]); 5] = [
        ("dcmcjpeg", &["+e1"]),
        ("dcmcjpeg", &["+el"]),
        ("dcmcjpls", &["+el"]),
        ("dcmcrle", &[]),
        ("gdcmconv", &["--jpegls"]),
    ];
    for (kind, stored) in [("extended", &expected), ("zeroed", &zeroed)] {
        let original = signed_file(12, stored, 64).save(folder.path(), kind);
        for (index, (tool, arguments)) in tools.into_iter().enumerate() {
            let path = folder.path().join(format!("{kind}-{index}.dcm"));
            if convert(tool, arguments, &original, &path) {
                let slice = read_slice(&path).unwrap_or_else(|error| panic!("{tool} {arguments:?}: {error}"));
                assert!(slice.hu == expected, "{tool} {arguments:?} of {kind} values decodes to other values");
            }
        }
    }
}

#[test]
fn unsigned_twelve_bits() {
    let folder = TempDir::new().unwrap();
    let mut file = CtFile::new("1.1", 1, 0.0, 2, 0)
        .with_u16(tags::BITS_STORED, 12)
        .with_u16(tags::HIGH_BIT, 11)
        .with_u16(tags::PIXEL_REPRESENTATION, 0);
    file.pixels(&[0, 1024, 1064, 4095]);
    let slice = read_slice(&file.write(folder.path(), "a.dcm", uids::IMPLICIT_VR_LITTLE_ENDIAN)).unwrap();
    assert_eq!(slice.hu, [-1024, 0, 40, 3071]);
}
