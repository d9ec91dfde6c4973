//! Multi-frame CT through the stages: each frame is a slice, scored, kept and referenced by its number, and what is broken
//! is named.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::mem::InMemElement;
use dicom_object::{DefaultDicomObject, InMemDicomObject, open_file};
use ichor_core::StudyStatus;
use ichor_result::{ReadSegmentation, SegmentationForm};
use ichor_store::{SliceScore, StudyDetail};
use support::{House, Says, analyse_options};

const FRAMES: usize = 12;

/// What spoils a file.
type Change<'a> = &'a dyn Fn(&mut DefaultDicomObject);

fn group(tag: dicom_core::Tag, elements: Vec<InMemElement>) -> InMemElement {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(vec![InMemDicomObject::from_element_iter(elements)]))
}

/// Makes one Enhanced CT image of the house's slices, the uppermost first, and puts it into their place. `change` may
/// spoil it.
fn to_frames(house: &mut House, change: impl FnOnce(&mut DefaultDicomObject)) {
    let sources: Vec<_> = house.study.files.iter().rev().map(|file| open_file(file).unwrap()).collect();
    let groups = sources.iter().map(|source| {
        let element = |tag| source.element(tag).unwrap().clone();
        InMemDicomObject::from_element_iter([
            group(tags::PLANE_POSITION_SEQUENCE, vec![element(tags::IMAGE_POSITION_PATIENT)]),
            group(
                tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
                [tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT, tags::RESCALE_TYPE].map(element).to_vec(),
            ),
        ])
    });
    let groups: Vec<_> = groups.collect();
    let pixels = sources.iter().flat_map(|s| s.element(tags::PIXEL_DATA).unwrap().to_multi_int::<u16>().unwrap());
    let pixels: Vec<u16> = pixels.collect();
    let mut object = sources.into_iter().next().unwrap();
    let moved = [tags::PIXEL_SPACING, tags::SLICE_THICKNESS].map(|tag| object.take_element(tag).unwrap());
    let orientation = object.take_element(tags::IMAGE_ORIENTATION_PATIENT).unwrap();
    for tag in [tags::IMAGE_POSITION_PATIENT, tags::RESCALE_SLOPE, tags::RESCALE_INTERCEPT, tags::RESCALE_TYPE] {
        object.remove_element(tag);
    }
    let shared = InMemDicomObject::from_element_iter([
        group(tags::PIXEL_MEASURES_SEQUENCE, moved.to_vec()),
        group(tags::PLANE_ORIENTATION_SEQUENCE, vec![orientation]),
    ]);
    object.put(DataElement::new(tags::SOP_CLASS_UID, VR::UI, uids::ENHANCED_CT_IMAGE_STORAGE));
    object.meta_mut().media_storage_sop_class_uid = uids::ENHANCED_CT_IMAGE_STORAGE.to_owned();
    object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, FRAMES.to_string()));
    let sequence = |tag, items: Vec<InMemDicomObject>| DataElement::new(tag, VR::SQ, DataSetSequence::from(items));
    object.put(sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]));
    object.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, groups));
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())));
    change(&mut object);
    let path = house.folder.path().join("enhanced.dcm");
    object.write_to_file(&path).unwrap();
    house.study.files = vec![path];
}

async fn analysed(house: &House) -> StudyDetail {
    house.receive().await;
    let ends = [StudyStatus::Analysed, StudyStatus::NotAnalysed, StudyStatus::Failed];
    house.work(Says::Probability(0.9), &ends).await.0
}

fn read_object(detail: &StudyDetail) -> ReadSegmentation {
    let [object] = detail.objects.as_slice() else { panic!("{:?}", detail.objects) };
    ichor_result::check(std::fs::File::open(&object.path).unwrap(), SegmentationForm::default()).unwrap();
    ichor_result::read_segmentation(&object.path).unwrap()
}

/// Masks by segment and place, in thousandths of a millimetre.
fn masks(read: &ReadSegmentation) -> BTreeMap<(Option<u16>, [i64; 3]), &[u16]> {
    let place = |position: [f64; 3]| position.map(|mm| (mm * 1000.0).round() as i64);
    read.frames.iter().map(|f| ((f.segment, place(f.plane.position)), f.mask.as_slice())).collect()
}

fn position_of(path: &Path, frame: u32) -> [f64; 3] {
    let object = open_file(path).unwrap();
    let groups = object.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap();
    let position = &groups.items().unwrap()[frame as usize - 1].element(tags::PLANE_POSITION_SEQUENCE).unwrap();
    let values = position.items().unwrap()[0].element(tags::IMAGE_POSITION_PATIENT).unwrap().to_multi_float64();
    values.unwrap().try_into().unwrap()
}

#[tokio::test]
async fn each_frame_is_scored_masked_and_referenced_as_its_slice() {
    let (single, mut multi) = (House::new().await, House::new().await);
    to_frames(&mut multi, |_| {});
    let (of_slices, of_frames) = (analysed(&single).await, analysed(&multi).await);
    assert_eq!(of_frames.summary.status, StudyStatus::Analysed, "{:?}", of_frames.series);
    assert_eq!(of_frames.finding, of_slices.finding);

    // The file has the uppermost first.
    let frames: Vec<u32> = of_frames.slices.iter().map(|slice| slice.frame.unwrap()).collect();
    assert_eq!(frames, (1..=FRAMES as u32).rev().collect::<Vec<_>>());
    let said = |slices: &[SliceScore]| slices.iter().map(|s| (s.probability, s.masked_pixels)).collect::<Vec<_>>();
    assert_eq!(said(&of_frames.slices), said(&of_slices.slices));
    assert!(of_slices.slices.iter().all(|slice| slice.frame.is_none()));

    let (slices, frames) = (read_object(&of_slices), read_object(&of_frames));
    assert!(masks(&slices) == masks(&frames) && !frames.frames.is_empty(), "the same masks at the same places");
    assert!(slices.frames.iter().all(|frame| frame.source_frame.is_none()));
    for frame in &frames.frames {
        assert_eq!(position_of(&multi.study.files[0], frame.source_frame.unwrap()), frame.plane.position);
    }

    // What was said of each frame is known to another attempt, and it comes to the same object.
    let bytes = std::fs::read(&of_frames.objects[0].path).unwrap();
    multi.store.retry(&multi.study.study_instance, ichor_pipeline::now()).await.unwrap();
    let (again, model) = multi.work(Says::Probability(0.1), &[StudyStatus::Analysed]).await;
    assert_eq!(model.asked.load(Ordering::SeqCst), 0, "every frame is known");
    assert_eq!(again.slices, of_frames.slices);
    assert_eq!(std::fs::read(&again.objects[0].path).unwrap(), bytes);
}

#[tokio::test]
async fn a_frame_that_is_broken_is_named_and_the_others_go_on() {
    let without_place = |object: &mut DefaultDicomObject| {
        object.update_value(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, |groups| {
            groups.items_mut().unwrap()[2].remove_element(tags::PLANE_POSITION_SEQUENCE);
        });
    };
    let cut = |object: &mut DefaultDicomObject| {
        let mut pixels = object.element(tags::PIXEL_DATA).unwrap().to_multi_int::<u16>().unwrap();
        pixels.truncate(64 * 64 * 11 - 1);
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())));
    };
    let cases: [(&[u32], Change<'_>); 2] = [(&[3], &without_place), (&[11, 12], &cut)];
    for (lost, change) in cases {
        let mut house = House::new().await;
        to_frames(&mut house, change);
        let detail = analysed(&house).await;
        assert_eq!(detail.summary.status, StudyStatus::Analysed, "{:?}", detail.series);
        let mut kept: Vec<u32> = detail.slices.iter().map(|slice| slice.frame.unwrap()).collect();
        kept.sort_unstable();
        assert_eq!(kept, (1..=FRAMES as u32).filter(|frame| !lost.contains(frame)).collect::<Vec<_>>());
        let reasons: String = detail.series[0].reasons.iter().map(|reason| format!("{reason}\n")).collect();
        for frame in lost {
            assert!(reasons.contains(&format!("frame {frame}: ")), "frame {frame} is not named:\n{reasons}");
        }
        let read = read_object(&detail);
        for frame in &read.frames {
            let number = frame.source_frame.unwrap();
            assert_eq!(position_of_any(&house.study.files[0], number), Some(frame.plane.position));
        }
    }
}

/// As [`position_of`]; none where the frame has no place.
fn position_of_any(path: &Path, frame: u32) -> Option<[f64; 3]> {
    let object = open_file(path).unwrap();
    let groups = object.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap();
    groups.items().unwrap()[frame as usize - 1].get(tags::PLANE_POSITION_SEQUENCE)?;
    Some(position_of(path, frame))
}

#[tokio::test]
async fn frames_that_cannot_be_told_apart_are_a_reason_and_no_result() {
    let count = |object: &mut DefaultDicomObject| {
        object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, "11"));
    };
    let groups = |object: &mut DefaultDicomObject| {
        object.remove_element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    };
    let cases: [(Change<'_>, &str); 2] =
        [(&count, "has 12 items, Number of Frames is 11"), (&groups, "Per-Frame Functional Groups Sequence")];
    for (change, text) in cases {
        let mut house = House::new().await;
        to_frames(&mut house, change);
        let detail = analysed(&house).await;
        assert_eq!(detail.summary.status, StudyStatus::NotAnalysed);
        let reason = detail.summary.reason.unwrap();
        assert!(reason.text.contains(text), "{reason}");
        assert!(detail.objects.is_empty() && detail.slices.is_empty());
    }
}

#[tokio::test]
async fn multi_frame_images_may_be_set_aside() {
    let mut house = House::new().await;
    to_frames(&mut house, |_| {});
    house.receive().await;
    let mut options = analyse_options();
    options.gate.multi_frame = false;
    let model = support::Scripted::new(Says::Probability(0.9));
    let detail = house.work_for(model, options, &[StudyStatus::Analysed, StudyStatus::NotAnalysed]).await;
    assert_eq!(detail.summary.reason.map(|reason| reason.code.as_str().to_owned()).as_deref(), Some("enhanced-ct"));
}
