//! Bad input, one test a kind: refused or set aside with a recorded reason, and the daemon goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use serde_json::Value;

use crate::support::daemon::{Daemon, Settings};
use crate::support::dcmtk::{StoreScu, echo};
use crate::support::raw::{CT_IMAGE, IMPLICIT_LITTLE, RawAssociation, RawError, VERIFICATION, pdu};
use crate::support::study::{Phantom, Study, append_to_uid, put_text};
use crate::support::tools::{Tool, available};
use crate::support::{eventually, part10, seconds};

/// Cannot understand (PS3.4 table B.2-1): 0xC000 to 0xCFFF.
const CANNOT_UNDERSTAND: std::ops::RangeInclusive<u16> = 0xC000..=0xCFFF;
/// Data set does not match SOP class: 0xA900 to 0xA9FF.
const DOES_NOT_MATCH: std::ops::RangeInclusive<u16> = 0xA900..=0xA9FF;

/// Small, because what is in it does not matter here.
const SMALL: Phantom = Phantom { slices: 8, matrix: 128, ..Phantom::BLEEDING };

fn send(daemon: &Daemon, study: &Study) {
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in &study.instances {
        let status = association.store(instance).unwrap();
        assert_eq!(status.code, 0, "{status:?}");
    }
    association.release().unwrap();
}

/// The daemon takes and analyses a good study: whatever came before did no harm.
#[track_caller]
fn still_works(daemon: &Daemon) {
    let study = SMALL.seed(77).write(&daemon.folder("good"));
    send(daemon, &study);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));
}

/// Sends eight slices, each changed by `edit`, and waits for the study's end.
fn outcome_of(edit: impl FnMut(usize, &mut DefaultDicomObject)) -> (Daemon, Study, Value) {
    let daemon = Daemon::start(&Settings::default());
    let study = SMALL.write(&daemon.folder("study")).edited(&daemon.folder("edited"), edit);
    send(&daemon, &study);
    let entry = daemon.wait_for_end(&study.study_uid, seconds(30));
    (daemon, study, entry)
}

/// The study is not analysed, a recorded reason has one of the words, and its timeline says so too.
#[track_caller]
fn not_analysed_because(outcome: &(Daemon, Study, Value), words: &[&str]) {
    let (daemon, study, entry) = outcome;
    assert_eq!(entry["status"], "not-analysed", "{entry}");
    let reasons = daemon.reasons(&study.study_uid);
    let speaks = |reason: &String| words.iter().any(|word| reason.to_lowercase().contains(word));
    assert!(reasons.iter().any(speaks), "none of {words:?} in {reasons:?}");
    assert!(daemon.why(&study.study_uid).contains("not-analysed"));
    still_works(daemon);
}

fn set_numbers(object: &mut DefaultDicomObject, tag: dicom_core::Tag, text: &str) {
    put_text(object, tag, VR::DS, text);
}

#[test]
fn not_dicom_at_all() {
    let daemon = Daemon::start(&Settings::default());
    for noise in [&b"GET / HTTP/1.1\r\nHost: ichor\r\n\r\n"[..], &[0xFF; 4096], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
        stream.set_read_timeout(Some(seconds(40))).unwrap();
        let _ = stream.write_all(noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        // An A-ABORT, or nothing; and the end of the connection.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 0x07, "{answer:?}");
    }
    still_works(&daemon);
}

#[test]
fn data_set_that_is_no_data_set() {
    let daemon = Daemon::start(&Settings::default());
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for garbage in [vec![], b"this is no data set, but a sentence".to_vec(), vec![0xFF; 100_000], vec![0; 10_000]] {
        let status = association.store_bytes(CT_IMAGE, "1.2.3.4", &garbage).unwrap();
        assert!(CANNOT_UNDERSTAND.contains(&status.code), "{status:?} for {} bytes", garbage.len());
        assert!(!status.comment.is_empty(), "no Error Comment");
        assert_eq!(association.echo().unwrap().code, 0, "the association did not live on");
    }
    association.release().unwrap();
    assert!(daemon.stored_data_sets().is_empty());
    still_works(&daemon);
}

#[test]
fn truncated_data_set() {
    let daemon = Daemon::start(&Settings::default());
    let study = SMALL.write(&daemon.folder("study"));
    let instance = &study.instances[3];
    let data = part10::data_set(&instance.path);
    let mut association = RawAssociation::open(daemon.port).unwrap();
    // In the pixel data, just before its end, in the header, and in the middle of an element's own header.
    for kept in [data.len() / 2, data.len() - 2, 400, 5] {
        let status = association.store_bytes(CT_IMAGE, &instance.sop_instance, &data[..kept]).unwrap();
        assert!(CANNOT_UNDERSTAND.contains(&status.code), "{status:?} for {kept} of {} bytes", data.len());
    }
    assert_eq!(association.store(instance).unwrap().code, 0, "the whole one was refused as well");
    association.release().unwrap();
    assert!(daemon.stored_data_sets()[&instance.sop_instance] == [data]);
    still_works(&daemon);
}

#[test]
fn other_object_than_the_command_said() {
    let daemon = Daemon::start(&Settings::default());
    let study = SMALL.write(&daemon.folder("study"));
    let data = part10::data_set(&study.instances[0].path);
    let mut association = RawAssociation::open(daemon.port).unwrap();
    let status = association.store_bytes(CT_IMAGE, "1.2.3.4.5.6", &data).unwrap();
    assert!(DOES_NOT_MATCH.contains(&status.code), "{status:?}");
    assert_eq!(association.echo().unwrap().code, 0, "the association did not live on");
    still_works(&daemon);
}

#[test]
fn pixel_data_shorter_than_rows_times_columns() {
    let outcome = outcome_of(|_, object| {
        let pixels = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().to_vec();
        let short = PrimitiveValue::from(pixels[..pixels.len() / 2].to_vec());
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, short));
    });
    not_analysed_because(&outcome, &["pixel"]);
}

#[test]
fn rows_and_columns_that_would_fill_the_memory() {
    let outcome = outcome_of(|_, object| {
        for tag in [tags::ROWS, tags::COLUMNS] {
            object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(65_535u16)));
        }
    });
    not_analysed_because(&outcome, &["pixel", "rows"]);
    assert!(outcome.0.memory().peak < 1024, "{:?}", outcome.0.memory());
}

#[test]
fn no_orientation() {
    let outcome = outcome_of(|_, object| {
        object.remove_element(tags::IMAGE_ORIENTATION_PATIENT);
    });
    not_analysed_because(&outcome, &["orientation"]);
}

#[test]
fn singular_orientation() {
    let outcome = outcome_of(|_, object| set_numbers(object, tags::IMAGE_ORIENTATION_PATIENT, "1\\0\\0\\1\\0\\0"));
    not_analysed_because(&outcome, &["orientation"]);
}

#[test]
fn zero_orientation() {
    let outcome = outcome_of(|_, object| set_numbers(object, tags::IMAGE_ORIENTATION_PATIENT, "0\\0\\0\\0\\0\\0"));
    not_analysed_because(&outcome, &["orientation"]);
}

#[test]
fn zero_pixel_spacing() {
    let outcome = outcome_of(|_, object| set_numbers(object, tags::PIXEL_SPACING, "0\\0"));
    not_analysed_because(&outcome, &["spacing"]);
}

#[test]
fn negative_pixel_spacing() {
    let outcome = outcome_of(|_, object| set_numbers(object, tags::PIXEL_SPACING, "0.5\\-0.5"));
    not_analysed_because(&outcome, &["spacing"]);
}

#[test]
fn no_slice_position() {
    let outcome = outcome_of(|_, object| {
        object.remove_element(tags::IMAGE_POSITION_PATIENT);
    });
    not_analysed_because(&outcome, &["position"]);
}

#[test]
fn all_slices_at_one_position() {
    let outcome = outcome_of(|_, object| set_numbers(object, tags::IMAGE_POSITION_PATIENT, "-100\\-100\\0"));
    not_analysed_because(&outcome, &["position"]);
}

#[test]
fn slices_closer_together_than_rounding() {
    let daemon = Daemon::start(&Settings::default());
    let slice = SMALL.write(&daemon.folder("study"));
    let folder = daemon.folder("close");
    for copy in 0..50 {
        slice.edited(&folder.join(format!("{copy:02}")), |index, object| {
            append_to_uid(object, tags::SOP_INSTANCE_UID, &format!("{copy}"));
            // Each is at its neighbour's position within rounding, but not at the next one's; numbers and positions
            // do not go together.
            let place = copy * 8 + index;
            let z = (place * 149 % 400) as f64 * 0.0006;
            set_numbers(object, tags::IMAGE_POSITION_PATIENT, &format!("-100\\-100\\{z:.4}"));
            put_text(object, tags::INSTANCE_NUMBER, VR::IS, &format!("{}", place * 37 % 401));
        });
    }
    let study = Study::load(&folder);
    assert_eq!(study.instances.len(), 400);
    send(&daemon, &study);
    let entry = daemon.wait_for_end(&study.study_uid, seconds(60));
    assert_ne!(entry["status"], "failed", "{entry}");
    still_works(&daemon);
}

#[test]
fn nothing_but_localizers() {
    let kind = "ORIGINAL\\PRIMARY\\LOCALIZER";
    let outcome = outcome_of(|_, object| put_text(object, tags::IMAGE_TYPE, VR::CS, kind));
    not_analysed_because(&outcome, &["localizer"]);
}

#[test]
fn duplicate_slice_positions() {
    let daemon = Daemon::start(&Settings::default());
    let study = SMALL.write(&daemon.folder("study"));
    // Two slices are there twice, under UIDs of their own.
    let twice = study.edited(&daemon.folder("twice"), |_, object| append_to_uid(object, tags::SOP_INSTANCE_UID, "2"));
    send(&daemon, &study);
    send(&daemon, &Study { instances: twice.instances[2..4].to_vec(), ..twice.clone() });
    let entry = daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));
    let reasons = daemon.reasons(&study.study_uid);
    assert!(reasons.iter().any(|reason| reason.contains("position")), "the two are not accounted for: {reasons:?}");

    // The same study without them comes to the same.
    let alone = study.restamped(&daemon.folder("alone"), "7");
    send(&daemon, &alone);
    let other = daemon.wait_for_status(&alone.study_uid, "analysed", seconds(30));
    assert_eq!((&entry["probability"], &entry["volume_ml"]), (&other["probability"], &other["volume_ml"]));
}

#[test]
fn two_series_in_one_study() {
    let daemon = Daemon::start(&Settings::default());
    let study = SMALL.write(&daemon.folder("study"));
    // The same slices with a bone kernel, as scanners send them beside the soft-tissue series.
    let bone = study.edited(&daemon.folder("bone"), |_, object| {
        append_to_uid(object, tags::SERIES_INSTANCE_UID, "2");
        append_to_uid(object, tags::SOP_INSTANCE_UID, "2");
        put_text(object, tags::CONVOLUTION_KERNEL, VR::SH, "BONE");
        put_text(object, tags::SERIES_DESCRIPTION, VR::LO, "Head bone");
    });
    assert_eq!(bone.study_uid, study.study_uid);
    send(&daemon, &study);
    send(&daemon, &bone);
    let entry = daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));
    let reasons = daemon.reasons(&study.study_uid);
    assert!(reasons.iter().any(|reason| reason.contains("kernel")), "the bone series has no reason: {reasons:?}");
    let shown = daemon.show(&study.study_uid);
    let chosen: Vec<_> = shown["series"].as_array().unwrap().iter().map(|series| &series["chosen"]).collect();
    assert_eq!(chosen, [true, false], "{shown}");

    let alone = study.restamped(&daemon.folder("alone"), "7");
    send(&daemon, &alone);
    let other = daemon.wait_for_status(&alone.study_uid, "analysed", seconds(30));
    assert_eq!((&entry["probability"], &entry["volume_ml"]), (&other["probability"], &other["volume_ml"]));
}

#[test]
fn study_of_one_slice() {
    let daemon = Daemon::start(&Settings::default());
    let mut study = SMALL.write(&daemon.folder("study"));
    study.instances.truncate(1);
    send(&daemon, &study);
    let entry = daemon.wait_for_end(&study.study_uid, seconds(20));
    not_analysed_because(&(daemon, study, entry), &["slice"]);
}

#[test]
fn study_of_2000_slices() {
    let daemon = Daemon::start(&Settings::default());
    let coarse = Phantom { positive: false, slices: 40, matrix: 128, ..Phantom::BLEEDING };
    let coarse = coarse.write(&daemon.folder("coarse"));
    let z = |index: usize| part10::position(&coarse.instances[index].path)[2];
    // The phantom's slices lie closer at the base; these are even.
    let (bottom, step) = (z(0), (z(39) - z(0)) / 39.0 / 50.0);
    let folder = daemon.folder("fine");
    for copy in 0..50 {
        coarse.edited(&folder.join(format!("{copy:02}")), |index, object| {
            append_to_uid(object, tags::SOP_INSTANCE_UID, &format!("{copy}"));
            let [x, y, _] = part10::position(&coarse.instances[index].path);
            let z = bottom + step * (50 * index + copy) as f64;
            set_numbers(object, tags::IMAGE_POSITION_PATIENT, &format!("{x:.4}\\{y:.4}\\{z:.4}"));
            set_numbers(object, tags::SLICE_THICKNESS, &format!("{step:.4}"));
        });
    }
    let study = Study::load(&folder);
    assert_eq!(study.instances.len(), 2000);
    send(&daemon, &study);
    daemon.wait_for_status(&study.study_uid, "analysed", seconds(400));
    let memory = daemon.memory();
    assert!(memory.peak < 1024, "{memory:?} MiB resident");
}

#[test]
fn unknown_transfer_syntax() {
    let daemon = Daemon::start(&Settings::default());
    let contexts: &[(&str, &[&str])] =
        &[(CT_IMAGE, &["1.2.3.4.5"]), ("1.2.3.4.5.6", &[IMPLICIT_LITTLE]), (VERIFICATION, &[IMPLICIT_LITTLE])];
    let mut association = RawAssociation::propose(daemon.port, "STORESCU", contexts).unwrap();
    // Transfer syntaxes not supported, and abstract syntax not supported (PS3.8 table 9-18).
    assert_eq!((association.context(0), association.context(1)), (&Err(4), &Err(3)));
    assert_eq!(association.echo().unwrap().code, 0);
    association.release().unwrap();
    still_works(&daemon);
}

#[test]
fn unknown_calling_ae_title() {
    let daemon = Daemon::start(&Settings::default());
    let contexts: &[(&str, &[&str])] = &[(VERIFICATION, &[IMPLICIT_LITTLE])];
    // Rejected permanently, by the service user, calling AE title not recognized (PS3.8 table 9-21).
    let refusal = RawAssociation::propose(daemon.port, "STRANGER", contexts).err();
    assert_eq!(refusal, Some(RawError::Rejected { result: 1, source: 1, reason: 3 }));
    if available(&[Tool::Dcmtk]) {
        let study = SMALL.write(&daemon.folder("study"));
        let report = StoreScu::to(daemon.port).calling("STRANGER").send(&study);
        assert!(!report.success && report.acknowledged() == 0, "{}", report.log);
        assert!(!echo(daemon.port, "STRANGER") && echo(daemon.port, "STORESCU"));
        assert!(daemon.list().is_empty() && daemon.stored_data_sets().is_empty());
    }
    eventually(seconds(5), "the refusal in the log", || {
        let log = daemon.log();
        if log.contains("STRANGER") { Ok(()) } else { Err(log) }
    });
    still_works(&daemon);
}

#[test]
fn one_association_too_many() {
    let daemon = Daemon::start(&Settings { max_associations: 2, ..Settings::default() });
    // The one by which the start was noticed may still be on its way out.
    let held = eventually(seconds(5), "two associations", || {
        let pair = [RawAssociation::open(daemon.port), RawAssociation::open(daemon.port)];
        if pair.iter().all(Result::is_ok) { Ok(pair) } else { Err("refused".to_owned()) }
    });
    // Rejected for now, by the service provider, local limit exceeded.
    let refusal = RawAssociation::open(daemon.port).err();
    assert_eq!(refusal, Some(RawError::Rejected { result: 2, source: 3, reason: 2 }));
    for association in held {
        association.unwrap().release().unwrap();
    }
    still_works(&daemon);
}

#[test]
fn association_dropped_in_the_middle_of_a_slice() {
    let daemon = Daemon::start(&Settings::default());
    let study = SMALL.write(&daemon.folder("study"));
    let (cut, whole) = study.instances.split_last().unwrap();
    let mut association = RawAssociation::open(daemon.port).unwrap();
    for instance in whole {
        assert_eq!(association.store(instance).unwrap().code, 0);
    }
    let data = part10::data_set(&cut.path);
    association.begin_store(CT_IMAGE, &cut.sop_instance).unwrap();
    association.send_data(CT_IMAGE, &data[..data.len() / 2], false).unwrap();
    association.drop_connection();

    daemon.wait_for_status(&study.study_uid, "analysed", seconds(30));
    let stored = daemon.stored_data_sets();
    assert!(!stored.contains_key(&cut.sop_instance), "half a slice was kept");
    assert!(whole.iter().all(|instance| stored.contains_key(&instance.sop_instance)), "a whole slice is missing");
    // Nothing of the half slice is left behind in the blob folder either: each file there with anything in it is one of
    // the objects, which are the slices and, if the weights find something in them, the Segmentation; beside that the maps.
    let mut files = part10::files_below(&daemon.blobs);
    files.retain(|file| !matches!(std::fs::read(file).unwrap().as_slice(), [] | [0x89, b'P', b'N', b'G', ..]));
    assert_eq!(files.len(), stored.values().map(Vec::len).sum::<usize>(), "{files:?}");
    assert!(stored.len() <= whole.len() + 1, "{:?}", stored.keys());
    still_works(&daemon);
}

#[test]
fn peer_that_stops_in_the_middle_of_a_slice() {
    let daemon = Daemon::start(&Settings { pdu_timeout_s: 2.0, ..Settings::default() });
    let study = SMALL.write(&daemon.folder("study"));
    let mut association = RawAssociation::open(daemon.port).unwrap();
    association.begin_store(CT_IMAGE, &study.instances[0].sop_instance).unwrap();
    association.send_data(CT_IMAGE, &part10::data_set(&study.instances[0].path)[..1000], false).unwrap();
    // Aborted, or cut, when the time for a PDU has passed; not held open for ever.
    let begun = Instant::now();
    let end = association.response().unwrap_err();
    assert!(begun.elapsed() < seconds(15), "{:?}", begun.elapsed());
    assert!(matches!(end, RawError::Aborted | RawError::Closed(_)), "{end:?}");
    still_works(&daemon);
}

#[test]
fn lengths_that_are_not_true() {
    let daemon = Daemon::start(&Settings::default());
    let before = daemon.memory().resident;
    // An A-ASSOCIATE-RQ and a P-DATA-TF that claim a GiB.
    for kind in [0x01, 0x04] {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
        let mut head = pdu(kind, &[]);
        head[2..6].copy_from_slice(&(1u32 << 30).to_be_bytes());
        let _ = stream.write_all(&head);
        let _ = stream.write_all(&[0; 65_536]);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let after = daemon.memory();
    assert!(after.peak < before + 128, "{before} MiB before, {after:?} after");
    still_works(&daemon);
}
