//! The gate: what it lets through by the look of the pixels, what it sets aside, and that every rule is told.

use dicom_core::VR;
use dicom_dictionary_std::tags;

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::{StoreScu, converted};
use crate::support::seconds;
use crate::support::study::{Phantom, put_text};
use crate::support::tools::requires;

const NAMES: [&str; 15] = [
    "ct",
    "single-frame",
    "section",
    "not-phantom",
    "adult",
    "head",
    "non-contrast",
    "soft-tissue-kernel",
    "hounsfield",
    "geometry",
    "axial",
    "slices",
    "coverage",
    "spacing",
    "gaps",
];

#[test]
fn a_head_that_no_attribute_names_is_seen_through_a_codec() {
    requires!(Dcmtk);
    let daemon = Daemon::start(&Settings::default());
    let study = Phantom::BLEEDING.slices(12).write(&daemon.folder("study"));
    let study = study.edited(&daemon.folder("unnamed"), |_, object| {
        put_text(object, tags::BODY_PART_EXAMINED, VR::CS, "ABDOMEN");
        for tag in [tags::SERIES_DESCRIPTION, tags::STUDY_DESCRIPTION, tags::PROTOCOL_NAME] {
            object.remove_element(tag);
        }
    });
    let study = converted(&study, &daemon.folder("encoded"), "dcmcjpls", &["+el"]);
    StoreScu::to(daemon.port).option("-xt").send(&study).expect_all(12);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(40));
    let shown = daemon.show(&study.study_uid);
    let rules = shown["series"][0]["rules"].as_array().unwrap();
    let names: Vec<&str> = rules.iter().map(|rule| rule["rule"].as_str().unwrap()).collect();
    assert_eq!(names, NAMES);
    let head = &rules[5];
    assert_eq!(head["verdict"], "passed", "{head}");
    assert!(head["text"].as_str().unwrap().contains("a skull with a brain in it"), "{head}");
    assert_eq!(head["attributes"].as_array().unwrap().last().unwrap(), "PixelData");
}

#[test]
fn a_phantom_is_set_aside_and_every_rule_is_told() {
    requires!(Dcmtk);
    let daemon = Daemon::start(&Settings::default());
    let study = Phantom::BLEEDING.slices(12).matrix(128).write(&daemon.folder("study"));
    let study = study.edited(&daemon.folder("phantom"), |_, object| {
        put_text(object, tags::PATIENT_NAME, VR::PN, "Wasserphantom");
        put_text(object, tags::PATIENT_AGE, VR::AS, "003Y");
    });
    StoreScu::to(daemon.port).send(&study).expect_all(12);
    let entry = daemon.wait_for_end(&study.study_uid, seconds(30));
    assert_eq!(entry["status"], "not-analysed", "{entry}");
    assert_eq!(entry["reason"]["code"], "phantom", "{entry}");
    let why = daemon.why(&study.study_uid);
    for name in NAMES {
        let told = |line: &str| line.split_whitespace().nth(1) == Some(name);
        assert!(why.lines().any(told), "{name} is not told: {why}");
    }
    let failed: Vec<&str> = why.lines().filter(|line| line.trim_start().starts_with("failed ")).collect();
    assert_eq!(failed.len(), 2, "the phantom and its age: {failed:?}");
    assert!(!why.to_lowercase().contains("wasserphantom"), "the name of a patient is nobody's business");
}
