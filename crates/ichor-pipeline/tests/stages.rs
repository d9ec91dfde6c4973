//! Ingest, assemble and analyse over a real store, with a model that says what a test tells it to.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dicom_dictionary_std::tags;
use ichor_core::{RuleVerdict, StudyStatus};
use ichor_ct::gate::GateRule;
use ichor_dimse::part10::read_header;
use ichor_dimse::scp::{InstanceSink, PeerInfo, StorageHandler, StoreRequest};
use ichor_dimse::status::StoreStatus;
use ichor_picture::Raster;
use ichor_pipeline::now;
use ichor_result::{Encoding, SegmentationForm, SegmentationType};
use ichor_store::{SliceMap, StudyKey};
use support::{House, Says, Scripted, analyse_options, gets, peer, store_file};

#[tokio::test]
async fn positive_study_gets_one_object_for_each_destination() {
    let house = House::new().await;
    house.receive().await;
    let (detail, model) = house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 3, "12 slices in batches of 5");
    let finding = detail.finding.unwrap();
    assert!(detail.summary.positive.unwrap() && (finding.probability - 0.9).abs() < 1e-6, "{finding:?}");
    assert!(finding.volume_ml > 100.0, "the whole brain was marked: {finding:?}");
    assert_eq!(detail.slices.len(), 12);
    let [object] = detail.objects.as_slice() else { panic!("{:?}", detail.objects) };
    let mut destinations: Vec<&str> = detail.deliveries.iter().map(|d| d.destination.as_str()).collect();
    destinations.sort_unstable();
    assert_eq!(destinations, ["one", "two"]);

    // Analysed again, it is the same object, byte for byte, and is sent no second time.
    let claim = house.store.claim_delivery("one", now()).await.unwrap().unwrap();
    assert_eq!(&claim.object.sop_instance, &object.sop_instance);
    let bytes = std::fs::read(&claim.object.path).unwrap();
    house.store.retry(&house.study.study_instance, now()).await.unwrap();
    let (again, model) = house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;
    assert!(model.mapped.load(Ordering::SeqCst) > 0, "it was analysed again");
    assert_eq!(model.asked.load(Ordering::SeqCst), 0, "its probabilities are known");
    assert_eq!(again.objects.len(), 1);
    assert_eq!(std::fs::read(&claim.object.path).unwrap(), bytes);
    assert_eq!(again.deliveries.iter().filter(|d| d.destination == "one").count(), 1);
    let file = dicom_object::open_file(&claim.object.path).unwrap();
    let label = file.element(tags::SERIES_DESCRIPTION).unwrap().to_str().unwrap().into_owned();
    let whole = format!("{label} {:?}", file.element_opt(tags::CONTENT_DESCRIPTION).unwrap());
    assert!(whole.contains("for tests"), "the notice stands in the object: {whole}");
}

#[tokio::test]
async fn maps_of_a_positive_study_are_kept_and_are_no_object() {
    let house = House::new().await;
    house.receive().await;
    let (detail, _) = house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;
    assert_eq!(detail.objects.len(), 1, "the Segmentation alone");
    assert!(detail.slices.iter().all(|slice| slice.map.is_some()), "every slice is positive");
    let (study, middle) = (&house.study.study_instance, &detail.slices[6]);
    let SliceMap::Kept(map) = house.store.slice_map(study, &middle.sop_instance, None).await.unwrap() else {
        panic!("no map")
    };
    let bytes = std::fs::read(&map.path).unwrap();
    let start = usize::try_from(map.place.offset).unwrap();
    let raster = Raster::read_grey(&bytes[start..start + map.place.bytes as usize]).unwrap();
    assert_eq!((raster.width(), raster.height()), (64, 64), "on the source grid");
    // The scripted model's map is the brain mask.
    let share = raster.samples().iter().filter(|value| **value > 127).count() as f64 / (64.0 * 64.0);
    let mask = f64::from(middle.masked_pixels) / (64.0 * 64.0);
    assert!((share - mask).abs() < 0.1 && share > 0.1, "{share} of the map, {mask} of the mask");
    assert_eq!((raster.samples()[0], raster.samples()[32 * 64 + 32]), (0, 255));
    let total: u64 = detail.slices.iter().map(|slice| u64::from(slice.map.unwrap().bytes)).sum();
    assert_eq!(total, bytes.len() as u64, "nothing but the maps");

    let house = House::new().await;
    house.receive().await;
    let (negative, _) = house.work(Says::Probability(0.1), &[StudyStatus::Analysed]).await;
    assert!(negative.slices.iter().all(|slice| slice.map.is_none()));
}

#[tokio::test]
async fn each_destination_gets_its_own_form() {
    let house = House::new().await;
    house.receive().await;
    let form = |kind, encoding, empty| SegmentationForm::new(kind, encoding, empty).unwrap();
    let wanted = [
        ("binary", form(SegmentationType::Binary, Encoding::ExplicitLittleEndian, false)),
        ("map", form(SegmentationType::LabelMap, Encoding::RleLossless, true)),
        ("fraction", form(SegmentationType::Fractional, Encoding::Deflated, false)),
        ("binary too", form(SegmentationType::Binary, Encoding::ExplicitLittleEndian, false)),
    ];
    let mut options = analyse_options();
    options.destinations = wanted.iter().map(|(name, form)| gets(name, *form)).collect();
    let says = Scripted::new(Says::Probability(0.9));
    let detail = house.work_for(Arc::clone(&says), options.clone(), &[StudyStatus::Analysed]).await;
    assert_eq!((detail.objects.len(), detail.deliveries.len()), (3, 4), "{detail:?}");

    let mut seen = HashMap::new();
    for (name, form) in wanted {
        let claim = house.store.claim_delivery(name, now()).await.unwrap().unwrap();
        assert!(house.store.claim_delivery(name, now()).await.unwrap().is_none(), "one object for {name}");
        assert_eq!(claim.object.sop_class.as_str(), form.kind().sop_class());
        assert_eq!(claim.object.transfer_syntax.as_str(), form.encoding().transfer_syntax());
        ichor_result::check(std::fs::File::open(&claim.object.path).unwrap(), form).unwrap();
        let read = ichor_result::read_segmentation(&claim.object.path).unwrap();
        let marked = |mask: &[u16]| mask.iter().filter(|value| **value > 0).count();
        let pixels: usize = read.frames.iter().map(|frame| marked(&frame.mask)).sum();
        if form.kind() == SegmentationType::Fractional {
            let values: BTreeSet<u16> = read.frames.iter().flat_map(|frame| frame.mask.iter().copied()).collect();
            assert!(values.iter().all(|value| *value <= 230) && values.contains(&230), "0.9 of 255: {values:?}");
        }
        if form.empty_frames() {
            assert_eq!(read.frames.len(), 12, "a frame for each slice");
        }
        seen.insert(name, (claim.object.sop_instance, pixels, std::fs::read(&claim.object.path).unwrap()));
    }
    assert_eq!(seen["binary"], seen["binary too"]);
    assert!(seen["binary"].1 > 0);
    assert_eq!(seen.values().map(|(_, pixels, _)| pixels).collect::<BTreeSet<_>>().len(), 1, "the same pixels");
    assert_eq!(seen.values().map(|(uid, _, _)| uid).collect::<BTreeSet<_>>().len(), 3, "a UID for each form");

    // A retry makes the same objects and queues none anew.
    house.store.retry(&house.study.study_instance, now()).await.unwrap();
    let again = house.work_for(says, options, &[StudyStatus::Analysed]).await;
    assert_eq!((again.objects.len(), again.deliveries.len()), (3, 4));
    let story = house.store.timeline(&house.study.study_instance).await.unwrap();
    let kept = story.iter().filter(|event| event.kind == "object-kept").count();
    assert_eq!(kept, 3, "byte for byte the same: {story:?}");
}

#[tokio::test]
async fn work_whose_claim_was_lost_is_queued_again() {
    let house = House::new().await;
    house.receive().await;
    // Claimed, and the outcome could not be recorded: the claim is gone, the row says "running".
    let claim = loop {
        house.store.close_quiet_studies(now()).await.unwrap();
        if let Some(claim) = house.store.claim_analysis("lost", now()).await.unwrap() {
            break claim;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    drop(claim);
    assert!(house.store.claim_analysis("next", now()).await.unwrap().is_none());
    assert_eq!(house.store.requeue_analyses(now()).await.unwrap(), 1);
    house.work(Says::Probability(0.9), &[StudyStatus::Analysed]).await;

    for destination in ["one", "two"] {
        drop(house.store.claim_delivery(destination, now()).await.unwrap().unwrap());
        assert!(house.store.claim_delivery(destination, now()).await.unwrap().is_none());
    }
    assert_eq!(house.store.requeue_deliveries("one", now()).await.unwrap(), 1);
    assert_eq!(house.store.claim_delivery("one", now()).await.unwrap().unwrap().attempts, 2);
    assert!(house.store.claim_delivery("two", now()).await.unwrap().is_none(), "the other queue is another's");
}

#[tokio::test]
async fn same_data_set_from_another_peer_is_the_same_instance() {
    let house = House::new().await;
    house.receive().await;
    let ingest = house.ingest();
    let router = PeerInfo { calling_ae: "ROUTER".to_owned(), ..peer() };
    let association = ingest.association_opened(&router).await.unwrap();
    store_file(&ingest, &association, &house.study.files[3], |_| {}).await.unwrap();
    let detail = house.study().await;
    assert_eq!(detail.summary.instances, 12);
    let blobs = walk(&house.folder.path().join("blobs"));
    assert_eq!(blobs.len(), 12, "the same bytes are kept once");
}

#[tokio::test]
async fn every_rule_of_the_gate_is_kept_with_the_outcome() {
    let house = House::new().await;
    house.receive().await;
    let (detail, _) = house.work(Says::Probability(0.1), &[StudyStatus::Analysed]).await;
    let asked: Vec<&str> = detail.series[0].rules.iter().map(|rule| rule.rule.as_str()).collect();
    assert_eq!(asked, GateRule::ALL.map(GateRule::name));
    let failed = detail.series[0].rules.iter().filter(|rule| rule.verdict == RuleVerdict::Failed).count();
    assert_eq!(failed, 0, "{:#?}", detail.series[0].rules);
    let events = house.store.timeline(&house.study.study_instance).await.unwrap();
    let chosen = events.iter().find(|event| event.kind == "series-chosen").unwrap();
    assert_eq!(chosen.detail["rules"].as_array().unwrap().len(), asked.len());
}

#[tokio::test]
async fn negative_study_gets_none() {
    let house = House::new().await;
    house.receive().await;
    let (detail, _) = house.work(Says::Probability(0.1), &[StudyStatus::Analysed]).await;
    assert_eq!(detail.summary.positive, Some(false));
    assert!(detail.objects.is_empty() && detail.deliveries.is_empty());
    assert!(detail.finding.unwrap().lesions_ml.is_empty());
}

#[tokio::test]
async fn failing_model_is_asked_as_often_as_allowed() {
    for says in [Says::Error, Says::Nonsense] {
        let house = House::new().await;
        house.receive().await;
        let (detail, model) = house.work(says, &[StudyStatus::Failed]).await;
        assert_eq!(model.asked.load(Ordering::SeqCst), 3);
        let reason = detail.summary.reason.unwrap();
        assert_eq!(reason.code.as_str(), "model-failed", "{reason}");
        // Asked for by a person, it is taken up again.
        house.store.retry(&house.study.study_instance, now()).await.unwrap();
        let (detail, _) = house.work(Says::Probability(0.1), &[StudyStatus::Analysed]).await;
        assert_eq!(detail.summary.positive, Some(false));
    }
}

#[tokio::test]
async fn a_study_waits_for_a_decoder_that_cannot_be_started() {
    let mut house = House::new().await;
    for file in &mut house.study.files {
        let mut object = dicom_object::open_file(&*file).unwrap();
        object.meta_mut().transfer_syntax = "1.2.840.10008.1.2.1.99".to_owned();
        *file = file.with_extension("deflated");
        object.write_to_file(&file).unwrap();
    }
    house.receive().await;
    let (detail, model) = house.work(Says::Probability(0.9), &[StudyStatus::Failed]).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 0);
    let reason = detail.summary.reason.unwrap();
    assert_eq!(reason.code.as_str(), "decoder-unavailable", "{reason}");
    assert!(reason.text.contains("/nonexistent") && reason.text.contains("No such file"), "{reason}");
    let timeline = house.store.timeline(&house.study.study_instance).await.unwrap();
    let failures = timeline.iter().filter(|event| format!("{event:?}").contains("decoder-unavailable"));
    assert_eq!(failures.count(), 3, "{timeline:#?}");
    assert_eq!(detail.summary.instances, 12, "nothing is lost, and a person may have it taken up again");
    assert!(house.store.retry(&house.study.study_instance, now()).await.is_ok());
}

#[tokio::test]
async fn study_that_ends_the_process_is_given_up_at_last() {
    let mut house = House::new().await;
    house.receive().await;
    for attempt in 1..=3 {
        let (detail, model) = house.work(Says::Nothing, &[StudyStatus::Analysing]).await;
        assert_eq!(model.asked.load(Ordering::SeqCst), 1, "attempt {attempt}: {:?}", detail.summary);
        house.restart().await;
    }
    let (detail, model) = house.work(Says::Nothing, &[StudyStatus::Failed]).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 0);
    let reason = detail.summary.reason.unwrap();
    assert_eq!(reason.code.as_str(), "analysis-interrupted", "{reason}");
}

#[tokio::test]
async fn data_set_must_be_what_the_command_says() {
    let house = House::new().await;
    let ingest = house.ingest();
    let association = ingest.association_opened(&peer()).await.unwrap();
    let file = &house.study.files[0];
    let mr =
        |request: &mut StoreRequest| request.sop_class = ichor_core::Uid::parse("1.2.840.10008.5.1.4.1.1.4").unwrap();
    let other = |request: &mut StoreRequest| request.sop_instance = ichor_core::Uid::parse("2.25.77").unwrap();
    for failure in [
        store_file(&ingest, &association, file, mr).await.unwrap_err(),
        store_file(&ingest, &association, file, other).await.unwrap_err(),
    ] {
        assert_eq!(failure.status, StoreStatus::DataSetDoesNotMatch, "{failure:?}");
    }
    // A sink that is dropped in the middle leaves nothing.
    let header = read_header(file).unwrap();
    let request = StoreRequest {
        sop_class: header.sop_class,
        sop_instance: header.sop_instance,
        transfer_syntax: header.transfer_syntax,
        message_id: 2,
    };
    let mut sink = ingest.begin(&association, &request).await.unwrap();
    sink.write(&[0; 1000]).await.unwrap();
    drop(sink);
    let blobs = walk(&house.folder.path().join("blobs"));
    assert!(blobs.is_empty(), "{blobs:?}");
    assert!(house.store.study(&StudyKey::Uid(house.study.study_instance.clone())).await.is_err());
    // And the association lives on.
    store_file(&ingest, &association, file, |_| {}).await.unwrap();
    assert_eq!(house.study().await.summary.instances, 1);
    assert_eq!(house.study().await.summary.source_ae.as_deref(), Some("SCANNER"));
}

#[tokio::test]
async fn study_has_no_room_for_one_more() {
    let house = House::new().await;
    house.receive().await;
    let ingest = house.ingest();
    let association = ingest.association_opened(&peer()).await.unwrap();
    let extra = house.folder.path().join("extra.dcm");
    let mut object = dicom_object::open_file(&house.study.files[0]).unwrap();
    let uid = ichor_core::Uid::derive(["one more"]);
    object.put_str(tags::SOP_INSTANCE_UID, dicom_core::VR::UI, uid.as_str());
    object.update_meta(|meta| uid.as_str().clone_into(&mut meta.media_storage_sop_instance_uid));
    object.write_to_file(&extra).unwrap();
    let refused = store_file(&ingest, &association, &extra, |_| {}).await.unwrap_err();
    assert_eq!(refused.status, StoreStatus::OutOfResources);
    assert!(refused.comment.contains("12 instances"), "{refused:?}");
    // What is there already is no more than there was, and another study has room of its own.
    store_file(&ingest, &association, &house.study.files[0], |_| {}).await.unwrap();
    assert_eq!(house.study().await.summary.instances, 12);
    let other = ichor_core::Uid::derive(["another study"]);
    object.put_str(tags::STUDY_INSTANCE_UID, dicom_core::VR::UI, other.as_str());
    object.write_to_file(&extra).unwrap();
    store_file(&ingest, &association, &extra, |_| {}).await.unwrap();
    assert_eq!(house.store.study(&StudyKey::Uid(other)).await.unwrap().summary.instances, 1);
}

/// Files with anything in them: the store marks its folders with empty ones.
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] });
    files.filter(|path| path.metadata().is_ok_and(|data| data.len() > 0)).collect()
}
