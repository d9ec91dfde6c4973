//! Structured reports over a real store: who gets one, on what, and that a retry makes the same.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::sync::Arc;

use dicom_dictionary_std::{tags, uids};
use dicom_object::open_file;
use ichor_core::StudyStatus;
use ichor_pipeline::analyse::{AnalyseOptions, DestinationObjects, ObjectKind, ReportOn};
use ichor_pipeline::now;
use ichor_result::{CaptureLook, SegmentationForm};
use support::{House, Says, Scripted, analyse_options};

fn options() -> AnalyseOptions {
    let form = SegmentationForm::default();
    let destination = |name: &str, objects: &[ObjectKind], negative, not_analysed| DestinationObjects {
        name: name.to_owned(),
        objects: objects.to_vec(),
        report_on: ReportOn { negative, not_analysed },
    };
    let mut options = analyse_options();
    options.destinations = vec![
        destination("both", &[ObjectKind::Report(Some(form)), ObjectKind::Segmentation(form)], true, true),
        destination(
            "report",
            &[
                ObjectKind::Report(None),
                ObjectKind::KeyObjects(4, None),
                ObjectKind::Captures(CaptureLook::default()),
                ObjectKind::Presentation,
            ],
            false,
            false,
        ),
    ];
    options
}

/// What `destination` is to get, by kind: SOP class, bytes.
async fn queued(house: &House, destination: &str) -> Vec<(String, Vec<u8>)> {
    let mut objects = Vec::new();
    while let Some(claim) = house.store.claim_delivery(destination, now()).await.unwrap() {
        let bytes = std::fs::read(&claim.object.path).unwrap();
        objects.push((claim.object.sop_class.as_str().to_owned(), bytes));
    }
    objects
}

#[tokio::test]
async fn a_finding_is_reported_with_and_without_its_segmentation() {
    let house = House::new().await;
    house.receive().await;
    let says = Scripted::new(Says::Probability(0.9));
    let detail = house.work_for(Arc::clone(&says), options(), &[StudyStatus::Analysed]).await;
    assert_eq!((detail.objects.len(), detail.deliveries.len()), (17, 17), "{detail:?}");
    let both = queued(&house, "both").await;
    let [report, keys, captures @ .., contours] = &queued(&house, "report").await[..] else {
        panic!("objects are missing")
    };
    assert_eq!(captures.len(), 12, "a picture for each slice");
    assert_eq!(contours.0, uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE);
    assert!(ichor_result::check_presentation(&contours.1[..]).is_ok());
    assert!(captures.iter().all(|(class, _)| class == uids::SECONDARY_CAPTURE_IMAGE_STORAGE));
    assert!(captures.iter().all(|(_, bytes)| ichor_result::check_capture(&bytes[..]).is_ok()));
    let classes: Vec<&str> = both.iter().map(|(class, _)| class.as_str()).collect();
    assert_eq!(classes, [uids::SEGMENTATION_STORAGE, uids::COMPREHENSIVE3_DSR_STORAGE]);
    assert_eq!(report.0, uids::COMPREHENSIVE3_DSR_STORAGE);
    assert_eq!(keys.0, uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE);
    let path = house.folder.path().join("keys.dcm");
    std::fs::write(&path, &keys.1).unwrap();
    let selection = open_file(&path).unwrap();
    let content = selection.element(tags::CONTENT_SEQUENCE).unwrap().items().unwrap();
    let is_image = |item: &&dicom_object::InMemDicomObject| {
        item.element(tags::VALUE_TYPE).unwrap().to_str().unwrap().trim() == "IMAGE"
    };
    assert_eq!(content.iter().filter(is_image).count(), 4, "as many slices as were asked for");
    assert_ne!(report.1, both[1].1, "one speaks of segments, the other cannot");

    house.store.retry(&house.study.study_instance, now()).await.unwrap();
    house.work_for(says, options(), &[StudyStatus::Analysed]).await;
    let story = house.store.timeline(&house.study.study_instance).await.unwrap();
    assert_eq!(
        story.iter().filter(|event| event.kind == "object-kept").count(),
        17,
        "byte for byte the same: {story:?}"
    );
}

#[tokio::test]
async fn a_negative_study_is_reported_to_who_wants_it() {
    let house = House::new().await;
    house.receive().await;
    let says = Scripted::new(Says::Probability(0.1));
    let detail = house.work_for(says, options(), &[StudyStatus::Analysed]).await;
    assert_eq!(detail.summary.positive, Some(false));
    let [(class, _)] = &queued(&house, "both").await[..] else { panic!("{detail:?}") };
    assert_eq!(class, uids::COMPREHENSIVE3_DSR_STORAGE);
    assert!(queued(&house, "report").await.is_empty(), "it does not want them");
}

#[tokio::test]
async fn a_study_that_cannot_be_analysed_is_reported_to_who_wants_it() {
    let house = House::new().await;
    house.receive().await;
    let mut options = options();
    options.gate.min_slices = 100;
    let says = Scripted::new(Says::Probability(0.9));
    let detail = house.work_for(says, options, &[StudyStatus::NotAnalysed]).await;
    assert_eq!(detail.objects.len(), 1, "{detail:?}");
    let objects = queued(&house, "both").await;
    let path = house.folder.path().join("report.dcm");
    std::fs::write(&path, &objects[0].1).unwrap();
    let report = open_file(&path).unwrap();
    let patient = open_file(&house.study.files[0]).unwrap();
    let name = |object: &dicom_object::DefaultDicomObject| {
        object.element(tags::PATIENT_NAME).unwrap().to_str().unwrap().into_owned()
    };
    assert_eq!(name(&report), name(&patient), "whose study it is");
    let content = report.element(tags::CONTENT_SEQUENCE).unwrap().items().unwrap();
    let evaluations = content.last().unwrap().element(tags::CONTENT_SEQUENCE).unwrap().items().unwrap();
    let words = evaluations[1].element(tags::TEXT_VALUE).unwrap().to_str().unwrap().into_owned();
    assert!(words.starts_with("Not analysed, because 12 usable slices"), "{words}");
    assert!(queued(&house, "report").await.is_empty(), "it does not want them");
}

/// A report that speaks of a Segmentation and one that does not are the same where there is none to speak of.
#[tokio::test]
async fn what_comes_to_the_same_is_one_object() {
    let house = House::new().await;
    house.receive().await;
    let mut options = options();
    options.destinations[1].report_on.negative = true;
    let says = Scripted::new(Says::Probability(0.1));
    let detail = house.work_for(says, options, &[StudyStatus::Analysed]).await;
    assert_eq!((detail.objects.len(), detail.deliveries.len()), (1, 2), "{detail:?}");
    assert_eq!(queued(&house, "both").await, queued(&house, "report").await);
}
