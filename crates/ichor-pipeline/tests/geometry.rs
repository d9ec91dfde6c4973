//! Geometry, proven: two spheres at known places in the patient, cut by series of every orientation, come back from the
//! written Segmentation where they are and as large as they are. No model has a part in it.
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

use std::path::Path;

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ichor_core::{ImagePlane, ModelId};
use ichor_ct::components::MaskStack;
use ichor_ct::header::InstanceHeader;
use ichor_ct::volume::Stack;
use ichor_result::{
    Encoding, MaskRun, Provenance, ReadFrame, SegmentationForm, SegmentationInput, SegmentationType, SliceMask,
    SourceHeader, SourceSlice, check, read_segmentation, write_segmentation,
};
use proptest::prelude::*;
use time::macros::datetime;

type Point = [f64; 3];

/// A lesion: its centre in patient coordinates and its radius, in mm.
#[derive(Clone, Copy, Debug)]
struct Sphere {
    centre: Point,
    radius: f64,
}

/// The largest first, as segments are numbered; far enough from each other to be two.
const SPHERES: [Sphere; 2] =
    [Sphere { centre: [13.7, -21.3, 41.9], radius: 20.0 }, Sphere { centre: [-24.1, 17.6, 63.2], radius: 14.0 }];
/// A point between them, which the series are laid around.
const MIDDLE: Point = [-5.0, -2.0, 52.0];

/// How a series cuts the patient.
#[derive(Clone, Debug)]
struct Cut {
    row: Point,
    column: Point,
    /// Rows' distance, then columns' distance.
    spacing: [f64; 2],
    /// Direction in which the table moves, and its steps between the slices in mm.
    table: Point,
    steps: Vec<f64>,
    /// Whether files are written in the opposite order of the position.
    decreasing: bool,
}

fn dot(a: Point, b: Point) -> f64 {
    (0..3).map(|i| a[i] * b[i]).sum()
}

fn cross(a: Point, b: Point) -> Point {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}

fn along(from: Point, direction: Point, length: f64) -> Point {
    [0, 1, 2].map(|i| from[i] + direction[i] * length)
}

fn rotated(v: Point, axis: usize, degrees: f64) -> Point {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut out = v;
    (out[a], out[b]) = (v[a] * cos - v[b] * sin, v[a] * sin + v[b] * cos);
    out
}

impl Cut {
    /// Axial, square pixels, 2 mm from slice to slice.
    fn axial() -> Self {
        Self {
            row: [1.0, 0.0, 0.0],
            column: [0.0, 1.0, 0.0],
            spacing: [0.9, 0.9],
            table: [0.0, 0.0, 1.0],
            steps: vec![2.0; 60],
            decreasing: false,
        }
    }

    /// A gantry tilt: the planes lean, the table moves on as before.
    fn tilted(degrees: f64) -> Self {
        Self { column: rotated([0.0, 1.0, 0.0], 0, degrees), ..Self::axial() }
    }

    /// Turned about all axes, the slices one behind the other along their normal.
    fn oblique(degrees: [f64; 3]) -> Self {
        let turn = |v| (0..3).fold(v, |v, axis| rotated(v, axis, degrees[axis]));
        let (row, column) = (turn([1.0, 0.0, 0.0]), turn([0.0, 1.0, 0.0]));
        Self { row, column, table: cross(row, column), ..Self::axial() }
    }

    /// Planes that hold both spheres.
    fn planes(&self) -> Vec<ImagePlane> {
        let size = |spacing: f64| (120.0 / spacing) as u32;
        let (rows, columns) = (size(self.spacing[0]), size(self.spacing[1]));
        let half = |count: u32, spacing: f64| f64::from(count - 1) * spacing / 2.0;
        let length: f64 = self.steps.iter().sum();
        let start = along(MIDDLE, self.table, -length / 2.0);
        let corner = along(start, self.row, -half(columns, self.spacing[1]));
        let corner = along(corner, self.column, -half(rows, self.spacing[0]));
        let mut travelled = 0.0;
        let mut planes: Vec<ImagePlane> = std::iter::once(&0.0)
            .chain(&self.steps)
            .map(|step| {
                travelled += step;
                ImagePlane {
                    position: along(corner, self.table, travelled),
                    row: self.row,
                    column: self.column,
                    spacing: self.spacing,
                    rows,
                    columns,
                }
            })
            .collect();
        if self.decreasing {
            planes.reverse();
        }
        planes
    }
}

/// Writes a CT image of nothing: its header is what counts.
fn write_image(folder: &Path, number: usize, plane: &ImagePlane) -> InstanceHeader {
    let join = |v: &[f64]| v.iter().map(|x| format!("{x:.9}")).collect::<Vec<_>>().join("\\");
    let orientation = join(&[plane.row, plane.column].concat());
    let texts = [
        (tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE.to_owned()),
        (tags::SOP_INSTANCE_UID, VR::UI, format!("2.25.7.{number}")),
        (tags::STUDY_INSTANCE_UID, VR::UI, "2.25.5".to_owned()),
        (tags::SERIES_INSTANCE_UID, VR::UI, "2.25.6".to_owned()),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, "2.25.8".to_owned()),
        (tags::MODALITY, VR::CS, "CT".to_owned()),
        (tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL".to_owned()),
        (tags::INSTANCE_NUMBER, VR::IS, number.to_string()),
        (tags::SLICE_THICKNESS, VR::DS, "2".to_owned()),
        (tags::IMAGE_POSITION_PATIENT, VR::DS, join(&plane.position)),
        (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, orientation),
        (tags::PIXEL_SPACING, VR::DS, join(&plane.spacing)),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2".to_owned()),
    ];
    let mut object =
        InMemDicomObject::from_element_iter(texts.into_iter().map(|(tag, vr, text)| DataElement::new(tag, vr, text)));
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, plane.rows as u16),
        (tags::COLUMNS, plane.columns as u16),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 16),
        (tags::HIGH_BIT, 15),
        (tags::PIXEL_REPRESENTATION, 1),
    ] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    let words = vec![0u16; (plane.rows * plane.columns) as usize];
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let path = folder.join(format!("{number}.dcm"));
    object.with_meta(meta).unwrap().write_to_file(&path).unwrap();
    InstanceHeader::read(&path).unwrap()
}

/// Marks the pixels whose centres lie in a sphere.
fn rasterise(plane: &ImagePlane) -> Vec<u8> {
    let inside = |at: u32| {
        let point = plane.point(f64::from(at / plane.columns), f64::from(at % plane.columns));
        let is_in = |sphere: &Sphere| {
            let from = [0, 1, 2].map(|i| point[i] - sphere.centre[i]);
            dot(from, from) <= sphere.radius * sphere.radius
        };
        u8::from(SPHERES.iter().any(is_in))
    };
    (0..plane.rows * plane.columns).map(inside).collect()
}

/// What the frames of an object say of one segment: centroid in patient coordinates, and millilitres.
fn measured(frames: &[ReadFrame], segment: u16) -> (Point, f64) {
    // The frames of a label map that show another lesion only lie elsewhere, and bound no slab of this one.
    let shows = |frame: &&ReadFrame| match frame.segment {
        Some(number) => number == segment,
        None => frame.mask.contains(&segment),
    };
    let mut shown: Vec<&ReadFrame> = frames.iter().filter(shows).collect();
    let normal = shown[0].plane.normal();
    let height = |frame: &ReadFrame| dot(frame.plane.position, normal);
    shown.sort_by(|a, b| height(a).total_cmp(&height(b)));
    let (mut sum, mut volume) = ([0.0; 3], 0.0);
    for (at, frame) in shown.iter().enumerate() {
        // Half of the way to either neighbour, from the object's own positions.
        let below = height(frame) - height(shown[at.saturating_sub(1)]);
        let above = height(shown[(at + 1).min(shown.len() - 1)]) - height(frame);
        let slab = match (at == 0, at + 1 == shown.len()) {
            (true, _) => above,
            (_, true) => below,
            _ => (below + above) / 2.0,
        };
        let is_here = |value: u16| if frame.segment.is_none() { value == segment } else { value > 0 };
        for (pixel, _) in (0u32..).zip(&frame.mask).filter(|(_, value)| is_here(**value)) {
            let (row, column) = (pixel / frame.plane.columns, pixel % frame.plane.columns);
            let point = frame.plane.point(f64::from(row), f64::from(column));
            let weight = frame.plane.pixel_area() * slab;
            sum = along(sum, point, weight);
            volume += weight;
        }
    }
    (sum.map(|s| s / volume), volume / 1000.0)
}

fn prove(cut: &Cut) {
    let folder = tempfile::tempdir().unwrap();
    let planes = cut.planes();
    let headers = (1..).zip(&planes).map(|(number, plane)| write_image(folder.path(), number, plane)).collect();
    let stack = Stack::new(headers);
    assert_eq!((stack.slices.len(), stack.left_out.len()), (planes.len(), 0), "{cut:?}");
    let mut masks = MaskStack::new(planes[0].rows, planes[0].columns);
    for slice in &stack.slices {
        let mask = rasterise(&slice.plane);
        masks.push_with_pixels(&mask, Some(&|at| 100 + (at % 100) as u8), None);
    }
    let slabs: Vec<f64> = stack.slices.iter().map(|slice| slice.slab_mm).collect();
    let area = stack.slices[0].plane.pixel_area();
    let lesions = masks.lesions(area, &slabs);
    assert_eq!(lesions.len(), SPHERES.len(), "{cut:?}");
    let slice_masks: Vec<SliceMask> = masks
        .lesion_runs(area, &slabs)
        .iter()
        .map(|runs| {
            let values = runs.iter().flat_map(|run| run.values).copied().collect();
            let run = |run: &ichor_ct::components::LesionRun<'_>| MaskRun {
                row: run.row,
                start: run.start,
                end: run.end,
                segment: run.lesion as u16 + 1,
            };
            SliceMask::new(runs.iter().map(run).collect(), values)
        })
        .collect();
    let slices: Vec<SourceSlice> = stack
        .slices
        .iter()
        .map(|slice| SourceSlice {
            sop_class: slice.header.sop_class.clone(),
            sop_instance: slice.header.sop_instance.clone(),
            frame_number: None,
            plane: slice.plane,
            slice_thickness_mm: slice.header.slice_thickness,
        })
        .collect();
    let header = SourceHeader::read(&stack.slices[0].header.path).unwrap();
    let model = ModelId::new("geometry", "1", &"ab".repeat(32)).unwrap();
    let forms = [
        (SegmentationType::Binary, Encoding::ExplicitLittleEndian),
        (SegmentationType::Fractional, Encoding::Deflated),
        (SegmentationType::LabelMap, Encoding::RleLossless),
    ];
    for (kind, encoding) in forms {
        let form = SegmentationForm::new(kind, encoding, false).unwrap();
        let input = SegmentationInput {
            provenance: Provenance {
                header: &header,
                model: &model,
                configuration_digest: "geometry",
                version: 1,
                accepted_at: datetime!(2026-01-02 03:04:05 UTC),
                series_number: None,
                looked_up_accession: None,
                research_notice: None,
            },
            slices: &slices,
            masks: &slice_masks,
            lesions: lesions.len() as u16,
            form,
        };
        let path = folder.path().join("seg.dcm");
        write_segmentation(&input, std::fs::File::create(&path).unwrap()).unwrap();
        check(std::fs::File::open(&path).unwrap(), form).unwrap();
        let read = read_segmentation(&path).unwrap();
        for ((segment, sphere), lesion) in (1u16..).zip(SPHERES).zip(&lesions) {
            let (centroid, volume_ml) = measured(&read.frames, segment);
            let off = [0, 1, 2].map(|i| centroid[i] - sphere.centre[i]);
            let normal = planes[0].normal();
            let between = cut.steps.iter().copied().fold(f64::INFINITY, f64::min) * dot(normal, cut.table).abs();
            // Half a voxel along each of its edges.
            let bounds = [(cut.row, cut.spacing[1] / 2.0), (cut.column, cut.spacing[0] / 2.0), (normal, between / 2.0)];
            for (axis, bound) in bounds {
                assert!(dot(off, axis).abs() <= bound, "{kind:?} {segment}: off by {off:?} mm, {cut:?}");
            }
            let truth = 4.0 / 3.0 * std::f64::consts::PI * sphere.radius.powi(3) / 1000.0;
            let errors = [volume_ml, lesion.volume_ml].map(|ml| (ml - truth).abs() / truth);
            assert!(errors.iter().all(|e| *e <= 0.02), "{kind:?} {segment}: {errors:?} of {truth} mL, {cut:?}");
        }
    }
}

#[test]
fn axial() {
    prove(&Cut::axial());
}

#[test]
fn decreasing_order() {
    prove(&Cut { decreasing: true, ..Cut::axial() });
}

#[test]
fn gantry_tilt() {
    for degrees in [-30.0, -17.5, 17.5, 30.0] {
        prove(&Cut::tilted(degrees));
    }
}

#[test]
fn rotated_in_plane() {
    prove(&Cut::oblique([0.0, 0.0, 25.0]));
}

#[test]
fn flipped() {
    // Mirrored columns (the normal points to the feet), feet first and prone.
    prove(&Cut { row: [-1.0, 0.0, 0.0], ..Cut::axial() });
    prove(&Cut { column: [0.0, -1.0, 0.0], ..Cut::axial() });
    prove(&Cut { row: [-1.0, 0.0, 0.0], column: [0.0, -1.0, 0.0], ..Cut::axial() });
}

#[test]
fn pixels_that_are_not_square() {
    prove(&Cut { spacing: [0.6, 1.1], ..Cut::axial() });
    prove(&Cut { spacing: [1.1, 0.6], ..Cut::tilted(22.0) });
}

#[test]
fn uneven_gaps() {
    // Thin slices below, thick ones above, and one missing here and there.
    let steps: Vec<f64> =
        (0..50).map(|i| if i < 22 { 2.0 } else { 3.0 } + if i % 9 == 4 { 1.5 } else { 0.0 }).collect();
    prove(&Cut { steps: steps.clone(), ..Cut::axial() });
    prove(&Cut { steps, ..Cut::tilted(-25.0) });
}

#[test]
fn oblique() {
    prove(&Cut::oblique([33.0, -21.0, 48.0]));
    prove(&Cut { decreasing: true, spacing: [0.7, 0.95], ..Cut::oblique([-12.0, 65.0, 7.0]) });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_cut(
        degrees in proptest::array::uniform3(-80.0f64..80.0),
        spacing in proptest::array::uniform2(0.5f64..1.2),
        step in 1.0f64..2.5,
        jitter in proptest::collection::vec(0.8f64..1.25, 20),
        decreasing in any::<bool>(),
    ) {
        let count = (120.0 / step) as usize;
        let steps = (0..count).map(|i| step * jitter[i % jitter.len()]).collect();
        prove(&Cut { spacing, steps, decreasing, ..Cut::oblique(degrees) });
    }
}
