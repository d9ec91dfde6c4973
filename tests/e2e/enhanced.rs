//! Multi-frame CT, as the series of single-frame images that it was made of: the same probabilities, the same masks, and
//! references that name frames.

use std::path::Path;
use std::process::Command;

use dicom_dictionary_std::{tags, uids};
use dicom_object::open_file;
use serde_json::Value;

use crate::support::chosen::called_positive;
use crate::support::daemon::{Daemon, Destination, Settings, repository};
use crate::support::dcmtk::{StoreScu, dciodvfy_errors};
use crate::support::judge::{Judgement, pydicom_complaints, read_segmentation};
use crate::support::orthanc::Orthanc;
use crate::support::seconds;
use crate::support::study::Study;
use crate::support::tools::{python, requires};

/// Millimetres that positions may be off.
const TOLERANCE: f64 = 0.01;

/// One multi-frame image of a study's slices.
fn multi_frame(study: &Study, kind: &str, folder: &Path) -> Study {
    let script = repository("tests/counterparts/multi_frame.py");
    let to = folder.join("multi-frame.dcm");
    let output = Command::new(python()).arg(script).arg(kind).arg(&study.folder).arg(&to).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Study::load(folder)
}

/// What was said of each slice, along the patient.
fn scores(daemon: &Daemon, study: &Study) -> Vec<(Value, Value)> {
    let entry = daemon.show(&study.study_uid);
    let slices = entry["slices"].as_array().unwrap_or_else(|| panic!("{entry}"));
    slices.iter().map(|slice| (slice["probability"].clone(), slice["masked_pixels"].clone())).collect()
}

/// The place of each frame of a multi-frame image, by the file alone.
fn positions(file: &Path) -> Vec<[f64; 3]> {
    let object = open_file(file).unwrap();
    let groups = object.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap();
    let position = |group: &dicom_object::InMemDicomObject| {
        let plane = &group.element(tags::PLANE_POSITION_SEQUENCE).unwrap().items().unwrap()[0];
        plane.element(tags::IMAGE_POSITION_PATIENT).unwrap().to_multi_float64().unwrap().try_into().unwrap()
    };
    groups.items().unwrap().iter().map(position).collect()
}

/// A segment, and where its frame lies.
type Place = (Option<u32>, [i64; 3]);

/// Frames by segment and place, each with its mask.
fn placed(judgement: &Judgement) -> Vec<(Place, &[u8])> {
    let masks = judgement.masks.chunks_exact(judgement.rows * judgement.columns);
    let place = |position: [f64; 3]| position.map(|mm| (mm / TOLERANCE).round() as i64);
    let mut placed: Vec<_> =
        judgement.frames.iter().zip(masks).map(|(f, mask)| ((f.segment, place(f.position)), mask)).collect();
    placed.sort_unstable();
    placed
}

fn comes_to_the_same(kind: &str, sop_class: &str) {
    let pacs = Orthanc::start();
    // Both in the batches of the analysis: the last digit of a probability hangs on how many slices go through at once, and
    // on arrival they go by twos.
    let analysis = "idle_cores_only = false\nwhile_receiving = false\n".to_owned();
    let daemon = Daemon::start(&Settings { analysis, ..Settings::to([Destination::c_store(&pacs)]) });
    let single = called_positive()[0].write(&daemon.folder("single"));
    let multi = multi_frame(&single.restamped(&daemon.folder("other"), "8"), kind, &daemon.folder("multi"));
    assert_eq!((multi.instances.len(), multi.instances[0].sop_class.as_str()), (1, sop_class));

    StoreScu::to(daemon.port).send(&single).expect_all(single.instances.len());
    StoreScu::to(daemon.port).option("-R").send(&multi).expect_all(1);
    let of_slices = read_segmentation(&pacs.fetch(&pacs.wait_for_segmentation(&single.study_uid, seconds(30))));
    let file = pacs.fetch(&pacs.wait_for_segmentation(&multi.study_uid, seconds(30)));
    assert_eq!((dciodvfy_errors(&file), pydicom_complaints(&file)), (Vec::new(), String::new()));
    let of_frames = read_segmentation(&file);

    let (wanted, found) = (scores(&daemon, &single), scores(&daemon, &multi));
    assert_eq!((wanted.len(), &found), (single.instances.len(), &wanted), "the same pixels, the same scores");
    assert!(placed(&of_frames) == placed(&of_slices) && !of_frames.frames.is_empty(), "the masks differ");
    let positions = positions(&multi.instances[0].path);
    for frame in &of_frames.frames {
        assert_eq!(frame.source_sop_instance, multi.instances[0].sop_instance);
        let position = positions[frame.source_frame.unwrap() as usize - 1];
        assert!(position.iter().zip(frame.position).all(|(a, b)| (a - b).abs() <= TOLERANCE), "{frame:?}");
    }
    let story = daemon.why(&multi.study_uid);
    assert!(story.contains("each frame a slice"), "{story}");
}

#[test]
fn enhanced_ct_comes_to_what_its_slices_come_to() {
    requires!(Dcmtk, Orthanc, Dciodvfy, Highdicom);
    comes_to_the_same("enhanced", uids::ENHANCED_CT_IMAGE_STORAGE);
}

#[test]
fn legacy_converted_ct_comes_to_what_its_slices_come_to() {
    requires!(Dcmtk, Orthanc, Dciodvfy, Highdicom);
    comes_to_the_same("legacy", uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE);
}
