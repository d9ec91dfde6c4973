//! Every form of a Segmentation: three types, three encodings, with and without empty frames, judged from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Cursor;
use std::path::Path;

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;
use ichor_core::ImagePlane;
use ichor_result::{
    Encoding, FormError, ResultError, SegmentationForm, SegmentationType, SliceMask, SourceHeader, SourceSlice, check,
    read_segmentation,
};
use serde_json::{Value, json};
use support::{Built, Series, build_form, judge, read_strictly, run, tilted, valued};

const KINDS: [SegmentationType; 3] =
    [SegmentationType::Binary, SegmentationType::Fractional, SegmentationType::LabelMap];
const ENCODINGS: [Encoding; 3] = [Encoding::ExplicitLittleEndian, Encoding::Deflated, Encoding::RleLossless];

fn all_forms() -> Vec<SegmentationForm> {
    let of_kind =
        |kind| ENCODINGS.map(|encoding| [false, true].map(|empty| SegmentationForm::new(kind, encoding, empty)));
    KINDS.into_iter().flat_map(of_kind).flatten().flatten().collect()
}

fn form(kind: SegmentationType, encoding: Encoding) -> SegmentationForm {
    SegmentationForm::new(kind, encoding, false).unwrap()
}

/// A tilted, unevenly spaced series of odd size with three lesions: labels, values, and the builder's masks.
struct Case {
    dir: tempfile::TempDir,
    series: Series,
    header: SourceHeader,
    slices: Vec<SourceSlice>,
    labels: Vec<Vec<u8>>,
    values: Vec<Vec<u8>>,
    masks: Vec<SliceMask>,
}

impl Case {
    fn new(rows: u32, columns: u32, tilt: f64, steps: &[f64]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let planes = tilted(rows, columns, tilt, steps);
        // dcentvfy compares bytes: a name of ASCII is the same in every character set.
        let series = Series { patient_name: b"Buc^Jerome".to_vec(), ..Series::new(planes.clone()) };
        let (header, slices) = series.write(dir.path());
        let labels: Vec<Vec<u8>> = (0..planes.len()).map(|at| three_lesions(&planes[at], at, planes.len())).collect();
        let value = |(at, label): (usize, &u8)| if *label == 0 { 0 } else { 1 + (at * 37 % 255) as u8 };
        let values: Vec<Vec<u8>> = labels.iter().map(|l| l.iter().enumerate().map(value).collect()).collect();
        let masks = labels.iter().zip(&values).map(|(labels, values)| valued(labels, values, columns)).collect();
        Self { dir, series, header, slices, labels, values, masks }
    }

    fn build(&self, form: SegmentationForm) -> Built {
        build_form(&self.header, &self.slices, &self.masks, 3, form, 1).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Slices 1 and the last carry nothing; every lesion touches another, and one the last pixel.
fn three_lesions(plane: &ImagePlane, slice: usize, slices: usize) -> Vec<u8> {
    let (rows, columns) = (plane.rows as usize, plane.columns as usize);
    let label = |at: usize| {
        let (row, column) = (at / columns, at % columns);
        match (row < rows / 2, column < columns / 2) {
            _ if slice == 1 || slice + 1 == slices => 0,
            (true, true) if slice > 1 => 1,
            (true, false) if (row + column + slice).is_multiple_of(3) => 2,
            (false, _) if at + 1 == rows * columns || (slice == 2 && column == 0) => 3,
            _ => 0,
        }
    };
    (0..rows * columns).map(label).collect()
}

/// What every frame must show, by the labels and values of its slice.
fn expected_frame(case: &Case, slice: usize, segment: Option<u16>, kind: SegmentationType) -> Vec<u16> {
    let pixels = case.labels[slice].iter().zip(&case.values[slice]);
    let is_here = |label: u8| segment == Some(u16::from(label));
    match kind {
        SegmentationType::Binary => pixels.map(|(label, _)| u16::from(is_here(*label))).collect(),
        SegmentationType::Fractional => {
            pixels.map(|(label, value)| if is_here(*label) { u16::from(*value) } else { 0 }).collect()
        }
        SegmentationType::LabelMap => pixels.map(|(label, _)| u16::from(*label)).collect(),
    }
}

#[test]
fn every_form_holds_the_same_pixels() {
    let case = Case::new(13, 11, 18.5, &[1.14, 4.22, 7.38, 4.22]);
    let forms = all_forms();
    assert_eq!(forms.len(), 16, "eighteen, less the binary ones in RLE");
    let mut objects = std::collections::BTreeSet::new();
    let mut tracked = std::collections::BTreeSet::new();
    for form in forms {
        let seg = case.build(form);
        assert_eq!(seg, case.build(form), "the same input gives the same bytes");
        assert_eq!(seg.part10.len() % 2, 0, "{}", form.words());
        objects.insert(seg.sop_instance.clone());
        tracked.insert(seg.segments.iter().map(|s| s.tracking_uid.as_str().to_owned()).collect::<Vec<_>>());
        let read = read_segmentation(case.write("seg.dcm", &seg.part10)).unwrap();
        assert_eq!((read.kind, read.frames.len()), (form.kind(), seg.frames), "{}", form.words());
        for frame in &read.frames {
            let slice = case.slices.iter().position(|s| s.sop_instance == frame.source_sop_instance).unwrap();
            assert!(frame.mask == expected_frame(&case, slice, frame.segment, form.kind()), "{}", form.words());
        }
        let (slices, carrying): (usize, usize) = (5, 3);
        let expected = match (form.kind(), form.empty_frames()) {
            (SegmentationType::LabelMap, true) => slices,
            (SegmentationType::LabelMap, false) => carrying,
            (_, true) => 3 * slices,
            (_, false) => 2 + 3 + 3,
        };
        assert_eq!(seg.frames, expected, "{}", form.words());
    }
    assert_eq!(objects.len(), 16, "each form is an object of its own");
    assert_eq!(tracked.len(), 1, "and its lesions are the same");
    assert_eq!(tracked.first().unwrap().iter().collect::<std::collections::BTreeSet<_>>().len(), 3);
}

#[test]
fn dciodvfy_and_dcentvfy_find_nothing() {
    let case = Case::new(16, 18, -12.0, &[5.0, 5.0, 5.0, 5.0]);
    let sources: Vec<String> = (0..case.slices.len())
        .map(|at| case.series.write_slice(case.dir.path(), at).to_str().unwrap().to_owned())
        .collect();
    let errors = |files: &[String]| -> Option<Vec<String>> {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let output = run("dcentvfy", &files)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        Some(text.lines().filter(|l| l.contains("Error") || l.contains("Warning")).map(str::to_owned).collect())
    };
    let Some(of_sources) = errors(&sources) else { return };
    for form in all_forms() {
        let seg = case.build(form);
        let path = case.write(&format!("{}.dcm", form.words()), &seg.part10);
        // dicom3tools reads no deflated data set, those of DCMTK included: DCMTK inflates ours, and judges it thereby.
        let inflated = case.dir.path().join("inflated.dcm").to_str().unwrap().to_owned();
        let path = if form.encoding() == Encoding::Deflated {
            let output = run("dcmconv", &["+te", &path, &inflated]).unwrap();
            assert!(output.status.success(), "dcmconv: {}", String::from_utf8_lossy(&output.stderr));
            inflated
        } else {
            path
        };
        // The label map is younger than dicom3tools; what it holds in common with the others is judged with them.
        if form.kind() != SegmentationType::LabelMap {
            judge(Path::new(&path));
        }
        let with_object: Vec<String> = sources.iter().cloned().chain([path]).collect();
        let mut found = errors(&with_object).unwrap();
        if form.kind() == SegmentationType::LabelMap {
            // Warnings that the class is not known, and what follows of it.
            found.retain(|line| line.contains("Error"));
        }
        assert_eq!(found, of_sources, "dcentvfy: {}", form.words());
    }
}

#[test]
fn pydicom_at_its_strictest_reads_every_element_of_every_form() {
    let case = Case::new(13, 11, 18.5, &[1.14, 4.22, 7.38, 4.22]);
    let mut files = Vec::new();
    for form in all_forms() {
        files.push(case.write(&format!("{}.dcm", form.words()), &case.build(form).part10));
    }
    assert_eq!(files.len(), 16, "each form in a file of its own");
    let Some(said) = read_strictly(&files.iter().map(String::as_str).collect::<Vec<_>>()) else { return };
    assert_eq!(said.map(|elements| elements > 16 * 100), Ok(true));

    // The judge itself: it must see a value that its VR forbids, one too many, and an element that no standard has.
    let plain = case.build(form(SegmentationType::Binary, Encoding::ExplicitLittleEndian));
    let broken = [
        (DataElement::new(tags::CONTENT_DATE, VR::DA, PrimitiveValue::from("2026-1-1")), "(0008,0023)"),
        (DataElement::new(tags::INSTANCE_NUMBER, VR::IS, PrimitiveValue::from("1\\2")), "2 values, 1 allowed"),
        (DataElement::new(dicom_core::Tag(0x0028, 0x0007), VR::US, PrimitiveValue::from(1u16)), "(0028,0007)"),
        (DataElement::new(dicom_core::Tag(0x0029, 0x0010), VR::LO, PrimitiveValue::from("X")), "private"),
    ];
    for (element, complaint) in broken {
        let path = case.write("broken.dcm", &plain.part10);
        let mut object = dicom_object::open_file(&path).unwrap();
        object.put(element);
        object.write_to_file(&path).unwrap();
        let said = read_strictly(&[&path]).unwrap().unwrap_err();
        assert!(said.contains(complaint) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn highdicom_reads_every_form() {
    for (rows, columns, tilt, steps) in
        [(13, 11, 18.5, &[1.14, 4.22, 7.38, 4.22][..]), (16, 24, 0.0, &[5.0, 5.0, 5.0, 5.0][..])]
    {
        let case = Case::new(rows, columns, tilt, steps);
        let sources: Vec<Value> = case
            .slices
            .iter()
            .enumerate()
            .map(|(at, slice)| {
                json!({
                    "uid": slice.sop_instance.as_str(),
                    "position": slice.plane.position,
                    "labels": case.write(&format!("{at}.labels"), &case.labels[at]),
                    "values": case.write(&format!("{at}.values"), &case.values[at]),
                })
            })
            .collect();
        // The second series is there for its even size alone.
        let forms = all_forms().into_iter().filter(|form| rows % 2 == 1 || form.encoding() == Encoding::Deflated);
        for form in forms {
            let seg = case.build(form);
            let segments: Vec<Value> = seg
                .segments
                .iter()
                .map(|s| json!({ "number": s.number, "tracking_uid": s.tracking_uid.as_str() }))
                .collect();
            let expected = json!({
                "type": form.kind().defined_term(), "rows": rows, "columns": columns,
                "segments": segments, "sources": sources,
            });
            let (seg, expected) =
                (case.write("seg.dcm", &seg.part10), case.write("e.json", expected.to_string().as_bytes()));
            let Some(said) = support::python("read_forms_with_highdicom.py", &[&seg, &expected]) else { return };
            println!("highdicom, {}: {said}", form.words());
        }
    }
}

#[test]
fn dcmqi_makes_the_same_volume() {
    let case = Case::new(16, 18, 0.0, &[5.0, 5.0, 5.0, 5.0]);
    let all: Vec<u8> = case.labels.concat();
    for (encoding, empty) in [(Encoding::ExplicitLittleEndian, false), (Encoding::ExplicitLittleEndian, true)] {
        let seg = case.build(SegmentationForm::new(SegmentationType::Binary, encoding, empty).unwrap());
        let (seg, labels) = (case.write("seg.dcm", &seg.part10), case.write("all.labels", &all));
        let expected = json!({
            "labels": labels, "shape": [case.slices.len(), 16, 18],
            "spacing": [5.0, case.slices[0].plane.spacing[0], case.slices[0].plane.spacing[1]],
            "origin": case.slices[0].plane.position,
        });
        let expected = case.write("expected.json", expected.to_string().as_bytes());
        let Some(said) = support::python("read_with_dcmqi.py", &[&seg, &expected]) else { return };
        println!("{said}");
    }
}

#[test]
fn dcm2niix_reads_the_sources() {
    let case = Case::new(16, 18, 0.0, &[5.0, 5.0, 5.0, 5.0]);
    let folder = case.dir.path().join("sources");
    std::fs::create_dir(&folder).unwrap();
    for at in 0..case.slices.len() {
        case.series.write_slice(&folder, at);
    }
    let spacing = case.slices[0].plane.spacing;
    let expected = json!({ "shape": [5, 16, 18], "spacing": [5.0, spacing[0], spacing[1]] });
    let expected = case.write("expected.json", expected.to_string().as_bytes());
    let said = support::python("read_with_dcm2niix.py", &[folder.to_str().unwrap(), &expected]);
    println!("{said:?}");
}

#[test]
fn what_cannot_be_is_refused() {
    let rle = SegmentationForm::new(SegmentationType::Binary, Encoding::RleLossless, false);
    assert_eq!(rle, Err(FormError::RleOfBits));
    let case = Case::new(13, 11, 0.0, &[5.0, 5.0, 5.0, 5.0]);
    let build = |masks: &[SliceMask], lesions, kind| {
        let form = form(kind, Encoding::ExplicitLittleEndian);
        build_form(&case.header, &case.slices, masks, lesions, form, 1).unwrap_err()
    };
    let no_values: Vec<SliceMask> = case.labels.iter().map(|labels| SliceMask::from_labels(labels, 11)).collect();
    assert!(matches!(build(&no_values, 3, SegmentationType::Fractional), ResultError::NoValues { .. }));
    assert!(matches!(build(&case.masks, 4, SegmentationType::LabelMap), ResultError::EmptyLesion { number: 4 }));
    assert!(matches!(build(&case.masks, 2, SegmentationType::Binary), ResultError::Mask { .. }));
    assert!(matches!(build(&[], 3, SegmentationType::Binary), ResultError::MaskCount { masks: 0, slices: 5 }));
}

#[test]
fn more_lesions_than_a_byte_counts() {
    let dir = tempfile::tempdir().unwrap();
    let planes = tilted(20, 40, 0.0, &[5.0]);
    let (header, slices) = Series::new(planes.clone()).write(dir.path());
    let runs = |slice: u16| -> Vec<ichor_result::MaskRun> {
        let run = |at: u16| ichor_result::MaskRun {
            row: u32::from(at) * 2 / 40,
            start: u32::from(at) * 2 % 40,
            end: u32::from(at) * 2 % 40 + 1,
            segment: slice * 200 + at + 1,
        };
        (0..200).map(run).collect()
    };
    let masks = [0, 1].map(|slice| SliceMask::new(runs(slice), vec![200; 200]));
    for encoding in ENCODINGS {
        let form = form(SegmentationType::LabelMap, encoding);
        let seg = build_form(&header, &slices, &masks, 400, form, 1).unwrap();
        let path = dir.path().join("seg.dcm");
        std::fs::write(&path, &seg.part10).unwrap();
        let read = read_segmentation(&path).unwrap();
        let highest = read.frames.iter().flat_map(|frame| frame.mask.iter().copied()).max();
        assert_eq!((read.frames.len(), highest), (2, Some(400)), "{}", form.words());
    }
}

#[test]
fn the_check_finds_what_is_broken_in_every_form() {
    let case = Case::new(9, 7, 0.0, &[5.0, 5.0, 5.0, 5.0]);
    let us = |tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
    let cs = |tag, value: &str| DataElement::new(tag, VR::CS, PrimitiveValue::from(value));
    let broken = |form: SegmentationForm, why: &str, change: &dyn Fn(&mut DefaultDicomObject)| {
        let mut object = dicom_object::from_reader(&case.build(form).part10[..]).unwrap();
        change(&mut object);
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).unwrap();
        let problems = check(Cursor::new(bytes), form).expect_err(why).problems;
        assert!(problems.iter().any(|p| p.contains(why)), "{why}: {problems:?}");
    };
    let plain = |kind| form(kind, Encoding::ExplicitLittleEndian);
    for kind in KINDS {
        broken(plain(kind), "segmentation type", &|o| drop(o.put(cs(tags::SEGMENTATION_TYPE, "OTHER"))));
        broken(plain(kind), "bits allocated", &|o| drop(o.put(us(tags::BITS_ALLOCATED, 32))));
        broken(plain(kind), "segments overlap", &|o| drop(o.put(cs(tags::SEGMENTS_OVERLAP, "YES"))));
        broken(plain(kind), "is tracked as", &|o| {
            o.update_value(tags::SEGMENT_SEQUENCE, |segments| {
                assert!(segments.items_mut().unwrap()[1].remove_element(tags::TRACKING_UID));
            });
        });
    }
    let (fraction, map) = (plain(SegmentationType::Fractional), plain(SegmentationType::LabelMap));
    broken(fraction, "maximum fractional value", &|o| drop(o.put(us(tags::MAXIMUM_FRACTIONAL_VALUE, 100))));
    broken(fraction, "fractional type", &|o| assert!(o.remove_element(tags::SEGMENTATION_FRACTIONAL_TYPE)));
    broken(map, "pixel padding value", &|o| assert!(o.remove_element(tags::PIXEL_PADDING_VALUE)));
    let pixels = |o: &DefaultDicomObject| o.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().into_owned();
    let put = |o: &mut DefaultDicomObject, bytes: Vec<u8>| {
        o.put(DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::from(bytes)));
    };
    broken(map, "segment 9, which is not described", &|o| {
        let mut bytes = pixels(o);
        bytes[5] = 9;
        put(o, bytes);
    });
    broken(map, "have no pixel", &|o| {
        let bytes = pixels(o).into_iter().map(|label| if label == 2 { 1 } else { label }).collect();
        put(o, bytes);
    });
    broken(map, "frames without mask", &|o| {
        let mut bytes = pixels(o);
        bytes[..63].fill(0);
        put(o, bytes);
    });
    for kind in KINDS {
        broken(plain(kind), "pixel data of", &|o| {
            let mut bytes = pixels(o);
            bytes.truncate(bytes.len() - 2);
            put(o, bytes);
        });
    }

    // What is not as the form says, and files cut off at any place, bit by bit of them.
    for form in all_forms() {
        let seg = case.build(form);
        for other in
            all_forms().into_iter().filter(|other| (other.kind(), other.encoding()) != (form.kind(), form.encoding()))
        {
            assert!(check(Cursor::new(seg.part10.clone()), other).is_err(), "{} as {}", form.words(), other.words());
        }
        for length in (0..seg.part10.len() - 1).rev().step_by(97) {
            let cut = Cursor::new(seg.part10[..length].to_vec());
            assert!(check(cut, form).is_err(), "{} cut to {length}", form.words());
        }
        let longer = Cursor::new([&seg.part10[..], &[1, 2]].concat());
        if form.encoding() != Encoding::Deflated {
            assert!(check(longer, form).is_err(), "{} with more behind", form.words());
        }
    }
    let rle = form(SegmentationType::LabelMap, Encoding::RleLossless);
    let mut bytes = case.build(rle).part10;
    let end = bytes.len();
    bytes[end - 8..].copy_from_slice(&[0xfe, 0xff, 0x00, 0xe0, 0, 0, 0, 0]);
    assert!(check(Cursor::new(bytes), rle).is_err(), "no end of the fragments");
}
