//! The main job on a real head: gantry tilt 18.5°, uneven spacing, missing Type 2 attributes, padding.

use std::path::PathBuf;

use crate::main_job::check_segmentation;
use crate::support::daemon::{Daemon, Destination, Settings, repository};
use crate::support::dcmtk::StoreScu;
use crate::support::orthanc::Orthanc;
use crate::support::study::Study;
use crate::support::tools::{requires, skipped};
use crate::support::{seconds, stays};

/// The series' folder, if it is at hand: in `ICHOR_TEST_DATA`, else beside the checkout.
fn head_ct_ge() -> Option<PathBuf> {
    let data = std::env::var_os("ICHOR_TEST_DATA").map_or_else(|| repository("../shared/data"), PathBuf::from);
    let folder = data.join("head-ct-ge");
    if folder.is_dir() {
        return Some(folder);
    }
    skipped(&format!("the real series is not in {}", folder.display()));
    None
}

#[test]
fn real_head_ends_in_a_segmentation_or_a_recorded_negative() {
    requires!(Dcmtk, Orthanc, Dciodvfy, Highdicom);
    let Some(folder) = head_ct_ge() else { return };
    let study = Study::load(&folder);
    assert_eq!(study.instances.len(), 28);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs)]));

    StoreScu::to(daemon.port).send(&study).expect_all(28);
    let entry = daemon.wait_for_end(&study.study_uid, seconds(60));
    assert_eq!(entry["status"], "analysed", "{entry}\n{}", daemon.why(&study.study_uid));
    let probability = entry["probability"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&probability), "{entry}");
    if entry["positive"] == true {
        let segmentation = pacs.wait_for_segmentation(&study.study_uid, seconds(20));
        check_segmentation(&pacs.fetch(&segmentation), &study);
    } else {
        stays(seconds(2), || assert_eq!(pacs.instance_count(), 0));
        assert_eq!(entry["positive"], false, "{entry}");
    }
}
