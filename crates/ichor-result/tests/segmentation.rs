//! What comes out, judged here and by dciodvfy.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::cell::Cell;

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject};
use ichor_core::Uid;
use ichor_result::{
    ReadError, ResultError, SegmentationForm, bits, check as check_form, is_own_object, read_segmentation,
};
use support::{Built, Series, blobs, build, code_sequence, describe, judge, real_series, tilted};

/// Checks bytes as the usual form.
fn check(part10: &[u8]) -> Result<(), ichor_result::CheckFailed> {
    check_form(std::io::Cursor::new(part10.to_vec()), SegmentationForm::default())
}

fn open(segmentation: &Built) -> DefaultDicomObject {
    dicom_object::from_reader(&segmentation.part10[..]).unwrap()
}

fn text(object: &InMemDicomObject, tag: dicom_core::Tag) -> String {
    object.element(tag).unwrap().to_str().unwrap().into_owned()
}

fn first(object: &InMemDicomObject, tag: dicom_core::Tag) -> &InMemDicomObject {
    &object.element(tag).unwrap().items().unwrap()[0]
}

fn judged(segmentation: &Built) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seg.dcm");
    std::fs::write(&path, &segmentation.part10).unwrap();
    judge(&path);
}

#[test]
fn tilted_uneven_series_with_odd_frames() {
    let dir = tempfile::tempdir().unwrap();
    // 13 × 11 is no multiple of 8: frames share bytes.
    let planes = tilted(13, 11, 18.5, &[1.14, 4.22, 7.38, 4.22]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let masks = blobs(&planes, |i| i != 1);
    let seg = build(&header, &slices, &masks, 1).unwrap();
    judged(&seg);
    assert_eq!(seg.frames, 4);
    let object = open(&seg);
    let pixels = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
    let frames = object.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap().items().unwrap();
    for (k, i) in [0usize, 2, 3, 4].into_iter().enumerate() {
        let expected: Vec<u8> = masks[i].as_ref().unwrap().iter().map(|p| u8::from(*p != 0)).collect();
        assert_eq!(bits::unpack_frame(&pixels, k, 13 * 11).unwrap(), expected, "frame {k}");
        let position = first(&frames[k], tags::PLANE_POSITION_SEQUENCE);
        let position = position.element(tags::IMAGE_POSITION_PATIENT).unwrap().to_multi_float64().unwrap();
        assert!(position.iter().zip(planes[i].position).all(|(a, b)| (a - b).abs() < 1e-9), "{position:?}");
        let source = first(first(&frames[k], tags::DERIVATION_IMAGE_SEQUENCE), tags::SOURCE_IMAGE_SEQUENCE);
        assert_eq!(text(source, tags::REFERENCED_SOP_INSTANCE_UID), slices[i].sop_instance.as_str());
    }
    let shared = first(&object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let measures = first(shared, tags::PIXEL_MEASURES_SEQUENCE);
    assert!(measures.get(tags::SPACING_BETWEEN_SLICES).is_none(), "uneven spacing has no single value");
    assert_eq!(text(measures, tags::SLICE_THICKNESS), "4.5");
    let orientation = first(shared, tags::PLANE_ORIENTATION_SEQUENCE);
    let cosines = orientation.element(tags::IMAGE_ORIENTATION_PATIENT).unwrap().to_multi_float64().unwrap();
    assert!((cosines[5] + 18.5f64.to_radians().sin()).abs() < 1e-12, "{cosines:?}");
    let references = first(&object, tags::REFERENCED_SERIES_SEQUENCE);
    assert_eq!(references.element(tags::REFERENCED_INSTANCE_SEQUENCE).unwrap().items().unwrap().len(), 5);
}

#[test]
fn even_spacing_is_measured_along_the_normal() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(16, 16, 20.0, &[5.0, 5.0, 5.0]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let seg = build(&header, &slices, &blobs(&planes, |i| i == 2), 1).unwrap();
    judged(&seg);
    let object = open(&seg);
    let measures = first(first(&object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE), tags::PIXEL_MEASURES_SEQUENCE);
    let spacing = measures.element(tags::SPACING_BETWEEN_SLICES).unwrap().to_float64().unwrap();
    assert!((spacing - 5.0 * 20f64.to_radians().cos()).abs() < 1e-5, "{spacing}");
}

#[test]
fn planes_that_differ_go_into_the_frames() {
    let dir = tempfile::tempdir().unwrap();
    let mut planes = tilted(16, 12, 0.0, &[5.0, 5.0]);
    planes[2].column = tilted(16, 12, 3.0, &[])[0].column;
    planes[1].spacing = [0.5, 0.5];
    let (header, mut slices) = Series::new(planes.clone()).write(dir.path());
    slices[0].slice_thickness_mm = Some(2.5);
    let seg = build(&header, &slices, &blobs(&planes, |_| true), 1).unwrap();
    judged(&seg);
    let object = open(&seg);
    let shared = first(&object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    assert!(
        shared.get(tags::PLANE_ORIENTATION_SEQUENCE).is_none() && shared.get(tags::PIXEL_MEASURES_SEQUENCE).is_none()
    );
    let frames = object.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap().items().unwrap();
    let thickness: Vec<String> =
        frames.iter().map(|f| text(first(f, tags::PIXEL_MEASURES_SEQUENCE), tags::SLICE_THICKNESS)).collect();
    assert_eq!(thickness, ["2.5", "4.5", "4.5"]);
}

#[test]
fn frames_lie_in_the_order_of_their_position() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(8, 8, 0.0, &[5.0, 5.0, 5.0]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let masks = blobs(&planes, |_| true);
    let ordered = build(&header, &slices, &masks, 1).unwrap();
    let order = [2usize, 0, 3, 1];
    let shuffled: Vec<_> = order.iter().map(|i| slices[*i].clone()).collect();
    let shuffled_masks: Vec<_> = order.iter().map(|i| masks[*i].clone()).collect();
    let shuffled = build(&header, &shuffled, &shuffled_masks, 1).unwrap();
    assert_eq!(ordered.sop_instance, shuffled.sop_instance);
    let pixels = |s: &Built| open(s).element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
    assert_eq!(pixels(&ordered), pixels(&shuffled));
}

#[test]
fn same_input_same_bytes_and_what_changes_the_object() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(9, 9, 0.0, &[5.0, 5.0]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let masks = blobs(&planes, |i| i > 0);
    let one = build(&header, &slices, &masks, 1).unwrap();
    assert_eq!(one, build(&header, &slices, &masks, 1).unwrap());
    let two = build(&header, &slices, &masks, 2).unwrap();
    assert_ne!(one.sop_instance, two.sop_instance);
    assert_eq!(one.series_instance, two.series_instance, "versions share the series");
    let fewer = build(&header, &slices[..2], &masks[..2], 1).unwrap();
    assert_ne!(one.sop_instance, fewer.sop_instance, "another set of source instances is another object");
    assert_eq!(one.study_instance.as_str(), support::STUDY);
}

#[test]
fn read_back_by_ourselves() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(13, 11, 18.5, &[1.14, 4.22, 7.38]);
    let series = Series::new(planes.clone());
    let (header, slices) = series.write(dir.path());
    let masks = blobs(&planes, |i| i != 1);
    let seg = build(&header, &slices, &masks, 1).unwrap();
    let path = dir.path().join("seg.dcm");
    std::fs::write(&path, &seg.part10).unwrap();
    let read = read_segmentation(&path).unwrap();
    assert_eq!((&read.sop_instance, read.study_instance.as_str()), (&seg.sop_instance, support::STUDY));
    assert_eq!(read.frames.len(), 3);
    for (frame, i) in read.frames.iter().zip([0, 2, 3]) {
        let expected: Vec<u16> = masks[i].as_ref().unwrap().iter().map(|p| u16::from(*p != 0)).collect();
        assert_eq!(
            (&frame.source_sop_instance, frame.segment, &frame.mask),
            (&slices[i].sop_instance, Some(1), &expected)
        );
        let corner = (frame.plane.point(13.0, 11.0), planes[i].point(13.0, 11.0));
        assert!(corner.0.iter().zip(corner.1).all(|(a, b)| (a - b).abs() < 1e-6), "{corner:?}");
    }
    let ct = read_segmentation(series.write_slice(dir.path(), 0)).unwrap_err();
    assert!(matches!(ct, ReadError::Kind { name: "SOP class UID", .. }), "{ct}");
    std::fs::write(&path, &seg.part10[..200]).unwrap();
    assert!(matches!(read_segmentation(&path), Err(ReadError::Parse(_))));
}

#[test]
fn refusals() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(8, 10, 0.0, &[5.0, 5.0]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let masks = blobs(&planes, |_| true);
    let refused = |slices: &[_], masks: &[_]| build(&header, slices, masks, 1).unwrap_err();
    assert!(matches!(refused(&[], &[]), ResultError::NoSlices));
    assert!(matches!(refused(&slices, &vec![None; 3]), ResultError::NothingToSegment));
    assert!(matches!(refused(&slices, &vec![Some(vec![0u8; 80]); 3]), ResultError::NothingToSegment));
    assert!(matches!(refused(&slices, &masks[..2]), ResultError::MaskCount { masks: 2, slices: 3 }));
    assert!(matches!(refused(&slices, &vec![Some(vec![1u8; 90]); 3]), ResultError::Mask { .. }));
    let with = |change: fn(&mut ichor_result::SourceSlice)| {
        let mut slices = slices.clone();
        change(&mut slices[1]);
        refused(&slices, &masks)
    };
    assert!(matches!(with(|s| s.plane.rows = 9), ResultError::MixedSize { rows: 9, .. }));
    assert!(matches!(with(|s| s.plane.spacing = [0.0, 1.0]), ResultError::Plane { .. }));
    assert!(matches!(with(|s| s.plane.row = [0.0; 3]), ResultError::Plane { .. }));
    let mut twice = slices.clone();
    twice[2].plane = twice[1].plane;
    assert!(matches!(refused(&twice, &masks), ResultError::DuplicatePosition { .. }));
    let mut huge = slices.clone();
    huge[0].plane.rows = 70_000;
    assert!(matches!(refused(&huge, &masks), ResultError::ImageSize { rows: 70_000, .. }));
}

#[test]
fn names_survive_in_every_script() {
    let names: [(&'static str, &[u8], &str); 5] = [
        ("ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (
            "\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        ("ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
        ("ISO_IR 192", "王^小東".as_bytes(), "王^小東"),
        ("\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
    ];
    for (set, bytes, expected) in names {
        let dir = tempfile::tempdir().unwrap();
        let planes = tilted(8, 8, 0.0, &[]);
        let series = Series { character_set: set, patient_name: bytes.to_vec(), ..Series::new(planes.clone()) };
        let (header, slices) = series.write(dir.path());
        assert!(header.guessed_text().is_empty(), "{set}");
        let seg = build(&header, &slices, &blobs(&planes, |_| true), 1).unwrap();
        judged(&seg);
        let object = open(&seg);
        assert_eq!(text(&object, tags::PATIENT_NAME), expected);
        assert_eq!(text(&object, tags::SPECIFIC_CHARACTER_SET), "ISO_IR 192");
        let utf8 = expected.as_bytes();
        assert!(seg.part10.windows(utf8.len()).any(|w| w == utf8), "{expected} is not in the file as UTF-8");
    }
}

#[test]
fn what_the_source_lacks_is_added() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(8, 8, 0.0, &[5.0]);
    let mut series = Series { frame_of_reference: false, ..Series::new(planes.clone()) };
    series.without = vec![
        tags::PATIENT_BIRTH_DATE,
        tags::PATIENT_SEX,
        tags::STUDY_ID,
        tags::ACCESSION_NUMBER,
        tags::STUDY_DATE,
        tags::SERIES_NUMBER,
        tags::SLICE_THICKNESS,
        tags::MANUFACTURER,
    ];
    series.extra = vec![DataElement::new(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES")];
    let (header, slices) = series.write(dir.path());
    assert_eq!(header.frame_of_reference(), None);
    let seg = build(&header, &slices, &blobs(&planes, |_| true), 1).unwrap();
    judged(&seg);
    let object = open(&seg);
    for tag in [tags::PATIENT_BIRTH_DATE, tags::PATIENT_SEX, tags::STUDY_ID, tags::ACCESSION_NUMBER, tags::STUDY_DATE] {
        assert_eq!(text(&object, tag), "");
    }
    assert!(Uid::parse(&text(&object, tags::FRAME_OF_REFERENCE_UID)).is_ok());
    assert_eq!(text(&object, tags::SERIES_NUMBER), "9000");
    assert_eq!(text(&object, tags::DEIDENTIFICATION_METHOD), "not stated in the source");
}

#[test]
fn what_the_source_says_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(8, 8, 0.0, &[5.0]);
    let mut series = Series::new(planes.clone());
    let text_element = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
    series.extra = vec![
        text_element(tags::TIMEZONE_OFFSET_FROM_UTC, VR::SH, "-0500"),
        text_element(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "01"),
        text_element(tags::LOSSY_IMAGE_COMPRESSION_RATIO, VR::DS, "12.5"),
        text_element(tags::LOSSY_IMAGE_COMPRESSION_METHOD, VR::CS, "ISO_15444_1"),
        text_element(tags::CLINICAL_TRIAL_SPONSOR_NAME, VR::LO, "Sponsor"),
        text_element(tags::CLINICAL_TRIAL_PROTOCOL_ID, VR::LO, "Protocol"),
        text_element(tags::CLINICAL_TRIAL_SUBJECT_ID, VR::LO, "Subject"),
        text_element(tags::PATIENT_COMMENTS, VR::LT, "stays behind"),
        code_sequence(tags::PROCEDURE_CODE_SEQUENCE, "24725-4", "LN", "CT Head"),
        code_sequence(tags::ANATOMIC_REGION_SEQUENCE, "69536005", "SCT", "stays behind"),
    ];
    let (header, slices) = series.write(dir.path());
    let seg = build(&header, &slices, &blobs(&planes, |_| true), 1).unwrap();
    judged(&seg);
    let object = open(&seg);
    assert_eq!(text(&object, tags::CONTENT_DATE), "20260101", "in the source's own time zone");
    assert_eq!(text(&object, tags::CONTENT_TIME), "211415.500000");
    assert_eq!(text(&object, tags::LOSSY_IMAGE_COMPRESSION), "01");
    assert_eq!(text(&object, tags::CLINICAL_TRIAL_SUBJECT_ID), "Subject");
    assert_eq!(text(first(&object, tags::PROCEDURE_CODE_SEQUENCE), tags::CODE_MEANING), "CT Head");
    assert_eq!(text(&object, tags::FRAME_OF_REFERENCE_UID), "2.25.400");
    assert_eq!(text(&object, tags::SERIES_NUMBER), "9002");
    assert!(!seg.part10.windows(12).any(|w| w == b"stays behind"));
    let scanner = first(&object, tags::CONTRIBUTING_EQUIPMENT_SEQUENCE);
    assert_eq!(text(scanner, tags::MANUFACTURER), "Scanner Works");
    assert!(text(&object, tags::IMAGE_COMMENTS).starts_with("For research use only; demonstration weights"));
    assert!(is_own_object(&object));
    let mut elsewhere = open(&seg);
    elsewhere.remove_element(tags::INSTANCE_CREATOR_UID);
    assert!(is_own_object(&elsewhere), "known by manufacturer and model");
    elsewhere.put(DataElement::new(tags::MANUFACTURER, VR::LO, "Another"));
    assert!(!is_own_object(&elsewhere));
    let source = dicom_object::open_file(series.write_slice(dir.path(), 1)).unwrap();
    assert!(!is_own_object(&source));
}

#[test]
fn multi_frame_sources_are_referenced_once() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(8, 8, 0.0, &[5.0, 5.0]);
    let (header, mut slices) = Series::new(planes.clone()).write(dir.path());
    for (i, slice) in slices.iter_mut().enumerate() {
        slice.sop_instance = Uid::parse("2.25.77").unwrap();
        slice.frame_number = Some(i as u32 + 1);
        slice.sop_class = Uid::parse(uids::ENHANCED_CT_IMAGE_STORAGE).unwrap();
    }
    let seg = build(&header, &slices, &blobs(&planes, |_| true), 1).unwrap();
    judged(&seg);
    let object = open(&seg);
    let series = first(&object, tags::REFERENCED_SERIES_SEQUENCE);
    assert_eq!(series.element(tags::REFERENCED_INSTANCE_SEQUENCE).unwrap().items().unwrap().len(), 1);
    let frame = &object.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap().items().unwrap()[2];
    let source = first(first(frame, tags::DERIVATION_IMAGE_SEQUENCE), tags::SOURCE_IMAGE_SEQUENCE);
    assert_eq!(text(source, tags::REFERENCED_FRAME_NUMBER), "3");

    // A multi-frame image without the frame names no place.
    let mut object = open(&seg);
    object.update_value(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, |groups| {
        edit_object(&mut groups.items_mut().unwrap()[2], tags::DERIVATION_IMAGE_SEQUENCE, &|derivation| {
            edit_object(derivation, tags::SOURCE_IMAGE_SEQUENCE, &|source| {
                source.remove_element(tags::REFERENCED_FRAME_NUMBER);
            });
        });
    });
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    let refusal = check(&bytes).unwrap_err();
    assert!(refusal.to_string().contains("frame 3 names frame None"), "{refusal}");
}

/// Changes the first item of a sequence of a file.
fn edit(object: &mut DefaultDicomObject, tag: dicom_core::Tag, change: &dyn Fn(&mut InMemDicomObject)) {
    edit_object(object, tag, change);
}

/// Changes the first item of a sequence.
fn edit_object(object: &mut InMemDicomObject, tag: dicom_core::Tag, change: &dyn Fn(&mut InMemDicomObject)) {
    object.update_value(tag, |value| change(&mut value.items_mut().unwrap()[0]));
}

#[test]
fn the_check_finds_what_is_broken() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(9, 7, 0.0, &[5.0, 5.0]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let seg = build(&header, &slices, &blobs(&planes, |_| true), 1).unwrap();
    let count = Cell::new(0);
    let broken = |why: &str, change: &dyn Fn(&mut DefaultDicomObject)| {
        count.set(count.get() + 1);
        let mut object = open(&seg);
        change(&mut object);
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).unwrap();
        let problems = check(&bytes).expect_err(why).problems;
        assert!(problems.iter().any(|p| p.contains(why)), "{why}: {problems:?}");
    };
    let us = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let bytes = |value: Vec<u8>| DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(value));
    broken("frame of reference UID is missing", &|o| assert!(o.remove_element(tags::FRAME_OF_REFERENCE_UID)));
    broken("patient's sex is absent", &|o| assert!(o.remove_element(tags::PATIENT_SEX)));
    broken("modality is", &|o| drop(o.put(DataElement::new(tags::MODALITY, VR::CS, "CT"))));
    broken("pixel data of 24 bytes", &|o| drop(o.put(us(tags::ROWS, 10))));
    broken("frames without mask", &|o| drop(o.put(bytes(vec![0; 24]))));
    broken("padding bits", &|o| drop(o.put(bytes(vec![0xff; 24]))));
    broken("number of frames is", &|o| drop(o.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, "2"))));
    broken("instance UID differs", &|o| drop(o.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, "2.25.1"))));
    broken("is not a UID", &|o| drop(o.put(DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, "a/b"))));
    let per_frame = tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE;
    let plane = |item: &mut InMemDicomObject| assert!(item.remove_element(tags::PLANE_POSITION_SEQUENCE));
    broken("frame 1 has no valid position", &|o| edit(o, per_frame, &plane));
    let index = |item: &mut InMemDicomObject| assert!(item.remove_element(tags::FRAME_CONTENT_SEQUENCE));
    broken("dimension index", &|o| edit(o, per_frame, &index));
    let references = |item: &mut InMemDicomObject| assert!(item.remove_element(tags::REFERENCED_INSTANCE_SEQUENCE));
    broken("not a referenced instance", &|o| edit(o, tags::REFERENCED_SERIES_SEQUENCE, &references));
    let spacing = |item: &mut InMemDicomObject| {
        let spacing = DataElement::new(tags::SPACING_BETWEEN_SLICES, VR::DS, "NaN");
        edit_object(item, tags::PIXEL_MEASURES_SEQUENCE, &|measures| drop(measures.put(spacing.clone())));
    };
    broken("mm at (0018,0088)", &|o| edit(o, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, &spacing));
    let label = |item: &mut InMemDicomObject| assert!(item.remove_element(tags::SEGMENT_LABEL));
    broken("segment 1 has no label", &|o| edit(o, tags::SEGMENT_SEQUENCE, &label));
    assert_eq!(count.get(), 14);
    assert!(check(&seg.part10[..seg.part10.len() - 3]).is_err(), "cut off");
    assert!(check(b"nonsense").is_err());
}

#[test]
fn two_thousand_slices() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(64, 60, 10.0, &[0.6; 1999]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let masks = blobs(&planes, |_| true);
    let start = std::time::Instant::now();
    let seg = build(&header, &slices, &masks, 1).unwrap();
    println!("2000 frames built and checked in {:?}", start.elapsed());
    assert_eq!(seg.frames, 2000);
    let object = open(&seg);
    assert_eq!(object.element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).unwrap().items().unwrap().len(), 2000);
}

#[test]
fn the_real_series() {
    let Some(files) = real_series() else { return };
    let (header, slices) = describe(&files);
    let planes: Vec<_> = slices.iter().map(|s| s.plane).collect();
    let seg = build(&header, &slices, &blobs(&planes, |i| (5..20).contains(&i)), 1).unwrap();
    judged(&seg);
    assert_eq!(seg.frames, 15);
    let object = open(&seg);
    assert_eq!(text(&object, tags::PATIENT_BIRTH_DATE), "");
    assert_eq!(text(&object, tags::PATIENT_SEX), "");
    assert_eq!(text(&object, tags::FRAME_OF_REFERENCE_UID), header.frame_of_reference().unwrap().as_str());
}
