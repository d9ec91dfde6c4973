//! Which series is chosen, and that every other one gets its reason.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::path::Path;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use ichor_ct::header::InstanceHeader;
use ichor_ct::series::{GateOptions, SeriesChoice, choose_series_by_attributes};
use support::CtFile;
use tempfile::TempDir;

/// Twenty slices, 5 mm apart, each changed by `change`.
fn series(folder: &Path, uid: &str, change: impl Fn(CtFile, usize) -> CtFile) -> Vec<InstanceHeader> {
    (0..20)
        .map(|n| {
            let file = change(CtFile::new(uid, n + 1, n as f64 * 5.0, 8, 1064), n);
            InstanceHeader::read(&file.save(folder, &format!("{uid}-{n}.dcm"))).unwrap()
        })
        .collect()
}

fn choose(headers: Vec<InstanceHeader>) -> SeriesChoice {
    choose_series_by_attributes(headers, &GateOptions::default())
}

/// The codes of a series' reasons.
fn codes<'a>(choice: &'a SeriesChoice, uid: &str) -> Vec<&'a str> {
    let outcome = choice.outcomes.iter().find(|o| o.series_instance.as_str() == uid).unwrap();
    outcome.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

#[test]
fn one_reason_to_set_a_series_aside_each() {
    type Change = fn(CtFile, usize) -> CtFile;
    let cases: [(&str, &str, Change); 20] = [
        ("1.13", "not-ct", |f, _| f.with(tags::MODALITY, VR::CS, "MR")),
        ("1.1", "localizer", |f, _| f.with(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER")),
        ("1.2", "reformatted", |f, _| f.with(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY\\REFORMATTED\\MIP")),
        ("1.19", "bone-kernel", |f, _| f.with(tags::CONVOLUTION_KERNEL, VR::SH, "I70f")),
        ("1.20", "not-head", |f, _| f.with(tags::BODY_PART_EXAMINED, VR::CS, "HALS")),
        ("1.3", "bone-kernel", |f, _| f.with(tags::CONVOLUTION_KERNEL, VR::SH, "BONEPLUS")),
        ("1.4", "contrast", |f, _| f.with(tags::CONTRAST_BOLUS_AGENT, VR::LO, "OMNIPAQUE")),
        ("1.5", "not-head", |f, _| f.with(tags::BODY_PART_EXAMINED, VR::CS, "CHEST")),
        ("1.6", "not-ct", |f, _| f.with(tags::SOP_CLASS_UID, VR::UI, uids::MR_IMAGE_STORAGE)),
        ("1.7", "enhanced-ct", |f, _| f.with(tags::SOP_CLASS_UID, VR::UI, uids::ENHANCED_CT_IMAGE_STORAGE)),
        ("1.8", "not-axial", |f, _| f.with(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\0\\-1")),
        ("1.9", "orientation-singular", |f, _| f.with(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "0\\0\\0\\0\\0\\0")),
        ("1.10", "attribute-missing", |f, _| f.without(tags::IMAGE_ORIENTATION_PATIENT)),
        ("1.11", "spacing-not-positive", |f, _| f.with(tags::PIXEL_SPACING, VR::DS, "0.5\\-0.5")),
        ("1.14", "not-hounsfield", |f, _| f.with(tags::RESCALE_TYPE, VR::LO, "Z_EFF")),
        ("1.15", "attribute-missing", |f, _| f.without(tags::RESCALE_SLOPE)),
        ("1.16", "attribute-missing", |f, _| f.without(tags::RESCALE_INTERCEPT)),
        ("1.17", "contrast", |f, _| f.with(tags::CONTRAST_BOLUS_AGENT, VR::LO, "Non-ionic")),
        ("1.18", "contrast", |f, _| f.with(tags::SERIES_DESCRIPTION, VR::LO, "CTA Head/Neck 0.6")),
        ("1.12", "spacing-not-positive", |f, _| f.with(tags::PIXEL_SPACING, VR::DS, "0\\0")),
    ];
    for (uid, code, change) in cases {
        let folder = TempDir::new().unwrap();
        let choice = choose(series(folder.path(), uid, change));
        assert!(choice.chosen.is_none(), "{uid} {code}");
        assert!(codes(&choice, uid).contains(&code), "{uid}: {:?} lacks {code}", codes(&choice, uid));
    }
}

#[test]
fn missing_attributes_exclude_nothing() {
    let folder = TempDir::new().unwrap();
    let bare = |f: CtFile, _| f.without(tags::IMAGE_TYPE).without(tags::INSTANCE_NUMBER).without(tags::SLICE_THICKNESS);
    let choice = choose(series(folder.path(), "1.1", bare));
    assert_eq!(choice.chosen.unwrap().1.slices.len(), 20);
}

#[test]
fn gantry_tilt_is_axial() {
    let folder = TempDir::new().unwrap();
    let tilted = |f: CtFile, _| f.with(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\0.866025\\-0.5");
    let choice = choose(series(folder.path(), "1.1", tilted));
    let (_, stack) = choice.chosen.unwrap();
    // Slices 5 mm apart along the table are 5·cos 30° apart along their normal.
    assert!((stack.slices[1].offset_mm - 5.0 * 0.866_025).abs() < 1e-4, "{}", stack.slices[1].offset_mm);
}

#[test]
fn one_slice_is_too_few_and_says_so() {
    let folder = TempDir::new().unwrap();
    let choice = choose(series(folder.path(), "1.1", |f, _| f).into_iter().take(1).collect());
    assert!(choice.chosen.is_none());
    assert_eq!(codes(&choice, "1.1"), ["too-few-slices", "coverage-too-small"]);
}

#[test]
fn duplicate_positions_keep_the_first_and_name_the_others() {
    let folder = TempDir::new().unwrap();
    let twice = |f: CtFile, n: usize| {
        let z = (n / 2) as f64 * 5.0;
        f.with(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("-100\\-100\\{z}"))
    };
    let options = GateOptions { min_slices: 5, min_coverage_mm: 40.0, ..GateOptions::default() };
    let choice = choose_series_by_attributes(series(folder.path(), "1.1", twice), &options);
    let (_, stack) = choice.chosen.as_ref().unwrap();
    let kept: Vec<&str> = stack.slices.iter().map(|slice| slice.header.sop_instance.as_str()).collect();
    assert_eq!(kept, (0..10).map(|n| format!("1.1.{}", 2 * n + 1)).collect::<Vec<_>>());
    assert_eq!(codes(&choice, "1.1").iter().filter(|code| **code == "duplicate-position").count(), 10);
}

#[test]
fn odd_ones_out_are_named_and_the_rest_goes_on() {
    let folder = TempDir::new().unwrap();
    let mixed = |f: CtFile, n: usize| match n {
        3 => f.with(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "0\\1\\0\\0\\0\\-1"),
        4 => f.with(tags::IMAGE_POSITION_PATIENT, VR::DS, "a\\b\\c"),
        _ => f,
    };
    let choice = choose(series(folder.path(), "1.1", mixed));
    assert_eq!(choice.chosen.as_ref().unwrap().1.slices.len(), 18);
    let codes = codes(&choice, "1.1");
    assert!(codes.contains(&"other-geometry") && codes.contains(&"attribute-invalid"), "{codes:?}");
}

#[test]
fn of_two_series_the_one_that_covers_more_is_taken_and_the_other_is_told_why() {
    let folder = TempDir::new().unwrap();
    let mut headers = series(folder.path(), "1.1", |f, n| {
        f.with(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("-100\\-100\\{}", n as f64 * 4.5))
    });
    headers.extend(series(folder.path(), "1.2", |f, _| f));
    let choice = choose(headers);
    assert_eq!(choice.chosen.as_ref().unwrap().0.as_str(), "1.2");
    assert_eq!(codes(&choice, "1.1"), ["other-series-preferred"]);
    let reason = &choice.outcomes.iter().find(|o| !o.chosen).unwrap().reasons[0];
    assert!(reason.text.contains("because it is of the whole head"), "{reason}");
    assert_eq!(choice.outcomes.len(), 2);
}

#[test]
fn a_series_without_hounsfield_units_is_not_preferred_and_a_single_slice_stays_to_be_named() {
    let folder = TempDir::new().unwrap();
    let mut headers = series(folder.path(), "1.1", |f, n| {
        let z = format!("-100\\-100\\{}", n as f64 * 7.0);
        f.with(tags::IMAGE_POSITION_PATIENT, VR::DS, &z).without(tags::RESCALE_SLOPE)
    });
    headers.extend(series(folder.path(), "1.2", |f, n| if n == 3 { f.without(tags::RESCALE_SLOPE) } else { f }));
    let choice = choose(headers);
    let (chosen, stack) = choice.chosen.as_ref().unwrap();
    assert_eq!((chosen.as_str(), stack.slices.len()), ("1.2", 20));
    assert_eq!(codes(&choice, "1.1"), ["attribute-missing"]);
}

/// One series of `count` slices, `step` mm apart, changed by `change`; the files of one study lie in one folder.
fn stretched(folder: &Path, uid: &str, count: usize, step: f64, change: fn(CtFile) -> CtFile) -> Vec<InstanceHeader> {
    (0..count)
        .map(|n| {
            let file = CtFile::new(uid, n + 1, n as f64 * step, 8, 1064).with(tags::SLICE_THICKNESS, VR::DS, "1");
            InstanceHeader::read(&change(file).save(folder, &format!("{uid}-{n}.dcm"))).unwrap()
        })
        .collect()
}

/// A Series Description.
fn named(file: CtFile, description: &str) -> CtFile {
    file.with(tags::SERIES_DESCRIPTION, VR::LO, description)
}

#[test]
fn no_agent_in_any_wording_excludes_nothing() {
    for agent in ["NO CONTRAST", "without", "N/A", "ohne KM", "-", "0"] {
        let folder = TempDir::new().unwrap();
        let choice = choose(series(folder.path(), "1.1", |f, _| f.with(tags::CONTRAST_BOLUS_AGENT, VR::LO, agent)));
        assert!(choice.chosen.is_some(), "{agent}: {:?}", choice.outcomes);
    }
}

#[test]
fn the_head_is_preferred_to_what_covers_more_of_something_else() {
    type Change = fn(CtFile) -> CtFile;
    // What the head (1.1, 150 mm in steps of 5) has to compete with: slices, their distance, what they say.
    let others: [(&str, usize, f64, Change); 11] = [
        ("neck", 44, 5.0, |f| named(f, "Neck 5.0")),
        ("head and neck without a word", 60, 5.0, |f| f),
        ("body", 100, 10.0, |f| named(f, "Thorax/Abdomen")),
        ("angiography", 50, 5.0, |f| named(f, "CTA Head Neck")),
        ("post contrast", 36, 5.0, |f| named(f, "Head post contrast")),
        ("+C", 36, 5.0, |f| named(f, "HEAD +C")),
        ("mit KM", 36, 5.0, |f| named(f, "Schädel mit KM").with(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192")),
        ("perfusion", 36, 5.0, |f| named(f, "PERFUSION")),
        ("cervical spine", 36, 5.0, |f| named(f, "C-Spine 2.0")),
        ("a longer head in other steps", 40, 4.5, |f| f),
        ("bone", 31, 5.0, |f| named(f, "Head bone")),
    ];
    for (name, count, step, change) in others {
        let folder = TempDir::new().unwrap();
        let mut headers = stretched(folder.path(), "1.1", 31, 5.0, |f| named(f, "Head without contrast"));
        headers.extend(stretched(folder.path(), "1.0", count, step, change));
        let choice = choose(headers);
        // A head that is longer than 160 mm counts as 160 mm, more than 150 mm.
        let expected = if name == "a longer head in other steps" { "1.0" } else { "1.1" };
        assert_eq!(choice.chosen.as_ref().unwrap().0.as_str(), expected, "{name}: {:?}", choice.outcomes);
    }
}

#[test]
fn views_of_a_volume_are_set_aside() {
    for kind in ["MPR\\MIP", "CT_SOM5 MIP", "REFORMATTED\\MINIP", "MIN_IP", "PROJECTION IMAGE", "CSA 3D EDITOR", "VRT"]
    {
        let folder = TempDir::new().unwrap();
        let kind = format!("DERIVED\\SECONDARY\\{kind}");
        let choice = choose(series(folder.path(), "1.1", |f, _| f.with(tags::IMAGE_TYPE, VR::CS, &kind)));
        assert!(choice.chosen.is_none(), "{kind}");
        assert_eq!(codes(&choice, "1.1"), ["reformatted"], "{kind}");
    }
}

#[test]
fn axial_sections_that_were_reformatted_are_taken_if_there_is_no_whole_original() {
    for kind in ["REFORMATTED\\AVERAGE", "MPR", "CT_SOM5 MPR", "MPR\\CSA MPR\\CSAPARALLEL"] {
        let folder = TempDir::new().unwrap();
        let kind = format!("DERIVED\\SECONDARY\\{kind}");
        // Slices of the original, 5 mm apart, and whether it is preferred to 150 mm of the reformatted ones.
        for (count, preferred) in [(0, false), (17, false), (26, true)] {
            let reformatted = series(folder.path(), "1.0", |f, n| {
                let z = format!("-100\\-100\\{}", n as f64 * 7.5);
                f.with(tags::IMAGE_POSITION_PATIENT, VR::DS, &z).with(tags::IMAGE_TYPE, VR::CS, &kind)
            });
            let original = stretched(folder.path(), "1.1", count, 5.0, |f| f);
            let choice = choose(original.into_iter().chain(reformatted).collect());
            let expected = if preferred { "1.1" } else { "1.0" };
            assert_eq!(choice.chosen.unwrap().0.as_str(), expected, "{kind} against {count} original slices");
        }
    }
}

#[test]
fn three_dimensional_scans_are_no_views() {
    let folder = TempDir::new().unwrap();
    let scan = |f: CtFile, _| f.with(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL\\3D");
    assert!(choose(series(folder.path(), "1.1", scan)).chosen.is_some());
}

#[test]
fn beyond_a_head_more_coverage_is_not_better() {
    let folder = TempDir::new().unwrap();
    let mut headers = stretched(folder.path(), "1.0", 84, 3.0, |f| f);
    headers.extend(stretched(folder.path(), "1.1", 33, 5.0, |f| f));
    assert_eq!(choose(headers).chosen.unwrap().0.as_str(), "1.1");
}

#[test]
fn a_doubtful_series_is_taken_if_there_is_no_other_and_says_so() {
    let folder = TempDir::new().unwrap();
    let choice = choose(stretched(folder.path(), "1.1", 60, 5.0, |f| named(f, "Head and neck")));
    assert!(choice.chosen.is_some());
    let text = &choice.outcomes[0].reasons[0].text;
    assert!(text.contains("covers more than a head") && text.contains("names more than the head"), "{text}");
}

#[test]
fn positions_closer_than_rounding_upset_no_order() {
    let folder = TempDir::new().unwrap();
    let header = series(folder.path(), "1.1", |f, _| f).remove(0);
    // 2,000 positions within a few thousandths of a millimetre, in an order without any pattern.
    let headers = (0..2000u64).map(|n| {
        let mut header = header.clone();
        let scattered = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
        header.sop_instance = format!("1.1.{n}").parse().unwrap();
        header.instance_number = Some(n as f64);
        header.plane.as_mut().unwrap().position[2] = scattered as f64 * 6e-10;
        header
    });
    let stack = ichor_ct::volume::Stack::new(headers.collect());
    assert_eq!(stack.slices.len() + stack.left_out.len(), 2000);
    assert!(stack.slices.windows(2).all(|pair| pair[1].offset_mm > pair[0].offset_mm));
}
