//! Frames and their functional groups (PS3.3 C.7.6.16, C.8.20.3).

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;

use crate::codes;
use crate::element::{Element, decimals, sequence, text, us};
use crate::error::ResultError;
use crate::form::SegmentationType;
use crate::mask::SliceMask;
use crate::segmentation::{SegmentationInput, SourceSlice};

/// Direction cosines and spacings that differ by no more than this are the same for the whole object: over 512 pixels
/// of 0.5 mm the difference is below 0.0003 mm.
const SAME: f64 = 1e-6;
/// Slices nearer to each other than this, in mm, lie at the same place.
const SAME_PLACE_MM: f64 = 1e-3;
/// Slice distances that differ by no more than this, in mm, are even.
const EVEN_MM: f64 = 0.01;

/// One frame to be.
pub(crate) struct Frame<'a> {
    pub(crate) slice: &'a SourceSlice,
    pub(crate) mask: &'a SliceMask,
    /// The segment; `None` in a label map, where a frame shows all of them.
    pub(crate) segment: Option<u16>,
    /// One-based place of the slice among those that have frames, along the normal: the position's dimension index.
    position: u32,
}

/// Checks the input and lists the frames: segment by segment, and within each in the order of position along the normal.
pub(crate) fn select<'a>(input: &SegmentationInput<'a>) -> Result<Vec<Frame<'a>>, ResultError> {
    let placed = placed_slices(input)?;
    let keeps_empty = input.form.empty_frames();
    let shown = (1u32..).zip(placed).map(|(position, (slice, mask))| (position, slice, mask, mask.segments()));
    let shown: Vec<_> = shown.collect();
    let frame = |(position, slice, mask, _): &(u32, &'a SourceSlice, &'a SliceMask, Vec<u16>), segment| Frame {
        slice,
        mask,
        segment,
        position: *position,
    };
    if input.form.kind() == SegmentationType::LabelMap {
        return Ok(shown.iter().map(|slice| frame(slice, None)).collect());
    }
    let mut frames = Vec::new();
    for segment in 1..=input.lesions {
        let carrying = shown.iter().filter(|(_, _, _, here)| keeps_empty || here.binary_search(&segment).is_ok());
        frames.extend(carrying.map(|slice| frame(slice, Some(segment))));
    }
    Ok(frames)
}

/// The slices that have frames, in the order of their position along the normal.
fn placed_slices<'a>(input: &SegmentationInput<'a>) -> Result<Vec<(&'a SourceSlice, &'a SliceMask)>, ResultError> {
    let (slices, masks) = (input.slices, input.masks);
    let first = slices.first().ok_or(ResultError::NoSlices)?;
    if masks.len() != slices.len() {
        return Err(ResultError::MaskCount { masks: masks.len(), slices: slices.len() });
    }
    let (rows, columns) = (first.plane.rows, first.plane.columns);
    if u16::try_from(rows).is_err() || u16::try_from(columns).is_err() {
        return Err(ResultError::ImageSize { rows, columns });
    }
    let mut placed = Vec::new();
    for (slice, mask) in slices.iter().zip(masks) {
        let instance = || slice.sop_instance.clone();
        slice.plane.checked().map_err(|source| ResultError::Plane { instance: instance(), source })?;
        if (slice.plane.rows, slice.plane.columns) != (rows, columns) {
            let (rows, columns) = (slice.plane.rows, slice.plane.columns);
            return Err(ResultError::MixedSize { instance: instance(), rows, columns });
        }
        if let Some(fault) = mask.fault(rows, columns, input.lesions) {
            return Err(ResultError::Mask { instance: instance(), fault });
        }
        if input.form.kind() == SegmentationType::Fractional && !mask.has_values() {
            return Err(ResultError::NoValues { instance: instance() });
        }
        if !mask.is_empty() || input.form.empty_frames() {
            placed.push((slice, mask));
        }
    }
    let mut is_used = vec![false; usize::from(input.lesions)];
    for segment in masks.iter().flat_map(SliceMask::segments) {
        is_used[usize::from(segment) - 1] = true;
    }
    if !is_used.contains(&true) {
        return Err(ResultError::NothingToSegment);
    }
    if let Some(unused) = is_used.iter().position(|is_used| !is_used) {
        return Err(ResultError::EmptyLesion { number: unused + 1 });
    }
    placed.sort_by(|a, b| along(first, a.0).total_cmp(&along(first, b.0)));
    for pair in placed.windows(2) {
        let (a, b) = (pair[0].0, pair[1].0);
        let distance: f64 = (0..3).map(|i| (a.plane.position[i] - b.plane.position[i]).powi(2)).sum();
        if distance.sqrt() < SAME_PLACE_MM {
            let (first, second) = (a.sop_instance.clone(), b.sop_instance.clone());
            return Err(ResultError::DuplicatePosition { first, second });
        }
    }
    Ok(placed)
}

/// Position along the first slice's normal, in mm from the first slice.
fn along(first: &SourceSlice, slice: &SourceSlice) -> f64 {
    -first.plane.distance_from(&slice.plane)
}

/// The distance between neighbouring source slices in mm where it is the same throughout.
fn even_spacing(slices: &[SourceSlice]) -> Option<f64> {
    let first = slices.first()?;
    let mut along: Vec<f64> = slices.iter().map(|s| self::along(first, s)).collect();
    along.sort_by(f64::total_cmp);
    let steps: Vec<f64> = along.windows(2).map(|p| p[1] - p[0]).collect();
    let (least, most) = steps.iter().fold((f64::INFINITY, 0.0f64), |(l, m), s| (l.min(*s), m.max(*s)));
    let mean = steps.iter().sum::<f64>() / steps.len() as f64;
    // A micrometre is far below what positions in decimal strings carry.
    // A single slice has no neighbour: `least` is infinite and no mean exists.
    (least.is_finite() && least >= SAME_PLACE_MM && most - least <= EVEN_MM).then(|| (mean * 1e6).round() / 1e6)
}

/// Whether a plane attribute is one for all frames.
struct Constant {
    orientation: bool,
    measures: bool,
}

/// The Shared and the Per-frame Functional Groups Sequence.
pub(crate) fn functional_groups(frames: &[Frame<'_>], input: &SegmentationInput<'_>) -> Vec<Element> {
    let spacing = even_spacing(input.slices);
    let fallback: Option<f64> = input.provenance.header.number(tags::SLICE_THICKNESS).or(spacing);
    let thickness = |slice: &SourceSlice| slice.slice_thickness_mm.or(fallback).filter(|t| t.is_finite() && *t > 0.0);
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= SAME);
    let first = frames[0].slice;
    let constant = Constant {
        orientation: frames
            .iter()
            .all(|f| near(&f.slice.plane.row, &first.plane.row) && near(&f.slice.plane.column, &first.plane.column)),
        measures: frames
            .iter()
            .all(|f| near(&f.slice.plane.spacing, &first.plane.spacing) && thickness(f.slice) == thickness(first)),
    };
    let mut shared = Vec::new();
    if constant.orientation {
        shared.push(plane_orientation(first));
    }
    if constant.measures {
        shared.push(pixel_measures(first, thickness(first), spacing));
    }
    let per_frame = frames.iter().map(|frame| {
        let mut groups = vec![frame_content(frame), derivation_image(frame.slice), plane_position(frame.slice)];
        // Where there is one segment only it could be shared; viewers look for it in the frame.
        groups.extend(frame.segment.map(segment_identification));
        if !constant.orientation {
            groups.push(plane_orientation(frame.slice));
        }
        if !constant.measures {
            groups.push(pixel_measures(frame.slice, thickness(frame.slice), spacing));
        }
        InMemDicomObject::from_element_iter(groups)
    });
    vec![
        sequence(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![InMemDicomObject::from_element_iter(shared)]),
        sequence(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, per_frame.collect()),
    ]
}

/// A functional group macro: a sequence of one item.
fn group(tag: dicom_core::Tag, elements: Vec<Element>) -> Element {
    sequence(tag, vec![InMemDicomObject::from_element_iter(elements)])
}

/// The place of a frame: segment and position, or the position alone.
fn frame_content(frame: &Frame<'_>) -> Element {
    let index = frame.segment.map(u32::from).into_iter().chain([frame.position]);
    let values = PrimitiveValue::U32(index.collect());
    group(tags::FRAME_CONTENT_SEQUENCE, vec![DataElement::new(tags::DIMENSION_INDEX_VALUES, VR::UL, values)])
}

fn plane_position(slice: &SourceSlice) -> Element {
    group(tags::PLANE_POSITION_SEQUENCE, vec![decimals(tags::IMAGE_POSITION_PATIENT, &slice.plane.position)])
}

fn plane_orientation(slice: &SourceSlice) -> Element {
    let cosines = [slice.plane.row, slice.plane.column].concat();
    group(tags::PLANE_ORIENTATION_SEQUENCE, vec![decimals(tags::IMAGE_ORIENTATION_PATIENT, &cosines)])
}

fn pixel_measures(slice: &SourceSlice, thickness: Option<f64>, spacing: Option<f64>) -> Element {
    let mut measures = vec![decimals(tags::PIXEL_SPACING, &slice.plane.spacing)];
    measures.extend(thickness.map(|t| decimals(tags::SLICE_THICKNESS, &[t])));
    measures.extend(spacing.map(|s| decimals(tags::SPACING_BETWEEN_SLICES, &[s])));
    group(tags::PIXEL_MEASURES_SEQUENCE, measures)
}

fn segment_identification(segment: u16) -> Element {
    group(tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![us(tags::REFERENCED_SEGMENT_NUMBER, segment)])
}

fn derivation_image(slice: &SourceSlice) -> Element {
    let mut source = vec![
        text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, slice.sop_class.as_str()),
        text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, slice.sop_instance.as_str()),
        codes::SOURCE_IMAGE.sequence(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE),
        text(tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES"),
    ];
    // A single-frame class with a frame number is not valid (PS3.3 table 10-3).
    let multi_frame = slice.sop_class.as_str() != uids::CT_IMAGE_STORAGE;
    source.extend(
        slice.frame_number.filter(|_| multi_frame).map(|n| text(tags::REFERENCED_FRAME_NUMBER, VR::IS, n.to_string())),
    );
    let derivation = vec![
        codes::SEGMENTATION.sequence(tags::DERIVATION_CODE_SEQUENCE),
        sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![InMemDicomObject::from_element_iter(source)]),
    ];
    group(tags::DERIVATION_IMAGE_SEQUENCE, derivation)
}
