//! The main job: a head CT comes in by C-STORE, a Segmentation goes back to the PACS.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use crate::support::chosen::{called_negative, called_positive};
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::dcmtk::{StoreScu, dcentvfy_complaints, dciodvfy_errors};
use crate::support::judge::{Judgement, pydicom_complaints, read_segmentation, unpacked_bits};
use crate::support::orthanc::Orthanc;
use crate::support::study::Study;
use crate::support::tools::requires;
use crate::support::{part10, seconds, stays};

/// Millimetres that positions and orientations may be off.
const TOLERANCE: f64 = 0.01;

/// Each frame lies where the slice that it names lies, and no slice has two of one segment.
pub(crate) fn check_geometry(judgement: &Judgement, study: &Study) {
    let sources: HashMap<&str, &Path> =
        study.instances.iter().map(|i| (i.sop_instance.as_str(), i.path.as_path())).collect();
    let mut seen = Vec::new();
    for frame in &judgement.frames {
        let uid = frame.source_sop_instance.as_str();
        let path = sources.get(uid).unwrap_or_else(|| panic!("frame of {uid}, which was never sent"));
        let place = (uid, frame.segment);
        assert!(!seen.contains(&place), "two frames for {place:?}");
        seen.push(place);
        let header = part10::header(path);
        let numbers = |tag| header.element(tag).unwrap().to_multi_float64().unwrap();
        let near = |found: &[f64], wanted: &[f64], tolerance: f64| {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= tolerance)
        };
        use dicom_dictionary_std::tags;
        let position = numbers(tags::IMAGE_POSITION_PATIENT);
        assert!(near(&frame.position, &position, TOLERANCE), "{:?} for {position:?}", frame.position);
        // A thousandth of a radian moves the far corner of a 256 mm image by a quarter of a millimetre.
        let orientation = numbers(tags::IMAGE_ORIENTATION_PATIENT);
        assert!(near(&frame.orientation, &orientation, 1e-5), "{:?} for {orientation:?}", frame.orientation);
        let spacing = numbers(tags::PIXEL_SPACING);
        assert!(near(&frame.spacing, &spacing, 1e-5), "{:?} for {spacing:?}", frame.spacing);
        let size = [tags::ROWS, tags::COLUMNS].map(|tag| header.element(tag).unwrap().to_int::<usize>().unwrap());
        assert_eq!([judgement.rows, judgement.columns], size);
    }
}

/// What every Segmentation of ours must be, whichever study it is of.
pub(crate) fn check_segmentation(file: &Path, study: &Study) -> Judgement {
    assert_eq!(dciodvfy_errors(file), Vec::<String>::new());
    assert_eq!(dcentvfy_complaints(file, study), Vec::<String>::new());
    assert_eq!(pydicom_complaints(file), "");
    let judgement = read_segmentation(file);
    assert_eq!(judgement.segmentation_type, "BINARY");
    assert!(judgement.masks == unpacked_bits(file), "highdicom's masks are not the object's bits");
    assert!(judgement.frames.iter().all(|frame| frame.pixels > 0), "a frame without mask");
    check_geometry(&judgement, study);
    check_segments(&judgement);
    judgement
}

/// One segment a lesion, each of its own.
fn check_segments(judgement: &Judgement) {
    assert!(!judgement.segments.is_empty());
    let mut tracked = Vec::new();
    for (number, segment) in (1u32..).zip(&judgement.segments) {
        assert_eq!((segment.number, segment.algorithm_type.as_str()), (number, "AUTOMATIC"));
        assert!(segment.property_type.to_lowercase().contains("hemorrhage"), "{}", segment.property_type);
        assert!(!segment.label.is_empty() && !segment.algorithm_name.is_empty());
        assert!(!segment.algorithm_version.is_empty() && !segment.tracking_uid.is_empty());
        assert!(!tracked.contains(&segment.tracking_uid), "two lesions with one tracking UID");
        tracked.push(segment.tracking_uid.clone());
    }
}

/// Volume of all frames of an evenly spaced study, in millilitres.
fn volume_ml(judgement: &Judgement, study: &Study) -> f64 {
    let z: Vec<f64> = study.instances.iter().map(|instance| part10::position(&instance.path)[2]).collect();
    let first = &judgement.frames[0];
    // With gantry tilt the table moves further than the planes are apart.
    let o = first.orientation;
    let normal_z = o[0] * o[4] - o[1] * o[3];
    let distance = (z[z.len() - 1] - z[0]) / (z.len() - 1) as f64 * normal_z.abs();
    let pixels: usize = judgement.frames.iter().map(|frame| frame.pixels).sum();
    pixels as f64 * first.spacing[0] * first.spacing[1] * distance / 1000.0
}

#[test]
fn segmentation_of_a_bleeding_study_reaches_both_destinations() {
    requires!(Dcmtk, Orthanc, Dciodvfy, Highdicom);
    let (pacs, web) = (Orthanc::start(), Orthanc::start());
    let daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs), Destination::stow_rs(&web)]));
    let study = called_positive()[0].write(&daemon.folder("study"));

    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let sent = Instant::now();
    let by_c_store = pacs.wait_for_segmentation(&study.study_uid, seconds(30));
    let turnaround = sent.elapsed();
    let by_stow = web.wait_for_segmentation(&study.study_uid, seconds(15));
    assert!(turnaround < seconds(11), "{turnaround:?} from the last slice to the PACS, quiet period 1 s");
    assert_eq!(by_c_store.sop_instance, by_stow.sop_instance);

    let judgement = check_segmentation(&pacs.fetch(&by_c_store), &study);
    let other = check_segmentation(&web.fetch(&by_stow), &study);
    assert!(judgement.masks == other.masks, "the two destinations got different masks");

    for destination in ["pacs", "web"] {
        assert_eq!(
            daemon.wait_for_acceptance(&study.study_uid, destination, seconds(5)),
            1,
            "attempts at {destination}"
        );
    }
    let entry = daemon.find(&study.study_uid).unwrap();
    assert_eq!((&entry["status"], &entry["positive"]), (&"analysed".into(), &true.into()));
    assert!((0.5..=1.0).contains(&entry["probability"].as_f64().unwrap()), "{entry}");
    let (recorded, measured) = (entry["volume_ml"].as_f64().unwrap(), volume_ml(&judgement, &study));
    assert!(
        (recorded - measured).abs() <= 0.02 * measured + 0.01,
        "{recorded} mL recorded, {measured} mL in the object"
    );
    assert_eq!((pacs.instance_count(), web.instance_count()), (1, 1), "the PACS got more than the Segmentation");

    let memory = daemon.memory();
    assert!(memory.peak < 1024, "{memory:?} MiB resident");
}

#[test]
fn each_destination_gets_the_form_that_it_asks_for() {
    requires!(Dcmtk, Orthanc, Highdicom);
    let (pacs, web) = (Orthanc::start(), Orthanc::start());
    let mut settings = Settings::to([Destination::c_store(&pacs), Destination::stow_rs(&web)]);
    settings.sections = "[destination.segmentation]\ntype = \"labelmap\"\ntransfer_syntax = \"rle\"\n".to_owned();
    let daemon = Daemon::start(&settings);
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let binary = pacs.wait_for_segmentation(&study.study_uid, seconds(30));
    let map = web.wait_for_segmentation(&study.study_uid, seconds(15));
    assert_ne!(binary.sop_instance, map.sop_instance, "each form is an object of its own");

    let binary = check_segmentation(&pacs.fetch(&binary), &study);
    let file = web.fetch(&map);
    let object = dicom_object::open_file(&file).unwrap();
    assert_eq!(object.meta().transfer_syntax(), dicom_dictionary_std::uids::RLE_LOSSLESS, "kept as it was sent");
    assert_eq!(object.meta().media_storage_sop_class_uid(), "1.2.840.10008.5.1.4.1.1.66.7");
    let map = read_segmentation(&file);
    assert_eq!(map.segmentation_type, "LABELMAP");
    check_geometry(&map, &study);
    check_segments(&map);
    let tracked = |judgement: &Judgement| judgement.segments.iter().map(|s| s.tracking_uid.clone()).collect::<Vec<_>>();
    assert_eq!(tracked(&binary), tracked(&map), "the same lesions");
    // The same pixels of the same slices, frame by frame.
    let pixels = binary.rows * binary.columns;
    let mut of_map: HashMap<&str, &[u8]> = HashMap::new();
    for (frame, labels) in map.frames.iter().zip(map.masks.chunks_exact(pixels)) {
        of_map.insert(&frame.source_sop_instance, labels);
    }
    let mut marked = 0;
    for (frame, mask) in binary.frames.iter().zip(binary.masks.chunks_exact(pixels)) {
        let (labels, segment) = (of_map[frame.source_sop_instance.as_str()], frame.segment.unwrap() as u8);
        assert!(mask.iter().zip(labels).all(|(bit, label)| (*bit == 1) == (*label == segment)), "{frame:?}");
        marked += frame.pixels;
    }
    assert_eq!(marked, map.masks.iter().filter(|label| **label != 0).count());
    for destination in ["pacs", "web"] {
        assert_eq!(daemon.wait_for_acceptance(&study.study_uid, destination, seconds(5)), 1);
    }
    assert_eq!((pacs.instance_count(), web.instance_count()), (1, 1));
}

#[test]
fn why_tells_the_whole_story_in_order() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs)]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let segmentation = pacs.wait_for_segmentation(&study.study_uid, seconds(30));

    daemon.wait_for_acceptance(&study.study_uid, "pacs", seconds(5));
    let story = daemon.why(&study.study_uid);
    let place = |word: &str| story.find(word).unwrap_or_else(|| panic!("no {word:?} in:\n{story}"));
    let order = ["association-opened", "instances-received", "analysis-started", "object-created", "delivery-accepted"];
    let order = order.map(place);
    assert!(order.is_sorted(), "{order:?} in:\n{story}");
    assert!(story.contains(&segmentation.sop_instance), "the Segmentation is not named:\n{story}");
    let name = part10::text(&part10::header(&study.instances[0].path), dicom_dictionary_std::tags::PATIENT_NAME);
    assert!(!daemon.log().contains(&name), "the log names the patient");
}

#[test]
fn study_without_bleed_is_a_recorded_negative() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs)]));
    let study = called_negative().write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let entry = daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));
    assert_eq!(entry["positive"], false, "{entry}");
    stays(seconds(2), || assert_eq!(pacs.instance_count(), 0));
}

#[test]
fn late_slices_make_one_new_version() {
    requires!(Dcmtk, Orthanc, Highdicom);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs)]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    let folders = [daemon.folder("early"), daemon.folder("late")];
    for (index, instance) in study.instances.iter().enumerate() {
        // Every eighth slice is late, so that both parts cover the head.
        let folder = &folders[usize::from(index % 8 == 7)];
        std::fs::copy(&instance.path, folder.join(format!("{index:03}.dcm"))).unwrap();
    }
    let (early, late) = (Study::load(&folders[0]), Study::load(&folders[1]));

    StoreScu::to(daemon.port).send(&early).expect_all(early.instances.len());
    let first = pacs.wait_for_segmentation(&study.study_uid, seconds(30));
    StoreScu::to(daemon.port).send(&late).expect_all(late.instances.len());
    let both = crate::support::eventually(seconds(30), "a second version", || {
        let found = pacs.segmentations(&study.study_uid);
        if found.len() == 2 { Ok(found) } else { Err(format!("{found:?}")) }
    });
    let second = both.iter().find(|s| s.sop_instance != first.sop_instance).unwrap();
    check_geometry(&read_segmentation(&pacs.fetch(second)), &study);
    stays(seconds(3), || assert_eq!(pacs.segmentations(&study.study_uid).len(), 2));
}

#[test]
fn same_study_again_makes_no_new_result() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs)]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let first = pacs.wait_for_segmentation(&study.study_uid, seconds(30));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    pacs.keeps_only(&study.study_uid, &first, seconds(4));
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(20));
    assert_eq!(pacs.segmentations(&study.study_uid), [first]);
}

#[test]
fn own_result_coming_back_is_never_analysed() {
    requires!(Dcmtk, Orthanc);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&Settings::to([Destination::c_store(&pacs)]));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let segmentation = pacs.wait_for_segmentation(&study.study_uid, seconds(30));

    // It is kept like everything that is accepted (-R proposes just what the file needs), and nothing comes of it.
    let sender = StoreScu::to(daemon.port).option("-R");
    sender.send_files(&[pacs.fetch(&segmentation)]).expect_all(1);
    pacs.keeps_only(&study.study_uid, &segmentation, seconds(3));
    assert_eq!(daemon.find(&study.study_uid).unwrap()["status"], "analysed");
}

#[test]
fn terminated_daemon_ends_with_success() {
    let mut daemon = Daemon::start(&Settings::default());
    assert!(daemon.terminate(seconds(15)), "SIGTERM did not end the daemon with success");
    daemon.start_again();
    assert!(daemon.is_running());
}
