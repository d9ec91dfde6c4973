//! Every rule of the gate: what breaks it, what keeps it, and that each series carries the outcome of all of them.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::convert::Infallible;
use std::path::Path;

use dicom_core::VR;
use dicom_dictionary_std::tags;
use ichor_core::{RuleOutcome, RuleVerdict};
use ichor_ct::gate::{GateOptions, GateRule};
use ichor_ct::header::InstanceHeader;
use ichor_ct::series::{SeriesChoice, SeriesOutcome, choose_series, choose_series_by_attributes, place};
use ichor_ct::volume::{PlacedSlice, Slice, read_slice};
use ichor_phantom::{PhantomOptions, write_study};
use support::CtFile;
use tempfile::TempDir;

/// Slices at the given heights, each changed by `change`.
fn at(folder: &Path, uid: &str, heights: &[f64], change: impl Fn(CtFile) -> CtFile) -> Vec<InstanceHeader> {
    let write = |(n, z): (usize, &f64)| {
        let file = change(CtFile::new(uid, n + 1, *z, 8, 1064));
        InstanceHeader::read(&file.save(folder, &format!("{uid}-{n}.dcm"))).unwrap()
    };
    heights.iter().enumerate().map(write).collect()
}

fn even(count: usize, step: f64) -> Vec<f64> {
    (0..count).map(|n| n as f64 * step).collect()
}

/// The outcome of one series that was changed.
fn outcome(heights: &[f64], options: &GateOptions, change: impl Fn(CtFile) -> CtFile) -> SeriesOutcome {
    let folder = TempDir::new().unwrap();
    let headers = at(folder.path(), "1.1", heights, change);
    choose_series_by_attributes(headers, options).outcomes.remove(0)
}

fn rule<'a>(outcome: &'a SeriesOutcome, name: &str) -> &'a RuleOutcome {
    outcome.rules.iter().find(|rule| rule.rule == name).unwrap()
}

fn failed(outcome: &SeriesOutcome) -> Vec<&str> {
    let failed = outcome.rules.iter().filter(|rule| rule.verdict == RuleVerdict::Failed);
    failed.map(|rule| rule.rule.as_str()).collect()
}

#[test]
fn each_rule_is_broken_by_its_own_case_and_by_no_other() {
    let (head, tall) = (even(20, 5.0), even(30, 5.0));
    let gap: Vec<f64> = (0..30).filter(|n| !(10..13).contains(n)).map(|n| f64::from(n) * 5.0).collect();
    type Change = fn(CtFile) -> CtFile;
    let cases: [(&str, &[f64], Change); 20] = [
        ("not-phantom", &head, |f| f.with(tags::PATIENT_NAME, VR::PN, "Wasserphantom^20cm")),
        ("not-phantom", &head, |f| f.with(tags::PATIENT_ID, VR::LO, "PHANTOM")),
        ("not-phantom", &head, |f| f.with(tags::STUDY_DESCRIPTION, VR::LO, "Daily QA")),
        ("not-phantom", &head, |f| f.with(tags::PROTOCOL_NAME, VR::LO, "Konstanzprüfung").utf8()),
        ("not-phantom", &head, |f| f.with(tags::SERIES_DESCRIPTION, VR::LO, "Catphan600")),
        ("adult", &head, |f| f.with(tags::PATIENT_AGE, VR::AS, "017Y")),
        ("adult", &head, |f| f.with(tags::PATIENT_AGE, VR::AS, "200M")),
        ("adult", &head, |f| {
            f.with(tags::PATIENT_BIRTH_DATE, VR::DA, "20100203").with(tags::STUDY_DATE, VR::DA, "20250101")
        }),
        ("head", &head, |f| f.with(tags::BODY_PART_EXAMINED, VR::CS, "CHEST")),
        ("non-contrast", &head, |f| f.with(tags::CONTRAST_BOLUS_AGENT, VR::LO, "OMNIPAQUE")),
        ("soft-tissue-kernel", &head, |f| f.with(tags::CONVOLUTION_KERNEL, VR::SH, "H70h")),
        ("hounsfield", &head, |f| f.without(tags::RESCALE_SLOPE)),
        ("hounsfield", &head, CtFile::with_modality_lut),
        ("section", &head, |f| f.with(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\LOCALIZER")),
        ("axial", &tall, |f| f.with(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\0.766\\0.6428")),
        ("slices", &[0.0, 7.5, 15.0, 22.5, 30.0, 37.5, 45.0, 52.5, 60.0], |f| {
            f.with(tags::SLICE_THICKNESS, VR::DS, "40")
        }),
        ("coverage", &[0.0, 3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 21.0, 24.0, 27.0], |f| f),
        ("spacing", &[0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0], |f| f),
        ("gaps", &gap, |f| f),
        ("ct", &head, |f| f.with(tags::MODALITY, VR::CS, "PT")),
    ];
    for (name, heights, change) in cases {
        let outcome = outcome(heights, &GateOptions::default(), change);
        assert_eq!(failed(&outcome), [name], "{:#?}", outcome.rules);
        let asked: Vec<&str> = outcome.rules.iter().map(|rule| rule.rule.as_str()).collect();
        assert_eq!(asked, GateRule::ALL.map(GateRule::name), "{name}");
        let text = &rule(&outcome, name).text;
        assert!(outcome.reasons[0].text == *text && !text.is_empty(), "{name}: {text} {:?}", outcome.reasons);
    }
}

#[test]
fn a_plain_head_keeps_every_rule_and_says_how() {
    let outcome = outcome(&even(20, 5.0), &GateOptions::default(), |f| {
        f.with(tags::PATIENT_AGE, VR::AS, "063Y").with(tags::CONVOLUTION_KERNEL, VR::SH, "H31s")
    });
    assert!(outcome.chosen);
    assert!(outcome.rules.iter().all(|rule| rule.verdict == RuleVerdict::Passed), "{:#?}", outcome.rules);
    assert!(rule(&outcome, "spacing").text.contains("5.00 mm") && rule(&outcome, "slices").text.contains("20"));
    // The patient's age is nobody's business here.
    assert!(!rule(&outcome, "adult").text.contains("63"));
}

#[test]
fn what_is_not_known_sets_nothing_aside() {
    let outcome = outcome(&even(20, 5.0), &GateOptions::default(), |f| {
        let bare = [tags::BODY_PART_EXAMINED, tags::IMAGE_TYPE, tags::INSTANCE_NUMBER];
        bare.into_iter().fold(f, CtFile::without).with(tags::PATIENT_AGE, VR::AS, "000Y")
    });
    assert!(outcome.chosen, "{:?}", outcome.reasons);
    for name in ["adult", "head", "soft-tissue-kernel", "section"] {
        assert_eq!(rule(&outcome, name).verdict, RuleVerdict::Unknown, "{name}");
    }
}

#[test]
fn the_head_is_named_in_many_places_and_languages() {
    for (tag, vr, text) in [
        (tags::BODY_PART_EXAMINED, VR::CS, "SCHAEDEL"),
        (tags::SERIES_DESCRIPTION, VR::LO, "Cráneo simple 5.0"),
        (tags::PROTOCOL_NAME, VR::LO, "01_KopfRoutine Kopf"),
        (tags::STUDY_DESCRIPTION, VR::LO, "TC ENCEFALO SENZA MDC"),
    ] {
        let outcome = outcome(&even(20, 5.0), &GateOptions::default(), |f| {
            f.without(tags::BODY_PART_EXAMINED).with(tag, vr, text).utf8()
        });
        assert_eq!(rule(&outcome, "head").verdict, RuleVerdict::Passed, "{text}");
    }
}

#[test]
fn spacing_that_changes_on_the_way_is_no_gap_and_a_gap_is_none_where_it_is_small() {
    let two: Vec<f64> = even(16, 1.25).into_iter().chain((1..=16).map(|n| 18.75 + f64::from(n) * 5.0)).collect();
    let missing = |n: usize| -> Vec<f64> {
        even(30, 5.0).into_iter().filter(|z| !(50.0..50.0 + 5.0 * n as f64).contains(z)).collect()
    };
    for (heights, expected) in [(two, 0), (missing(1), 1), (missing(2), 2), (missing(3), 3)] {
        let outcome = outcome(&heights, &GateOptions::default(), |f| f);
        let rule = rule(&outcome, "gaps");
        assert_eq!(rule.verdict == RuleVerdict::Failed, expected > 2, "{}", rule.text);
        let said =
            if expected == 0 { "no slice is missing".to_owned() } else { format!("{expected} slices are missing") };
        assert!(rule.text.starts_with(&said), "{}", rule.text);
    }
}

#[test]
fn rules_are_settings() {
    let child = |f: CtFile| f.with(tags::PATIENT_AGE, VR::AS, "010Y");
    let heights = even(20, 5.0);
    let options = GateOptions::default();
    for (options, chosen) in [
        (options, false),
        (GateOptions { min_age_years: 10.0, ..options }, true),
        (GateOptions { off: [GateRule::Adult].into_iter().collect(), ..options }, true),
        (GateOptions { min_age_years: 0.0, min_coverage_mm: 120.0, ..options }, false),
        (GateOptions { min_age_years: 0.0, max_spacing_mm: 4.0, ..options }, false),
        (GateOptions { min_age_years: 0.0, min_slices: 21, ..options }, false),
    ] {
        assert_eq!(outcome(&heights, &options, child).chosen, chosen, "{options:?}");
    }
    let off = GateOptions { off: [GateRule::Adult].into_iter().collect(), ..options };
    assert_eq!(rule(&outcome(&heights, &off, child), "adult").verdict, RuleVerdict::NotAsked);
    // A single slice that arrives is asked the same, as far as it can answer.
    let folder = TempDir::new().unwrap();
    let header = at(folder.path(), "1.1", &[0.0], child).remove(0);
    assert_eq!(place(header.clone(), &options).unwrap_err().code.as_str(), "not-adult");
    assert!(place(header, &off).is_ok());
}

#[test]
fn instances_that_break_a_rule_are_counted_and_the_others_go_on() {
    let folder = TempDir::new().unwrap();
    let mut headers = at(folder.path(), "1.1", &even(20, 5.0), |f| f);
    headers.iter_mut().skip(18).for_each(|header| header.image_type = vec!["LOCALIZER".to_owned()]);
    let outcome = choose_series_by_attributes(headers, &GateOptions::default()).outcomes.remove(0);
    assert!(outcome.chosen);
    assert_eq!(rule(&outcome, "section").text, "sections; 2 instances do not keep the rule");
    assert!(outcome.reasons.iter().any(|r| r.code.as_str() == "localizer" && r.text.starts_with("2 instances: ")));
}

#[test]
fn one_wrong_position_costs_its_slice_and_no_other() {
    for wrong in [&[4000.0][..], &[-300.0], &[-300.0, 900.0]] {
        let heights: Vec<f64> = even(24, 5.0).into_iter().chain(wrong.iter().copied()).collect();
        let outcome = outcome(&heights, &GateOptions::default(), |f| f);
        assert!(outcome.chosen, "{:?}", outcome.reasons);
        let strays = outcome.reasons.iter().filter(|reason| reason.code.as_str() == "stray-position").count();
        assert_eq!(strays, wrong.len());
        assert!(rule(&outcome, "slices").text.starts_with("24 "));
    }
    // A part of the head that lies apart is no stray.
    let two: Vec<f64> = even(15, 5.0).into_iter().chain(even(15, 5.0).into_iter().map(|z| z + 200.0)).collect();
    assert_eq!(failed(&outcome(&two, &GateOptions::default(), |f| f)), ["gaps"]);
}

#[test]
fn positions_of_another_frame_of_reference_do_not_count() {
    let folder = TempDir::new().unwrap();
    let mut headers = at(folder.path(), "1.1", &even(24, 5.0), |f| f.with(tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.5"));
    for header in headers.iter_mut().skip(21) {
        header.frame_of_reference = Some("1.6".parse().unwrap());
    }
    let choice = choose_series_by_attributes(headers, &GateOptions::default());
    assert_eq!(choice.chosen.unwrap().1.slices.len(), 21);
    let said = &choice.outcomes[0].reasons;
    assert_eq!(said.iter().filter(|reason| reason.code.as_str() == "other-geometry").count(), 3, "{said:?}");
}

/// Chooses with the pixels at hand; how many slices were read comes last.
fn choose_by_sight(headers: Vec<InstanceHeader>) -> (SeriesChoice, usize) {
    let mut reads = 0;
    let read = |placed: &PlacedSlice| -> Result<Option<Slice>, Infallible> {
        reads += 1;
        Ok(read_slice(&placed.header.path).ok())
    };
    let choice = choose_series(headers, &GateOptions::default(), read).unwrap();
    (choice, reads)
}

/// A phantom's headers, with another Body Part Examined and no description that names the head.
fn phantom(seed: u64, part: Option<&str>) -> (TempDir, Vec<InstanceHeader>) {
    let folder = TempDir::new().unwrap();
    let options = PhantomOptions::random(seed, None).with_matrix(256).with_slices(24);
    let study = write_study(seed, &options, folder.path()).unwrap();
    let header = |slice: &ichor_phantom::WrittenSlice| {
        let mut header = InstanceHeader::read(&slice.path).unwrap();
        header.body_part = part.map(str::to_owned);
        (header.series_description, header.study_description, header.protocol) = (None, None, None);
        header
    };
    let headers = study.slices.iter().map(header).collect();
    (folder, headers)
}

#[test]
fn a_skull_with_a_brain_in_it_is_a_head_whatever_the_attributes_say() {
    for (seed, part) in [(1, None), (2, Some("")), (3, Some("CHEST")), (4, Some("GŁOWA")), (5, Some("ABDOMEN"))] {
        let (_folder, headers) = phantom(seed, part);
        let (choice, reads) = choose_by_sight(headers);
        let rule = rule(&choice.outcomes[0], "head");
        assert!(choice.chosen.is_some(), "seed {seed}, {part:?}: {}", rule.text);
        assert!(reads == 9 && rule.verdict == RuleVerdict::Passed && rule.text.contains("a skull"), "{}", rule.text);
        assert_eq!(rule.attributes.last().unwrap(), "PixelData");
    }
}

#[test]
fn without_a_skull_or_without_a_brain_it_is_no_head() {
    // A full matrix of soft tissue; rings of bone around air, around fat, and of the size of a limb and of a trunk.
    let ring = |inner: f64, inside: i16| {
        move |r: f64| match r {
            r if r < inner => inside,
            r if r < inner + 6.0 => 900,
            r if r < inner + 12.0 => 30,
            _ => -1000,
        }
    };
    type Picture = Box<dyn Fn(f64) -> i16>;
    let pictures: [(&str, Picture, bool); 6] = [
        ("water", Box::new(|r| if r < 90.0 { 0 } else { -1000 }), false),
        ("air in a ring", Box::new(ring(70.0, -1000)), false),
        ("fat in a ring", Box::new(ring(70.0, -100)), false),
        ("a limb", Box::new(ring(18.0, 30)), false),
        ("a ring too large", Box::new(ring(110.0, 40)), false),
        ("a brain", Box::new(ring(70.0, 35)), true),
    ];
    for (name, hu, is_head) in pictures {
        let folder = TempDir::new().unwrap();
        let side = 256u16;
        let stored: Vec<i16> = (0..i32::from(side) * i32::from(side))
            .map(|at| {
                let (row, column) = (f64::from(at / 256) - 127.5, f64::from(at % 256) - 127.5);
                hu((row * row + column * column).sqrt()) + 1024
            })
            .collect();
        let headers: Vec<InstanceHeader> = (0..20)
            .map(|n| {
                let file = CtFile::new("1.1", n + 1, n as f64 * 5.0, side, 0);
                let mut file = file.without(tags::BODY_PART_EXAMINED).with(tags::PIXEL_SPACING, VR::DS, "1\\1");
                file.pixels(&stored);
                InstanceHeader::read(&file.save(folder.path(), &format!("{n}.dcm"))).unwrap()
            })
            .collect();
        let (choice, _) = choose_by_sight(headers);
        let outcome = &choice.outcomes[0];
        assert_eq!(choice.chosen.is_some(), is_head, "{name}: {}", rule(outcome, "head").text);
        if !is_head {
            assert_eq!(outcome.reasons[0].code.as_str(), "not-head", "{name}");
        }
    }
}

#[test]
fn pixels_are_looked_at_only_where_nothing_else_decides() {
    let folder = TempDir::new().unwrap();
    let named = at(folder.path(), "1.1", &even(20, 5.0), |f| f);
    assert_eq!(choose_by_sight(named).1, 0, "an attribute names the head");
    let short = at(folder.path(), "1.2", &even(5, 5.0), |f| f.without(tags::BODY_PART_EXAMINED));
    assert_eq!(choose_by_sight(short).1, 0, "it is too short anyhow");
    let unreadable = choose_series(
        at(folder.path(), "1.3", &even(20, 5.0), |f| f.without(tags::BODY_PART_EXAMINED)),
        &GateOptions::default(),
        |_| Ok::<_, Infallible>(None),
    );
    let choice = unreadable.unwrap();
    assert!(choice.chosen.is_some(), "what cannot be read is named by its analysis");
    assert_eq!(rule(&choice.outcomes[0], "head").verdict, RuleVerdict::Unknown);
    let error = choose_series(
        at(folder.path(), "1.4", &even(20, 5.0), |f| f.without(tags::BODY_PART_EXAMINED)),
        &GateOptions::default(),
        |_| Err("no decoder"),
    );
    assert_eq!(error.unwrap_err(), "no decoder");
}

#[test]
fn of_equals_the_choice_says_what_decided() {
    type Change = fn(CtFile) -> CtFile;
    let same: Change = |f| f;
    let number: fn(CtFile, &str) -> CtFile = |f, n| f.with(tags::SERIES_NUMBER, VR::IS, n);
    let cases: [(&str, usize, f64, Change, usize, f64, Change); 6] = [
        ("its slices lie nearer to 5 mm apart", 31, 5.0, same, 250, 0.625, same),
        ("it is not for bone", 31, 5.0, same, 31, 5.0, |f| f.with(tags::SERIES_DESCRIPTION, VR::LO, "Head bone")),
        (
            "it was scanned later",
            31,
            5.0,
            |f| f.with(tags::ACQUISITION_DATE, VR::DA, "20250301").with(tags::ACQUISITION_TIME, VR::TM, "101500"),
            31,
            5.0,
            |f| f.with(tags::ACQUISITION_DATE, VR::DA, "20250301").with(tags::ACQUISITION_TIME, VR::TM, "101000"),
        ),
        ("its UID is lower", 31, 5.0, same, 31, 5.0, same),
        ("less speaks against it", 31, 5.0, same, 31, 5.0, |f| f.with(tags::SERIES_DESCRIPTION, VR::LO, "Head +C")),
        ("it covers more of the head", 31, 5.0, same, 25, 5.0, same),
    ];
    for (why, count, step, change, other_count, other_step, other_change) in cases {
        let folder = TempDir::new().unwrap();
        let mut headers = at(folder.path(), "1.1", &even(count, step), change);
        headers.extend(at(folder.path(), "1.2", &even(other_count, other_step), other_change));
        let choice = choose_series_by_attributes(headers, &GateOptions::default());
        assert_eq!(choice.chosen.unwrap().0.as_str(), "1.1", "{why}");
        let other = choice.outcomes.iter().find(|outcome| !outcome.chosen).unwrap();
        assert!(other.reasons[0].text.contains(&format!("because {why}:")), "{}", other.reasons[0]);
    }
    let folder = TempDir::new().unwrap();
    let mut headers = at(folder.path(), "1.1", &even(31, 5.0), |f| number(f, "4"));
    headers.extend(at(folder.path(), "1.2", &even(31, 5.0), |f| number(f, "3")));
    let choice = choose_series_by_attributes(headers, &GateOptions::default());
    assert_eq!(choice.chosen.unwrap().0.as_str(), "1.2");
}
