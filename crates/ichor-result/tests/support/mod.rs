//! Source series written by the tests themselves, and the outside judges.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use dicom_core::value::{DataSetSequence, PrimitiveValue};
use dicom_core::{DataElement, Length, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ichor_core::{ImagePlane, ModelId, Uid};
use ichor_result::{
    MaskRun, Provenance, ResultError, Segmentation, SegmentationForm, SegmentationInput, SliceMask, SourceHeader,
    SourceSlice, check, write_segmentation,
};
use time::macros::datetime;

/// A phantom-like CT series: planes, and the bytes of every text attribute as a scanner would send them.
pub(crate) struct Series {
    pub(crate) planes: Vec<ImagePlane>,
    pub(crate) character_set: &'static str,
    pub(crate) patient_name: Vec<u8>,
    pub(crate) frame_of_reference: bool,
    pub(crate) extra: Vec<InMemElement>,
    pub(crate) without: Vec<Tag>,
}

pub(crate) type InMemElement = dicom_object::mem::InMemElement;

/// Study Instance UID of the written series.
pub(crate) const STUDY: &str = "2.25.100";

/// Planes of a gantry-tilted series with the given distances between slices.
pub(crate) fn tilted(rows: u32, columns: u32, tilt_degrees: f64, steps: &[f64]) -> Vec<ImagePlane> {
    let (sin, cos) = tilt_degrees.to_radians().sin_cos();
    let mut z = -20.123_456_7;
    std::iter::once(&0.0)
        .chain(steps)
        .map(|step| {
            z += step;
            ImagePlane {
                position: [-125.000_01, -123.540_456_9, z],
                row: [1.0, 0.0, 0.0],
                column: [0.0, cos, -sin],
                spacing: [0.488_281_2, 0.478_515_6],
                rows,
                columns,
            }
        })
        .collect()
}

impl Series {
    pub(crate) fn new(planes: Vec<ImagePlane>) -> Self {
        Self {
            planes,
            character_set: "ISO_IR 100",
            patient_name: b"Buc^J\xe9r\xf4me".to_vec(),
            frame_of_reference: true,
            extra: Vec::new(),
            without: Vec::new(),
        }
    }

    /// Writes only the first slice, which is all the builder reads, and describes all of them.
    pub(crate) fn write(&self, dir: &Path) -> (SourceHeader, Vec<SourceSlice>) {
        let slices: Vec<SourceSlice> = self
            .planes
            .iter()
            .enumerate()
            .map(|(i, plane)| SourceSlice {
                sop_class: Uid::parse(uids::CT_IMAGE_STORAGE).unwrap(),
                sop_instance: Uid::parse(&format!("2.25.300.{}", i + 1)).unwrap(),
                frame_number: None,
                plane: *plane,
                slice_thickness_mm: None,
            })
            .collect();
        let path = self.write_slice(dir, 0);
        (SourceHeader::read(path).unwrap(), slices)
    }

    /// Writes slice `i` as a CT Image Storage file.
    pub(crate) fn write_slice(&self, dir: &Path, i: usize) -> PathBuf {
        let plane = &self.planes[i];
        let join = |v: &[f64]| v.iter().map(|x| format!("{x:.7}")).collect::<Vec<_>>().join("\\");
        let instance = format!("2.25.300.{}", i + 1);
        let text = |tag, vr, value: &str| DataElement::new(tag, vr, PrimitiveValue::from(value));
        let mut object = InMemDicomObject::from_element_iter([
            text(tags::SPECIFIC_CHARACTER_SET, VR::CS, self.character_set),
            text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL"),
            text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
            text(tags::SOP_INSTANCE_UID, VR::UI, &instance),
            text(tags::STUDY_DATE, VR::DA, "20260102"),
            text(tags::STUDY_TIME, VR::TM, "030405"),
            text(tags::ACCESSION_NUMBER, VR::SH, "A-17"),
            text(tags::MODALITY, VR::CS, "CT"),
            text(tags::MANUFACTURER, VR::LO, "Scanner Works"),
            text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "Tomo 1"),
            text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "Doctor^Who"),
            text(tags::STUDY_DESCRIPTION, VR::LO, "CT HEAD"),
            text(tags::PATIENT_ID, VR::LO, "P-1"),
            text(tags::PATIENT_BIRTH_DATE, VR::DA, "19700101"),
            text(tags::PATIENT_SEX, VR::CS, "O"),
            text(tags::BODY_PART_EXAMINED, VR::CS, "HEAD"),
            text(tags::SLICE_THICKNESS, VR::DS, "4.5"),
            text(tags::STUDY_INSTANCE_UID, VR::UI, STUDY),
            text(tags::SERIES_INSTANCE_UID, VR::UI, "2.25.200"),
            text(tags::STUDY_ID, VR::SH, "S1"),
            text(tags::SERIES_NUMBER, VR::IS, "2"),
            text(tags::INSTANCE_NUMBER, VR::IS, &(i + 1).to_string()),
            text(tags::IMAGE_POSITION_PATIENT, VR::DS, &join(&plane.position)),
            text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, &join(&[plane.row, plane.column].concat())),
            text(tags::PIXEL_SPACING, VR::DS, &join(&plane.spacing)),
            DataElement::new(tags::SAMPLES_PER_PIXEL, VR::US, PrimitiveValue::from(1u16)),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
            DataElement::new(tags::ROWS, VR::US, PrimitiveValue::from(plane.rows as u16)),
            DataElement::new(tags::COLUMNS, VR::US, PrimitiveValue::from(plane.columns as u16)),
            DataElement::new(tags::BITS_ALLOCATED, VR::US, PrimitiveValue::from(16u16)),
            DataElement::new(tags::BITS_STORED, VR::US, PrimitiveValue::from(16u16)),
            DataElement::new(tags::HIGH_BIT, VR::US, PrimitiveValue::from(15u16)),
            DataElement::new(tags::PIXEL_REPRESENTATION, VR::US, PrimitiveValue::from(1u16)),
        ]);
        if self.frame_of_reference {
            object.put(text(tags::FRAME_OF_REFERENCE_UID, VR::UI, "2.25.400"));
        }
        for element in &self.extra {
            object.put(element.clone());
        }
        for tag in &self.without {
            object.remove_element(*tag);
        }
        let pixels = vec![0u8; (plane.rows * plane.columns * 2) as usize];
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::from(pixels)));
        let file =
            object.with_meta(FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)).unwrap();
        let mut bytes = Vec::new();
        file.write_all(&mut bytes).unwrap();
        insert_name(&mut bytes, &self.patient_name);
        let path = dir.join(format!("{:04}.dcm", i + 1));
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Puts the raw bytes of Patient's Name in front of Patient ID: dicom-rs would encode them, and not all sets can.
fn insert_name(bytes: &mut Vec<u8>, name: &[u8]) {
    let patient_id = [0x10, 0x00, 0x20, 0x00, b'L', b'O'];
    let at = bytes.windows(6).position(|w| w == patient_id).unwrap();
    let padded = [name, if name.len() % 2 == 1 { b" " } else { b"" }].concat();
    let mut element = vec![0x10, 0x00, 0x10, 0x00, b'P', b'N'];
    element.extend((padded.len() as u16).to_le_bytes());
    element.extend(padded);
    bytes.splice(at..at, element);
}

/// A sequence with one coded item.
pub(crate) fn code_sequence(tag: Tag, value: &str, scheme: &str, meaning: &str) -> InMemElement {
    let item = InMemDicomObject::from_element_iter([
        DataElement::new(tags::CODE_VALUE, VR::SH, value),
        DataElement::new(tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme),
        DataElement::new(tags::CODE_MEANING, VR::LO, meaning),
    ]);
    DataElement::new(tag, VR::SQ, DataSetSequence::new(vec![item], Length::UNDEFINED))
}

/// A blob per slice, different on each, that touches the first and the last pixel of some.
pub(crate) fn blobs(planes: &[ImagePlane], carries: impl Fn(usize) -> bool) -> Vec<Option<Vec<u8>>> {
    planes
        .iter()
        .enumerate()
        .map(|(i, plane)| {
            let (rows, columns) = (plane.rows as usize, plane.columns as usize);
            let mask: Vec<u8> = (0..rows * columns)
                .map(|p| {
                    let (r, c) = (p / columns, p % columns);
                    let blob = (r + i) % 7 < 3 && c * 3 > r && c < columns / 2 + i;
                    let corner = i % 2 == 0 && (p == 0 || p + 1 == rows * columns);
                    if blob || corner { 1 + (p % 3) as u8 } else { 0 }
                })
                .collect();
            carries(i).then_some(mask)
        })
        .collect()
}

pub(crate) fn model() -> ModelId {
    ModelId::new("ichor-demo", "1.0.0", "0123456789abcdef").unwrap()
}

/// A segmentation with its file in memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Built {
    pub(crate) object: Segmentation,
    pub(crate) part10: Vec<u8>,
}

impl std::ops::Deref for Built {
    type Target = Segmentation;

    fn deref(&self) -> &Segmentation {
        &self.object
    }
}

/// Masks of pixels as the builder takes them: any pixel that is not 0 belongs to segment 1.
pub(crate) fn one_lesion(planes: &[ImagePlane], masks: &[Option<Vec<u8>>]) -> Vec<SliceMask> {
    let columns = planes.first().map_or(0, |plane| plane.columns);
    masks
        .iter()
        .map(|mask| {
            let labels: Vec<u8> = mask.iter().flatten().map(|pixel| u8::from(*pixel != 0)).collect();
            SliceMask::from_labels(&labels, columns)
        })
        .collect()
}

/// Masks with a value for each pixel: its label gives the segment, its value the probability.
pub(crate) fn valued(labels: &[u8], values: &[u8], columns: u32) -> SliceMask {
    let mut runs = Vec::new();
    let mut kept = Vec::new();
    for (at, (label, value)) in labels.iter().zip(values).enumerate().filter(|(_, (label, _))| **label != 0) {
        let (row, start) = (at as u32 / columns, at as u32 % columns);
        runs.push(MaskRun { row, start, end: start + 1, segment: u16::from(*label) });
        kept.push(*value);
    }
    SliceMask::new(runs, kept)
}

/// Builds the usual form with the usual model, configuration and time, from one lesion.
pub(crate) fn build(
    header: &SourceHeader,
    slices: &[SourceSlice],
    masks: &[Option<Vec<u8>>],
    version: u32,
) -> Result<Built, ResultError> {
    let planes: Vec<ImagePlane> = slices.iter().map(|slice| slice.plane).collect();
    build_form(header, slices, &one_lesion(&planes, masks), 1, SegmentationForm::default(), version)
}

/// Builds a form with the usual model, configuration and time; what comes out passes the check.
pub(crate) fn build_form(
    header: &SourceHeader,
    slices: &[SourceSlice],
    masks: &[SliceMask],
    lesions: u16,
    form: SegmentationForm,
    version: u32,
) -> Result<Built, ResultError> {
    let mut part10 = Vec::new();
    let input = SegmentationInput {
        provenance: Provenance {
            header,
            model: &model(),
            configuration_digest: "sha256:00ff",
            version,
            accepted_at: datetime!(2026-01-02 03:14:15.5 +1),
            series_number: None,
            looked_up_accession: None,
            research_notice: Some("For research use only; demonstration weights trained on synthetic data"),
        },
        slices,
        masks,
        lesions,
        form,
    };
    let object = write_segmentation(&input, &mut part10)?;
    check(std::io::Cursor::new(part10.clone()), form).unwrap();
    Ok(Built { object, part10 })
}

/// The shared real series, or `None` with a printed reason.
pub(crate) fn real_series() -> Option<Vec<PathBuf>> {
    let base = std::env::var_os("ICHOR_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let mut files: Vec<PathBuf> = std::fs::read_dir(base.join("head-ct-ge"))
        .map(|dir| dir.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "dcm")).collect())
        .unwrap_or_default();
    files.sort();
    if files.is_empty() {
        eprintln!("skipped: no head-ct-ge in {} (set ICHOR_TEST_DATA)", base.display());
        return None;
    }
    Some(files)
}

/// Header and slices of real files.
pub(crate) fn describe(files: &[PathBuf]) -> (SourceHeader, Vec<SourceSlice>) {
    let slices = files.iter().map(|path| {
        let object = dicom_object::open_file(path).unwrap();
        let number = |tag| object.element(tag).unwrap().to_multi_float64().unwrap();
        let uid = |tag| Uid::parse(&object.element(tag).unwrap().to_str().unwrap()).unwrap();
        let (o, p, s) = (
            number(tags::IMAGE_ORIENTATION_PATIENT),
            number(tags::IMAGE_POSITION_PATIENT),
            number(tags::PIXEL_SPACING),
        );
        SourceSlice {
            sop_class: uid(tags::SOP_CLASS_UID),
            sop_instance: uid(tags::SOP_INSTANCE_UID),
            frame_number: None,
            plane: ImagePlane {
                position: [p[0], p[1], p[2]],
                row: [o[0], o[1], o[2]],
                column: [o[3], o[4], o[5]],
                spacing: [s[0], s[1]],
                rows: object.element(tags::ROWS).unwrap().to_int().unwrap(),
                columns: object.element(tags::COLUMNS).unwrap().to_int().unwrap(),
            },
            slice_thickness_mm: None,
        }
    });
    (SourceHeader::read(&files[0]).unwrap(), slices.collect())
}

/// Runs a program; `None` with a printed reason where it is not installed.
pub(crate) fn run(program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).output() {
        Ok(output) => Some(output),
        Err(e) => {
            eprintln!("skipped: {program} cannot be started: {e}");
            None
        }
    }
}

/// Runs a judge of this folder in the tests' Python, and returns what it says; `None` with a printed reason where the
/// judge is not installed.
pub(crate) fn python(script: &str, arguments: &[&str]) -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(script);
    let python = std::env::var("ICHOR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = run(&python, &[&[script.to_str().unwrap()], arguments].concat())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) {
        assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none(), "{python}: {out}");
        eprintln!("skipped: {python}: {out}");
        return None;
    }
    assert!(output.status.success(), "{}: {out}{err}", script.display());
    Some(out.trim().to_owned())
}

/// Lets pydicom read every element of files at its strictest: how many there are, or what is wrong. `None` with a printed
/// reason where there is no pydicom.
pub(crate) fn read_strictly(files: &[&str]) -> Option<Result<usize, String>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/judges/read_strictly.py");
    let python = std::env::var("ICHOR_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = run(&python, &[&[script], files].concat())?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match output.status.code() {
        Some(0) => Some(Ok(said.strip_suffix(" elements").unwrap().parse().unwrap())),
        Some(1) if !said.is_empty() => Some(Err(said)),
        Some(77) => {
            assert!(std::env::var_os("ICHOR_REQUIRE_TOOLS").is_none(), "{python}: {said}");
            eprintln!("skipped: {python}: {said}");
            None
        }
        _ => panic!("{script}: {said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// dciodvfy's lines about a file; fails on any error line.
pub(crate) fn judge(path: &Path) {
    let Some(output) = run("dciodvfy", &[path.to_str().unwrap()]) else { return };
    let lines = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    let errors: Vec<&str> = lines.lines().filter(|l| l.starts_with("Error")).collect();
    assert!(errors.is_empty(), "dciodvfy {}:\n{}", path.display(), errors.join("\n"));
    assert!(lines.contains("Segmentation"), "dciodvfy did not recognise the object:\n{lines}");
    for warning in lines.lines().filter(|l| l.starts_with("Warning")) {
        println!("dciodvfy: {warning}");
    }
}
