//! Structured reports: on findings, on studies without, and on those that cannot be analysed.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;

use crate::support::chosen::{called_negative, called_positive};
use crate::support::daemon::{Daemon, Destination, Settings};
use crate::support::dcmtk::{StoreScu, dciodvfy_errors};
use crate::support::judge::read_segmentation;
use crate::support::orthanc::Orthanc;
use crate::support::study::{Phantom, Study, put_text};
use crate::support::tools::requires;
use crate::support::viewer::artefacts;
use crate::support::{eventually, seconds};

/// A destination that gets Segmentations and reports on everything.
fn reporting(pacs: &Orthanc) -> Settings {
    let mut settings = Settings::to([Destination::c_store(pacs)]);
    settings.sections =
        "objects = [\"report\", \"segmentation\", \"key-objects\", \"presentation-state\"]\n[destination.report]\nnot_analysed = true\n"
            .to_owned();
    settings
}

/// Texts of a content tree, in order.
fn texts(object: &InMemDicomObject, found: &mut Vec<String>) {
    for item in object.get(tags::CONTENT_SEQUENCE).and_then(|content| content.items()).unwrap_or_default() {
        found.extend(item.get(tags::TEXT_VALUE).map(|text| text.to_str().unwrap().into_owned()));
        texts(item, found);
    }
}

/// Values of an attribute anywhere in a content tree.
fn values(object: &InMemDicomObject, tag: dicom_core::Tag, found: &mut Vec<String>) {
    for element in object {
        if element.header().tag == tag {
            found.push(element.to_str().unwrap().trim_end_matches('\0').to_owned());
        }
        for item in element.items().unwrap_or_default() {
            values(item, tag, found);
        }
    }
}

fn report(pacs: &Orthanc, study: &Study) -> (dicom_object::DefaultDicomObject, Vec<String>) {
    let stored = pacs.wait_for_object(&study.study_uid, "SR", seconds(30));
    let file = pacs.fetch(&stored);
    assert_eq!(dciodvfy_errors(&file), Vec::<String>::new());
    let object = dicom_object::open_file(&file).unwrap();
    assert_eq!(object.meta().media_storage_sop_class_uid(), uids::COMPREHENSIVE3_DSR_STORAGE);
    let mut words = Vec::new();
    texts(&object, &mut words);
    (object, words)
}

#[test]
fn report_of_a_finding_speaks_of_the_segments() {
    requires!(Dcmtk, Orthanc, Dciodvfy, Highdicom);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&reporting(&pacs));
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());

    let (object, words) = report(&pacs, &study);
    let segmentation = pacs.wait_for_segmentation(&study.study_uid, seconds(15));
    let segments = read_segmentation(&pacs.fetch(&segmentation)).segments;
    let mut referenced = Vec::new();
    values(&object, tags::REFERENCED_SOP_INSTANCE_UID, &mut referenced);
    // Once in the evidence, and once a lesion.
    let of_segmentation = referenced.iter().filter(|uid| **uid == segmentation.sop_instance).count();
    assert_eq!(of_segmentation, 1 + segments.len(), "{words:?}");
    let mut tracked = Vec::new();
    values(&object, tags::UID, &mut tracked);
    assert!(segments.iter().all(|segment| tracked.contains(&segment.tracking_uid)), "the same lesions");
    assert!(words.iter().any(|text| text.starts_with("Hemorrhage detected by algorithm")), "{words:?}");
    assert!(words.iter().any(|text| text.contains("rule axial") && text.contains("passed")), "{words:?}");
    assert!(words.iter().any(|text| text.contains("not for clinical use")), "the notice of the weights: {words:?}");

    let keys = pacs.fetch(&pacs.wait_for_object(&study.study_uid, "KO", seconds(15)));
    assert_eq!(dciodvfy_errors(&keys), Vec::<String>::new());
    let (mut selected, keys) = (Vec::new(), dicom_object::open_file(&keys).unwrap());
    values(&keys, tags::REFERENCED_SOP_INSTANCE_UID, &mut selected);
    let is_sent = |uid: &String| study.instances.iter().any(|instance| instance.sop_instance == *uid);
    assert_eq!(selected.iter().filter(|uid| is_sent(uid)).count(), 2 * 5, "evidence and content: {selected:?}");
    assert!(selected.contains(&segmentation.sop_instance));

    let contours = pacs.fetch(&pacs.wait_for_object(&study.study_uid, "PR", seconds(15)));
    assert_eq!(dciodvfy_errors(&contours), Vec::<String>::new());
    ichor_result::check_presentation(&std::fs::read(&contours).unwrap()[..]).unwrap();

    // What stands in the job log stands in the report.
    let entry = daemon.find(&study.study_uid).unwrap();
    let mut numbers = Vec::new();
    values(&object, tags::NUMERIC_VALUE, &mut numbers);
    let numbers: Vec<f64> = numbers.iter().map(|number| number.parse().unwrap()).collect();
    let (probability, volume) = (entry["probability"].as_f64().unwrap(), entry["volume_ml"].as_f64().unwrap());
    assert!((numbers[0] - 100.0 * probability).abs() <= 0.051, "{numbers:?}, {entry}");
    assert!((numbers[1] - volume).abs() <= 0.006, "{numbers:?}, {entry}");
    // Of the study how far the volume may be off, to either side; of each lesion four numbers.
    let sd = entry["volume_sd_ml"].as_f64().unwrap();
    assert!(numbers[2..4].iter().all(|side| (side - sd).abs() <= 0.006), "{numbers:?}, {entry}");
    assert_eq!(numbers.len(), 4 + 4 * segments.len());

    // It comes back to us as a study's companion, and is known.
    let back = pacs.fetch(&pacs.wait_for_object(&study.study_uid, "SR", seconds(5)));
    let folder = daemon.folder("back");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(back, folder.join("report.dcm")).unwrap();
    StoreScu::to(daemon.port).option("-R").send(&Study::load(&folder)).expect_all(1);
    let events = daemon.show(&study.study_uid);
    assert_eq!(events["summary"]["status"], "analysed", "the study stays as it is");
}

#[test]
fn negatives_and_what_cannot_be_analysed_have_reports_too() {
    requires!(Dcmtk, Orthanc, Dciodvfy);
    let pacs = Orthanc::start();
    let daemon = Daemon::start(&reporting(&pacs));
    let negative = called_negative().write(&daemon.folder("negative"));
    StoreScu::to(daemon.port).send(&negative).expect_all(negative.instances.len());
    let (_, words) = report(&pacs, &negative);
    let said = format!("No hemorrhage detected by algorithm, in {} slices", negative.instances.len());
    assert!(words.contains(&said), "{words:?}");

    let study = Phantom::BLEEDING.seed(77).slices(12).matrix(128).write(&daemon.folder("study"));
    let unfit = study.edited(&daemon.folder("unfit"), |_, object| {
        put_text(object, tags::PATIENT_NAME, VR::PN, "Wasserphantom");
    });
    StoreScu::to(daemon.port).send(&unfit).expect_all(12);
    daemon.wait_for_status(&unfit.study_uid, "not-analysed", seconds(40));
    let (object, words) = report(&pacs, &unfit);
    let reason = daemon.find(&unfit.study_uid).unwrap()["reason"]["text"].as_str().unwrap().to_owned();
    assert!(words.iter().any(|text| text.starts_with("Not analysed, because") && text.contains(&reason)), "{words:?}");
    assert!(object.element_opt(tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE).unwrap().is_none());
    assert!(pacs.segmentations(&negative.study_uid).is_empty() && pacs.segmentations(&unfit.study_uid).is_empty());
    assert_eq!(pacs.instance_count(), 2);
    for study in [&negative, &unfit] {
        assert_eq!(daemon.wait_for_acceptance(&study.study_uid, "pacs", seconds(5)), 1);
    }
}

#[test]
fn captures_of_a_finding_are_pictures_of_its_slices() {
    requires!(Dcmtk, Orthanc, Dciodvfy);
    let pacs = Orthanc::start();
    let mut settings = Settings::to([Destination::c_store(&pacs)]);
    settings.sections = "objects = [\"capture\"]\n".to_owned();
    let daemon = Daemon::start(&settings);
    let study = called_positive()[0].write(&daemon.folder("study"));
    StoreScu::to(daemon.port).send(&study).expect_all(study.instances.len());
    let captures = eventually(seconds(40), "a picture for each slice", || {
        let captures = pacs.objects(&study.study_uid, "OT");
        if captures.len() == study.instances.len() { Ok(captures) } else { Err(format!("{} of them", captures.len())) }
    });
    assert!(pacs.segmentations(&study.study_uid).is_empty(), "nothing that was not asked for");
    let mut sources = Vec::new();
    let (mut pictures, mut red) = (Vec::new(), 0);
    for capture in &captures {
        let file = pacs.fetch(capture);
        assert_eq!(dciodvfy_errors(&file), Vec::<String>::new());
        let object = dicom_object::open_file(&file).unwrap();
        values(&object, tags::REFERENCED_SOP_INSTANCE_UID, &mut sources);
        let pixels = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
        // Red within the slice: beside it lie the bars.
        let columns = object.element(tags::COLUMNS).unwrap().to_int::<usize>().unwrap();
        let slice = |line: &[u8]| line[..(columns - 64) * 3].chunks_exact(3).filter(|p| *p == [255, 64, 64]).count();
        let contour: usize = pixels.chunks_exact(columns * 3).map(slice).sum();
        red += usize::from(contour > 0);
        let picture = pacs.preview(capture);
        assert!(picture.starts_with(b"\x89PNG"), "the PACS shows it");
        pictures.push((contour, picture));
    }
    sources.sort();
    let mut sent: Vec<String> = study.instances.iter().map(|instance| instance.sop_instance.clone()).collect();
    sent.sort();
    assert_eq!(sources, sent, "each slice once");
    assert!((1..study.instances.len()).contains(&red), "{red} slices show a contour");
    // Kept to be looked at.
    let (_, most) = pictures.iter().max_by_key(|(contour, _)| *contour).unwrap();
    std::fs::write(artefacts("capture").join("capture.png"), most).unwrap();
}
