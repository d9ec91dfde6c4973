//! Phantoms on disk: readable, consistent with what was generated, and valid by dciodvfy.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;
use std::process::Command;

use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, Tag, open_file};
use ichor_phantom::{
    Companions, Padding, PhantomOptions, Storage, WriteOptions, WrittenStudy, write_study, write_study_with,
};

fn options(seed: u64) -> PhantomOptions {
    PhantomOptions::random(seed, Some(true)).with_matrix(80).with_slices(9)
}

fn text(object: &DefaultDicomObject, tag: Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().trim_end_matches(['\0', ' ']).to_owned()
}

fn numbers(object: &DefaultDicomObject, tag: Tag) -> Vec<f64> {
    object.element(tag).unwrap().to_multi_float64().unwrap()
}

/// Stored values of an object, with their sign.
fn stored(object: &DefaultDicomObject) -> Vec<i32> {
    let bytes = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    let signed = text(object, tags::PIXEL_REPRESENTATION) == "1";
    bytes
        .chunks_exact(2)
        .map(|b| {
            if signed {
                i32::from(i16::from_le_bytes([b[0], b[1]]))
            } else {
                i32::from(u16::from_le_bytes([b[0], b[1]]))
            }
        })
        .collect()
}

fn read(written: &WrittenStudy) -> Vec<DefaultDicomObject> {
    written.files.iter().map(|path| open_file(path).unwrap()).collect()
}

#[test]
fn the_same_seed_writes_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let what = WriteOptions { truth: true, companions: Companions::all() };
    let first = write_study_with(21, &options(21), what, one.path()).unwrap();
    write_study_with(21, &options(21), what, two.path()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(one.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 9 + 1 + 9 + 1 + 3, "{names:?}");
    for name in names {
        let bytes = |dir: &Path| std::fs::read(dir.join(&name)).unwrap();
        assert!(bytes(one.path()) == bytes(two.path()), "{name:?}");
    }
    let other = write_study(22, &options(21), two.path()).unwrap();
    assert_ne!(first.study_instance, other.study_instance);
    let coarser = write_study(21, &options(21).with_slices(5), two.path()).unwrap();
    assert_ne!(first.study_instance, coarser.study_instance, "other options are another study");
}

#[test]
fn files_hold_what_was_generated() {
    for (seed, padding, storage) in [
        (31, Padding::None, Storage::Signed16),
        (32, Padding::Declared, Storage::Signed16),
        (33, Padding::Undeclared, Storage::Signed16),
        (34, Padding::None, Storage::Unsigned12),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = PhantomOptions { padding, storage, ..options(seed) };
        let written = write_study(seed, &options, dir.path()).unwrap();
        assert_eq!(written.matrix(), (80, 80));
        for (object, slice) in read(&written).iter().zip(&written.slices) {
            assert_eq!(text(object, tags::SOP_INSTANCE_UID), slice.sop_instance.as_str());
            let values = stored(object);
            let mut padded = 0;
            for (stored, hu) in values.iter().zip(&slice.hu) {
                if *stored == -2000 {
                    padded += 1;
                    assert_eq!(*hu, -1000);
                } else {
                    assert_eq!(stored - 1024, i32::from(*hu).max(-1024));
                }
            }
            // The corners outside the circle are 1 − π/4 of the image.
            let expected = if padding == Padding::None { 0.0 } else { 0.2146 * 6400.0 };
            assert!((f64::from(padded) - expected).abs() < 160.0, "{padded} padded");
            let declared = object.element_opt(tags::PIXEL_PADDING_VALUE).unwrap();
            assert_eq!(declared.is_some(), padding == Padding::Declared);
            let bits = if storage == Storage::Unsigned12 { "12" } else { "16" };
            assert_eq!(text(object, tags::BITS_STORED), bits);
        }
    }
}

#[test]
fn the_header_carries_geometry_and_says_that_it_is_synthetic() {
    let dir = tempfile::tempdir().unwrap();
    let options = PhantomOptions { tilt_degrees: 18.5, ..options(41) };
    let written = write_study(41, &options, dir.path()).unwrap();
    let objects = read(&written);
    for (index, (object, slice)) in objects.iter().zip(&written.slices).enumerate() {
        for (tag, expected) in [
            (tags::SOP_CLASS_UID, uids::CT_IMAGE_STORAGE),
            (tags::PATIENT_ID, "SYNTHETIC-41"),
            (tags::STUDY_DESCRIPTION, "CT HEAD SYNTHETIC"),
            (tags::IMAGE_COMMENTS, "synthetic, not a patient"),
            (tags::BODY_PART_EXAMINED, "HEAD"),
            (tags::GANTRY_DETECTOR_TILT, "18.5"),
            (tags::STUDY_INSTANCE_UID, written.study_instance.as_str()),
            (tags::SERIES_INSTANCE_UID, written.series_instance.as_str()),
            (tags::FRAME_OF_REFERENCE_UID, written.frame_of_reference.as_str()),
        ] {
            assert_eq!(text(object, tag), expected);
        }
        assert_eq!(text(object, tags::INSTANCE_NUMBER), (index + 1).to_string());
        assert_eq!(object.meta().transfer_syntax().trim_end_matches('\0'), uids::EXPLICIT_VR_LITTLE_ENDIAN);
        let position = numbers(object, tags::IMAGE_POSITION_PATIENT);
        let orientation = numbers(object, tags::IMAGE_ORIENTATION_PATIENT);
        let (sin, cos) = 18.5f64.to_radians().sin_cos();
        for (read, meant) in orientation.iter().zip([1.0, 0.0, 0.0, 0.0, cos, -sin]) {
            assert!((read - meant).abs() < 1e-9);
        }
        for (read, meant) in position.iter().zip(slice.plane.position) {
            assert!((read - meant).abs() < 1e-6);
        }
    }
    let z = |i: usize| numbers(&objects[i], tags::IMAGE_POSITION_PATIENT)[2];
    for i in 1..objects.len() {
        assert!((z(i) - z(i - 1) - options.slice_spacing_mm).abs() < 1e-6);
    }
}

#[test]
fn companions_are_told_apart_by_their_headers() {
    let dir = tempfile::tempdir().unwrap();
    let what = WriteOptions { truth: false, companions: Companions::all() };
    let written = write_study_with(51, &options(51), what, dir.path()).unwrap();
    assert_eq!(written.companions.len(), 1 + 9 + 1);
    let objects: Vec<_> = written.companions.iter().map(|path| open_file(path).unwrap()).collect();
    let mut series: Vec<String> = objects.iter().map(|o| text(o, tags::SERIES_INSTANCE_UID)).collect();
    series.push(written.series_instance.as_str().to_owned());
    series.sort();
    series.dedup();
    assert_eq!(series.len(), 4, "each in a series of its own");
    assert!(text(&objects[0], tags::IMAGE_TYPE).ends_with("LOCALIZER"));
    assert_eq!(text(&objects[1], tags::CONVOLUTION_KERNEL), "BONEPLUS");
    assert_eq!(text(&objects[10], tags::SOP_CLASS_UID), uids::SECONDARY_CAPTURE_IMAGE_STORAGE);
    for object in &objects {
        assert_eq!(text(object, tags::STUDY_INSTANCE_UID), written.study_instance.as_str());
    }
    let scout = stored(&objects[0]);
    assert!(scout.iter().max().unwrap() - scout.iter().min().unwrap() > 500, "the localizer shows something");
}

#[test]
fn the_truth_beside_the_files_is_the_truth() {
    let dir = tempfile::tempdir().unwrap();
    let what = WriteOptions { truth: true, companions: Companions::default() };
    let written = write_study_with(61, &options(61), what, dir.path()).unwrap();
    let truth: serde_json::Value =
        serde_json::from_slice(&std::fs::read(written.truth.as_ref().unwrap()).unwrap()).unwrap();
    assert_eq!(truth["study_instance"], written.study_instance.as_str());
    assert_eq!(truth["seed"], 61);
    assert!((truth["truth_ml"].as_f64().unwrap() - written.truth_ml()).abs() < 1e-9);
    let npy = std::fs::read(dir.path().join("truth-bleed.npy")).unwrap();
    let masks = &npy[npy.len() - 9 * 80 * 80..];
    assert_eq!((npy.len() - masks.len()) % 64, 0);
    let mut volume = 0.0;
    for (index, slice) in written.slices.iter().enumerate() {
        let mask = &masks[index * 6400..(index + 1) * 6400];
        assert_eq!(mask, slice.bleed);
        let entry = &truth["slices"][index];
        assert_eq!(entry["positive"], mask.iter().any(|m| *m != 0));
        assert_eq!(entry["sop_instance"], slice.sop_instance.as_str());
        volume += entry["bleed_pixels"].as_f64().unwrap() * entry["voxel_ml"].as_f64().unwrap();
    }
    assert!((volume - written.truth_ml()).abs() < 1e-9);
}

#[test]
fn dciodvfy_finds_no_error() {
    if Command::new("dciodvfy").arg("-version").output().is_err() {
        println!("skipped: dciodvfy (dicom3tools) is not installed");
        return;
    }
    let mut checked = 0;
    for (seed, padding, storage) in [
        (71, Padding::None, Storage::Signed16),
        (72, Padding::Declared, Storage::Signed16),
        (73, Padding::Undeclared, Storage::Signed16),
        (74, Padding::None, Storage::Unsigned12),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = PhantomOptions { padding, storage, ..options(seed).with_slices(2) };
        let what = WriteOptions { truth: false, companions: Companions::all() };
        let written = write_study_with(seed, &options, what, dir.path()).unwrap();
        for path in written.files.iter().chain(&written.companions) {
            let output = Command::new("dciodvfy").arg("-new").arg(path).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("Image"), "dciodvfy did not name the IOD of {}: {said}", path.display());
            assert!(!said.contains("Error"), "{}: {said}", path.display());
            checked += 1;
        }
    }
    assert_eq!(checked, 4 * (2 + 1 + 2 + 1));
}

#[test]
fn an_unwritable_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("occupied");
    std::fs::write(&file, b"x").unwrap();
    let error = write_study(1, &options(1), &file).unwrap_err().to_string();
    assert!(error.contains("occupied"), "{error}");
}
