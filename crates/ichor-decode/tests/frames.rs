//! Multi-frame CT, native and in every codec: each frame is the slice that it was made from, in its place, by its number.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

mod support;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, InMemDicomObject, open_file};
use ichor_core::Reason;
use ichor_ct::frames::MultiFrame;
use ichor_ct::gate::GateOptions;
use ichor_ct::header::InstanceHeader;
use ichor_ct::series::choose_series;
use ichor_ct::volume::{PlacedSlice, Slice, read_slice};
use ichor_decode::{DecodeError, Decoder};
use ichor_phantom::{PhantomOptions, WrittenStudy, write_study};
use support::{converted, decoder};
use tempfile::TempDir;

const FRAMES: usize = 22;

fn study(folder: &Path) -> WrittenStudy {
    let options = PhantomOptions { tilt_degrees: 12.0, ..PhantomOptions::default() };
    write_study(17, &options.with_matrix(64).with_slices(FRAMES as u32), &folder.join("slices")).unwrap()
}

fn sequence(tag: Tag, items: Vec<InMemDicomObject>) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::SQ, DataSetSequence::from(items))
}

/// A macro of one item.
fn group(tag: Tag, elements: Vec<DataElement<InMemDicomObject>>) -> DataElement<InMemDicomObject> {
    sequence(tag, vec![InMemDicomObject::from_element_iter(elements)])
}

/// One Enhanced CT image of a study's slices, last first; odd frames store half Hounsfield units. `change` may spoil it.
fn enhanced(study: &WrittenStudy, to: &Path, change: impl FnOnce(&mut DefaultDicomObject)) -> PathBuf {
    let sources: Vec<_> = study.files.iter().rev().map(|file| open_file(file).unwrap()).collect();
    let (mut frames, mut pixels) = (Vec::new(), Vec::<u16>::new());
    for (index, source) in sources.iter().enumerate() {
        let element = |tag| source.element(tag).unwrap().clone();
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let half = index % 2 == 1;
        let stored = source.element(tags::PIXEL_DATA).unwrap().to_multi_int::<u16>().unwrap();
        // Half Hounsfield units: twice the value, and the intercept stays.
        pixels.extend(stored.iter().map(|value| if half { ((*value as i16) * 2) as u16 } else { *value }));
        frames.push(InMemDicomObject::from_element_iter([
            group(tags::PLANE_POSITION_SEQUENCE, vec![element(tags::IMAGE_POSITION_PATIENT)]),
            group(
                tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
                vec![
                    text(tags::RESCALE_SLOPE, VR::DS, if half { "0.5" } else { "1" }),
                    element(tags::RESCALE_INTERCEPT),
                    text(tags::RESCALE_TYPE, VR::LO, "HU"),
                ],
            ),
            group(
                tags::FRAME_VOILUT_SEQUENCE,
                vec![
                    text(tags::WINDOW_CENTER, VR::DS, &format!("{}", 30 + index)),
                    text(tags::WINDOW_WIDTH, VR::DS, "90"),
                ],
            ),
        ]));
    }
    let mut object = sources.into_iter().next().unwrap();
    let shared = {
        let element = |tag| object.element(tag).unwrap().clone();
        let frame_type = DataElement::new(tags::FRAME_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\VOLUME\\NONE");
        InMemDicomObject::from_element_iter([
            group(tags::PIXEL_MEASURES_SEQUENCE, vec![element(tags::PIXEL_SPACING), element(tags::SLICE_THICKNESS)]),
            group(tags::PLANE_ORIENTATION_SEQUENCE, vec![element(tags::IMAGE_ORIENTATION_PATIENT)]),
            group(tags::CT_IMAGE_FRAME_TYPE_SEQUENCE, vec![frame_type]),
            group(tags::CT_RECONSTRUCTION_SEQUENCE, vec![element(tags::CONVOLUTION_KERNEL)]),
        ])
    };
    for tag in [
        tags::IMAGE_POSITION_PATIENT,
        tags::IMAGE_ORIENTATION_PATIENT,
        tags::PIXEL_SPACING,
        tags::SLICE_THICKNESS,
        tags::RESCALE_SLOPE,
        tags::RESCALE_INTERCEPT,
        tags::RESCALE_TYPE,
        tags::WINDOW_CENTER,
        tags::WINDOW_WIDTH,
        tags::CONVOLUTION_KERNEL,
        tags::IMAGE_TYPE,
    ] {
        object.remove_element(tag);
    }
    object.put(DataElement::new(tags::SOP_CLASS_UID, VR::UI, uids::ENHANCED_CT_IMAGE_STORAGE));
    object.meta_mut().media_storage_sop_class_uid = uids::ENHANCED_CT_IMAGE_STORAGE.to_owned();
    object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, FRAMES.to_string()));
    object.put(sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared]));
    object.put(sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, frames));
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(pixels.into())));
    change(&mut object);
    object.write_to_file(to).unwrap();
    to.to_owned()
}

fn placed(header: InstanceHeader) -> PlacedSlice {
    let plane = header.plane.clone().unwrap();
    PlacedSlice { header, plane, offset_mm: 0.0, slab_mm: 5.0 }
}

fn read(decoder: &Decoder, header: &InstanceHeader) -> Result<Slice, Reason> {
    match decoder.read_slice(&placed(header.clone())) {
        Ok(slice) => Ok(slice),
        Err(DecodeError::Slice(reason)) => Err(reason),
        Err(DecodeError::Unavailable(error)) => panic!("{error}"),
    }
}

/// Every frame of a file is one of the study's slices: values and plane, found by its position.
fn is_the_study(decoder: &Decoder, study: &WrittenStudy, path: &Path) {
    let sources: Vec<Slice> = study.files.iter().map(|file| read_slice(file).unwrap()).collect();
    let headers = InstanceHeader::read_all(path).unwrap();
    assert_eq!(headers.len(), sources.len(), "{}", path.display());
    let mut met = vec![false; sources.len()];
    for (index, header) in headers.iter().enumerate() {
        assert_eq!(header.frame, Some(index as u32 + 1));
        let slice = read(decoder, header).unwrap_or_else(|reason| panic!("{}: {reason}", path.display()));
        let source = sources.iter().position(|source| source.plane.position == slice.plane.position).unwrap();
        assert_eq!(slice.plane, sources[source].plane);
        assert_eq!(&slice.plane, header.plane.as_ref().unwrap());
        assert!(slice.hu == sources[source].hu, "frame {} of {}", index + 1, path.display());
        assert!(!std::mem::replace(&mut met[source], true), "frame {} is there twice", index + 1);
    }
}

#[test]
fn each_frame_is_its_slice_in_every_codec() {
    let folder = TempDir::new().unwrap();
    let (study, decoder) = (study(folder.path()), decoder());
    let path = enhanced(&study, &folder.path().join("enhanced.dcm"), |_| {});
    is_the_study(&decoder, &study, &path);
    assert_eq!(decoder.idle(), 0, "uncompressed frames need no child");
    for (tool, arguments) in [
        ("dcmconv", &["+ti"][..]),
        ("dcmconv", &["+tb"]),
        ("dcmconv", &["+e", "-e"]),
        ("dcmcrle", &[]),
        ("dcmcjpls", &["+el"]),
        ("dcmcjpls", &["+el", "+fs", "1"]),
        ("dcmcjpeg", &["+e1"]),
        ("dcmcjpeg", &["+e1", "-ot"]),
        ("gdcmconv", &["--j2k"]),
    ] {
        let Some(other) = converted(&path, tool, arguments) else { continue };
        is_the_study(&decoder, &study, &other);
    }
}

#[test]
fn frames_become_the_slices_of_a_volume_where_the_gate_lets_them() {
    let folder = TempDir::new().unwrap();
    let study = study(folder.path());
    let path = enhanced(&study, &folder.path().join("enhanced.dcm"), |_| {});
    let choose = |multi_frame| {
        let options = GateOptions { multi_frame, ..GateOptions::default() };
        let headers = InstanceHeader::read_all(&path).unwrap();
        choose_series(headers, &options, |_| Ok::<_, Infallible>(None)).unwrap()
    };
    let choice = choose(true);
    let (_, stack) = choice.chosen.unwrap_or_else(|| panic!("{:#?}", choice.outcomes));
    // The file has the uppermost first.
    let frames: Vec<u32> = stack.slices.iter().map(|slice| slice.header.frame.unwrap()).collect();
    assert_eq!(frames, (1..=FRAMES as u32).rev().collect::<Vec<_>>());
    assert!(stack.slices.windows(2).all(|pair| pair[1].plane.position[2] > pair[0].plane.position[2]));
    assert_eq!(stack.slices[0].header.kernel, InstanceHeader::read(&study.files[0]).unwrap().kernel);
    assert_eq!(stack.slices[0].header.image_type[2], "VOLUME");
    let window = MultiFrame::open(&path).unwrap().read(4).unwrap().window;
    assert_eq!(window, Some((33.0, 90.0)), "each frame has its own window");
    let aside = choose(false);
    assert!(aside.chosen.is_none());
    assert_eq!(aside.outcomes[0].reasons[0].code.as_str(), "enhanced-ct");
}

/// Changes the functional groups of one frame.
fn in_frame(object: &mut DefaultDicomObject, frame: usize, change: impl Fn(&mut InMemDicomObject)) {
    object.update_value(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, |groups| {
        change(&mut groups.items_mut().unwrap()[frame - 1]);
    });
}

#[test]
fn a_frame_without_a_place_is_named_and_the_others_go_on() {
    let folder = TempDir::new().unwrap();
    let study = study(folder.path());
    let path = enhanced(&study, &folder.path().join("enhanced.dcm"), |object| {
        in_frame(object, 3, |group| {
            group.remove_element(tags::PLANE_POSITION_SEQUENCE);
        });
        in_frame(object, 5, |group| {
            group.remove_element(tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
        });
    });
    let headers = InstanceHeader::read_all(&path).unwrap();
    assert_eq!(headers[2].plane.as_ref().unwrap_err().code.as_str(), "attribute-missing");
    assert!(headers[4].unscaled.is_some());
    let options = GateOptions { multi_frame: true, ..GateOptions::default() };
    let choice = choose_series(headers.clone(), &options, |_| Ok::<_, Infallible>(None)).unwrap();
    assert_eq!(choice.chosen.unwrap().1.slices.len(), FRAMES - 1);
    let said = &choice.outcomes[0].reasons;
    assert!(said.iter().any(|reason| reason.text.contains("frame 3: Image Position")), "{said:?}");
    let refused = read(&decoder(), &headers[4]).unwrap_err();
    assert_eq!(refused.code.as_str(), "attribute-missing", "{refused}");
}

#[test]
fn files_whose_frames_cannot_be_told_apart_are_refused() {
    let folder = TempDir::new().unwrap();
    let study = study(folder.path());
    let check = |name: &str, change: &dyn Fn(&mut DefaultDicomObject), text: &str| {
        let path = enhanced(&study, &folder.path().join(name), |object| change(object));
        let error = InstanceHeader::read_all(&path).unwrap_err();
        assert!(error.to_string().contains(text), "{name}: {error}");
    };
    let frames = |count: &'static str| {
        move |object: &mut DefaultDicomObject| {
            object.put(DataElement::new(tags::NUMBER_OF_FRAMES, VR::IS, count));
        }
    };
    let without = |tag| {
        move |object: &mut DefaultDicomObject| {
            object.remove_element(tag);
        }
    };
    check("fewer", &frames("21"), "has 22 items, Number of Frames is 21");
    check("more", &frames("4000000000"), "1 to 65536");
    check("none", &frames("0"), "is 0");
    check("negative", &frames("-1"), "Number of Frames");
    check("nothing", &without(tags::NUMBER_OF_FRAMES), "Number of Frames is missing");
    check(
        "groups",
        &without(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE),
        "Per-Frame Functional Groups Sequence is missing",
    );

    // Pixel data that end early: the frames before are whole.
    let path = enhanced(&study, &folder.path().join("short.dcm"), |object| {
        object.put(DataElement::new(
            tags::PIXEL_DATA,
            VR::OW,
            PrimitiveValue::U16(vec![7u16; 64 * 64 * 20 + 5].into()),
        ));
    });
    let (headers, decoder) = (InstanceHeader::read_all(&path).unwrap(), decoder());
    assert!(read(&decoder, &headers[19]).is_ok());
    for (frame, left) in [(20, "has 10 bytes"), (21, "has 0 bytes")] {
        let reason = read(&decoder, &headers[frame]).unwrap_err();
        assert!(reason.code.as_str() == "pixel-data-short" && reason.text.contains(left), "{reason}");
    }
    // Fragments that no table assigns.
    let whole = enhanced(&study, &folder.path().join("whole.dcm"), |_| {});
    if let Some(path) = converted(&whole, "dcmcjpls", &["+el", "+fs", "1", "-ot"]) {
        let headers = InstanceHeader::read_all(&path).unwrap();
        let reason = read(&decoder, &headers[3]).unwrap_err();
        assert!(reason.text.contains("cannot be told apart into 22 frames"), "{reason}");
    }
    let deflated = converted(&whole, "dcmconv", &["+td"]);
    if let Some(header) = deflated.map(|path| InstanceHeader::read_all(&path).unwrap().remove(0)) {
        assert_eq!(read(&decoder, &header).unwrap_err().code.as_str(), "codec-unsupported");
    }
}

/// Legacy Converted Enhanced CT as highdicom makes it of single-frame images.
const CONVERT: &str = "
import sys, glob, pydicom, highdicom
sources = [pydicom.dcmread(f) for f in sorted(glob.glob(sys.argv[1] + '/*.dcm'))]
highdicom.legacy.LegacyConvertedEnhancedCTImage(
    legacy_datasets=sources, series_instance_uid='1.2.3.4', series_number=9, sop_instance_uid='1.2.3.4.5',
    instance_number=1).save_as(sys.argv[2])
";

#[test]
fn legacy_converted_images_are_the_slices_they_were_made_of() {
    let Some(python) = std::env::var_os("ICHOR_TEST_PYTHON") else {
        assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none_or(|v| v != "1"), "ICHOR_TEST_PYTHON is not set");
        println!("SKIPPED: ICHOR_TEST_PYTHON names no interpreter with highdicom");
        return;
    };
    let folder = TempDir::new().unwrap();
    let study = study(folder.path());
    let path = folder.path().join("legacy.dcm");
    let slices = study.files[0].parent().unwrap();
    let output = Command::new(python).args(["-c", CONVERT]).arg(slices).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let header = InstanceHeader::read(&path).unwrap();
    assert_eq!(header.sop_class.as_str(), uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE);
    is_the_study(&decoder(), &study, &path);
    // What the conversion put among the unassigned attributes is found there.
    let kernel = InstanceHeader::read(&study.files[0]).unwrap().kernel;
    assert_eq!(InstanceHeader::read_all(&path).unwrap()[0].kernel, kernel);
}
