//! The Grayscale Softcopy Presentation State (PS3.3 A.33.1): the contours of the lesions as graphics, in the brain window, over
//! the source images themselves. One refers to all slices of the series that carry mask.

mod check;
mod contour;

use std::io::Write;

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use ichor_core::Uid;

pub use check::check_presentation;

use crate::element::{Element, cut, decimals, empty, sequence, text, us};
use crate::error::ResultError;
use crate::mask::{MaskRun, SliceMask};
use crate::part10::write_part10;
use crate::provenance::Provenance;
use crate::segment::{LABEL, RED_CIELAB};
use crate::segmentation::SourceSlice;
use crate::source::copied;
use contour::{Corner, outlines};

/// Series Numbers of presentation states lie this much above those of Segmentations.
const SERIES_NUMBER_STEP: u32 = 4;
/// The one layer.
const LAYER: &str = "HEMORRHAGE";
/// Most points of a polyline: Graphic Data has a length of 16 bits. A longer outline is drawn in pieces.
const MOST_POINTS: usize = 8_000;
/// Centre and width of the window, in HU.
const WINDOW: [f64; 2] = [40.0, 80.0];

/// Everything that makes a presentation state what it is.
#[derive(Clone, Debug)]
pub struct PresentationInput<'a> {
    /// Where it comes from.
    pub provenance: Provenance<'a>,
    /// All slices that were analysed.
    pub slices: &'a [SourceSlice],
    /// One mask a slice.
    pub masks: &'a [SliceMask],
    /// Rescale Slope and Intercept of every slice that carries mask: a presentation state has one pair for all of them.
    pub rescale: [f64; 2],
}

/// A presentation state that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presentation {
    /// Grayscale Softcopy Presentation State Storage.
    pub sop_class: Uid,
    /// Derived SOP Instance UID.
    pub sop_instance: Uid,
    /// Derived Series Instance UID, the same for all versions.
    pub series_instance: Uid,
    /// Transfer Syntax UID: Explicit VR Little Endian.
    pub transfer_syntax: Uid,
}

/// Writes the presentation state as a Part 10 file. The same input gives the same bytes; the file must pass
/// [`check_presentation`] before it leaves.
///
/// # Errors
/// [`ResultError::NothingToSegment`] if no slice carries mask; [`ResultError::MaskCount`] and [`ResultError::Mask`] if masks
/// do not fit their slices; [`ResultError::Measurement`] if the rescale is none; [`ResultError::Write`] when `out` fails.
pub fn write_presentation(input: &PresentationInput<'_>, out: impl Write) -> Result<Presentation, ResultError> {
    if input.masks.len() != input.slices.len() {
        return Err(ResultError::MaskCount { masks: input.masks.len(), slices: input.slices.len() });
    }
    let [slope, intercept] = input.rescale;
    if !(slope.is_finite() && intercept.is_finite() && slope != 0.0) {
        return Err(ResultError::Measurement(format!("rescale slope {slope}, intercept {intercept}")));
    }
    let shown: Vec<Shown<'_>> = input.slices.iter().zip(input.masks).filter(|(_, mask)| !mask.is_empty()).collect();
    for (slice, mask) in &shown {
        if let Some(fault) = mask.fault(slice.plane.rows, slice.plane.columns, u16::MAX) {
            return Err(ResultError::Mask { instance: slice.sop_instance.clone(), fault });
        }
    }
    if shown.is_empty() {
        return Err(ResultError::NothingToSegment);
    }
    let provenance = &input.provenance;
    let constant = |uid: &str| Uid::parse(uid).map_err(|e| ResultError::Encode(e.to_string()));
    let (header, version) = (provenance.header, provenance.version.to_string());
    let identity =
        [header.study().as_str(), header.series().as_str(), provenance.model.as_str(), provenance.configuration_digest];
    let frames: Vec<String> = shown.iter().map(|(s, _)| s.frame_number.unwrap_or_default().to_string()).collect();
    let sources = shown.iter().zip(&frames).flat_map(|((s, _), frame)| [s.sop_instance.as_str(), frame.as_str()]);
    let presentation = Presentation {
        sop_class: constant(uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE)?,
        sop_instance: Uid::derive(
            ["ichor-pr-instance"].into_iter().chain(identity).chain([version.as_str()]).chain(sources),
        ),
        series_instance: Uid::derive(["ichor-pr-series"].into_iter().chain(identity)),
        transfer_syntax: constant(uids::EXPLICIT_VR_LITTLE_ENDIAN)?,
    };
    let elements = copied(header)
        .into_iter()
        .filter(|element| element.header().tag != tags::POSITION_REFERENCE_INDICATOR)
        .chain(provenance.laterality())
        .chain(provenance.sop_common(presentation.sop_class.as_str(), &presentation.sop_instance)?)
        .chain(provenance.subject_and_equipment()?)
        .chain(identification(provenance, &presentation)?)
        .chain(relationship_and_areas(provenance, &shown))
        .chain(graphics(provenance, &shown))
        .chain(grey(input.rescale));
    write_part10(elements, out)?;
    Ok(presentation)
}

/// A slice that carries mask.
type Shown<'a> = (&'a SourceSlice, &'a SliceMask);

/// Presentation Series and Presentation State Identification (PS3.3 C.11.9, C.11.10).
fn identification(provenance: &Provenance<'_>, presentation: &Presentation) -> Result<Vec<Element>, ResultError> {
    let (day, time) = provenance.date_and_time()?;
    let description = provenance.notice().unwrap_or_else(|| format!("{LABEL} by {}", provenance.model.name()));
    Ok(vec![
        text(tags::MODALITY, VR::CS, "PR"),
        text(tags::SERIES_INSTANCE_UID, VR::UI, presentation.series_instance.as_str()),
        text(tags::SERIES_NUMBER, VR::IS, provenance.series_number(SERIES_NUMBER_STEP).to_string()),
        text(tags::SERIES_DESCRIPTION, VR::LO, format!("{LABEL}, contours {}", provenance.series_suffix())),
        text(tags::INSTANCE_NUMBER, VR::IS, provenance.instance_number().to_string()),
        text(tags::PRESENTATION_CREATION_DATE, VR::DA, day),
        text(tags::PRESENTATION_CREATION_TIME, VR::TM, time),
        text(tags::CONTENT_LABEL, VR::CS, LAYER),
        text(tags::CONTENT_DESCRIPTION, VR::LO, cut(&description, 64)),
        empty(tags::CONTENT_CREATOR_NAME, VR::PN),
    ])
}

/// Referenced Image Sequence of some slices: one item an instance, with the frames that are meant.
fn images(shown: &[Shown<'_>]) -> Element {
    let mut instances: Vec<(&SourceSlice, Vec<String>)> = Vec::new();
    for (slice, _) in shown {
        let frame = slice.frame_number.map(|frame| frame.to_string());
        match instances.iter_mut().find(|(known, _)| known.sop_instance == slice.sop_instance) {
            Some((_, frames)) => frames.extend(frame),
            None => instances.push((slice, frame.into_iter().collect())),
        }
    }
    let item = |(slice, frames): (&SourceSlice, Vec<String>)| {
        let frames = (!frames.is_empty()).then(|| text(tags::REFERENCED_FRAME_NUMBER, VR::IS, frames.join("\\")));
        let instance = [
            text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, slice.sop_class.as_str()),
            text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, slice.sop_instance.as_str()),
        ];
        InMemDicomObject::from_element_iter(instance.into_iter().chain(frames))
    };
    sequence(tags::REFERENCED_IMAGE_SEQUENCE, instances.into_iter().map(item).collect())
}

/// Presentation State Relationship and Displayed Area (PS3.3 C.11.11, C.10.4): every image whole.
fn relationship_and_areas(provenance: &Provenance<'_>, shown: &[Shown<'_>]) -> Vec<Element> {
    let series = InMemDicomObject::from_element_iter([
        text(tags::SERIES_INSTANCE_UID, VR::UI, provenance.header.series().as_str()),
        images(shown),
    ]);
    let corner = |tag: Tag, column: u32, row: u32| {
        DataElement::new(tag, VR::SL, PrimitiveValue::I32([column as i32, row as i32].into_iter().collect()))
    };
    // Slices of one size and spacing share an area; of one series they all do.
    let mut areas: Vec<InMemDicomObject> = Vec::new();
    let same = |a: &&Shown<'_>, b: &&Shown<'_>| {
        let of = |(slice, _): &Shown<'_>| (slice.plane.rows, slice.plane.columns, slice.plane.spacing);
        of(a) == of(b)
    };
    let all: Vec<&Shown<'_>> = shown.iter().collect();
    for group in all.chunk_by(|a, b| same(a, b)) {
        let plane = &group[0].0.plane;
        let group: Vec<Shown<'_>> = group.iter().map(|shown| **shown).collect();
        areas.push(InMemDicomObject::from_element_iter([
            images(&group),
            corner(tags::DISPLAYED_AREA_TOP_LEFT_HAND_CORNER, 1, 1),
            corner(tags::DISPLAYED_AREA_BOTTOM_RIGHT_HAND_CORNER, plane.columns, plane.rows),
            text(tags::PRESENTATION_SIZE_MODE, VR::CS, "SCALE TO FIT"),
            decimals(tags::PRESENTATION_PIXEL_SPACING, &plane.spacing),
        ]));
    }
    vec![
        sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![series]),
        sequence(tags::DISPLAYED_AREA_SELECTION_SEQUENCE, areas),
    ]
}

/// Graphic Annotation and Graphic Layer (PS3.3 C.10.5, C.10.7): the outlines of each slice, and who says so.
fn graphics(provenance: &Provenance<'_>, shown: &[Shown<'_>]) -> Vec<Element> {
    let notice = provenance.notice().map_or_else(String::new, |notice| format!("\r\n{notice}"));
    let words = format!("{}\r\nResult of an algorithm, not a diagnosis{notice}", provenance.model);
    let annotations = shown.iter().map(|shown| {
        InMemDicomObject::from_element_iter([
            images(std::slice::from_ref(shown)),
            text(tags::GRAPHIC_LAYER, VR::CS, LAYER),
            sequence(tags::TEXT_OBJECT_SEQUENCE, vec![text_object(&words)]),
            sequence(tags::GRAPHIC_OBJECT_SEQUENCE, polylines(shown.1)),
        ])
    });
    let layer = InMemDicomObject::from_element_iter([
        text(tags::GRAPHIC_LAYER, VR::CS, LAYER),
        text(tags::GRAPHIC_LAYER_ORDER, VR::IS, "1"),
        DataElement::new(
            tags::GRAPHIC_LAYER_RECOMMENDED_DISPLAY_CIE_LAB_VALUE,
            VR::US,
            PrimitiveValue::U16(RED_CIELAB.into_iter().collect()),
        ),
        text(tags::GRAPHIC_LAYER_DESCRIPTION, VR::LO, format!("{LABEL}, contours of lesions")),
    ]);
    vec![
        sequence(tags::GRAPHIC_ANNOTATION_SEQUENCE, annotations.collect()),
        sequence(tags::GRAPHIC_LAYER_SEQUENCE, vec![layer]),
    ]
}

fn floats(tag: Tag, values: impl IntoIterator<Item = f32>) -> Element {
    DataElement::new(tag, VR::FL, PrimitiveValue::F32(values.into_iter().collect()))
}

/// Words in the upper left of the display.
fn text_object(words: &str) -> InMemDicomObject {
    InMemDicomObject::from_element_iter([
        text(tags::BOUNDING_BOX_ANNOTATION_UNITS, VR::CS, "DISPLAY"),
        text(tags::UNFORMATTED_TEXT_VALUE, VR::ST, cut(words, 1024)),
        floats(tags::BOUNDING_BOX_TOP_LEFT_HAND_CORNER, [0.02, 0.02]),
        floats(tags::BOUNDING_BOX_BOTTOM_RIGHT_HAND_CORNER, [0.7, 0.1]),
        text(tags::BOUNDING_BOX_TEXT_HORIZONTAL_JUSTIFICATION, VR::CS, "LEFT"),
    ])
}

/// The outlines of each lesion of a slice.
fn polylines(mask: &SliceMask) -> Vec<InMemDicomObject> {
    let of_lesion = |segment: u16| {
        let runs: Vec<&MaskRun> = mask.runs().iter().filter(|run| run.segment == segment).collect();
        outlines(&runs)
    };
    let outlines = mask.segments().into_iter().flat_map(of_lesion);
    outlines.flat_map(|outline| pieces(&outline).map(polyline).collect::<Vec<_>>()).collect()
}

/// An outline in pieces that are short enough, each beginning where the one before ends.
fn pieces(outline: &[Corner]) -> impl Iterator<Item = &[Corner]> {
    let starts = (0..outline.len().saturating_sub(1)).step_by(MOST_POINTS - 1);
    starts.map(|start| &outline[start..(start + MOST_POINTS).min(outline.len())])
}

fn polyline(points: &[Corner]) -> InMemDicomObject {
    // Corners are at most 65,535, which a float holds exactly.
    let coordinates = points.iter().flat_map(|(column, row)| [*column as f32, *row as f32]);
    InMemDicomObject::from_element_iter([
        text(tags::GRAPHIC_ANNOTATION_UNITS, VR::CS, "PIXEL"),
        us(tags::GRAPHIC_DIMENSIONS, 2),
        us(tags::NUMBER_OF_GRAPHIC_POINTS, points.len() as u16),
        floats(tags::GRAPHIC_DATA, coordinates),
        text(tags::GRAPHIC_TYPE, VR::CS, "POLYLINE"),
        text(tags::GRAPHIC_FILLED, VR::CS, "N"),
    ])
}

/// Modality LUT, Softcopy VOI LUT and Softcopy Presentation LUT (PS3.3 C.11.1, C.11.8, C.11.6).
fn grey([slope, intercept]: [f64; 2]) -> Vec<Element> {
    let window = InMemDicomObject::from_element_iter([
        decimals(tags::WINDOW_CENTER, &WINDOW[..1]),
        decimals(tags::WINDOW_WIDTH, &WINDOW[1..]),
        text(tags::WINDOW_CENTER_WIDTH_EXPLANATION, VR::LO, "BRAIN"),
    ]);
    vec![
        decimals(tags::RESCALE_INTERCEPT, &[intercept]),
        decimals(tags::RESCALE_SLOPE, &[slope]),
        text(tags::RESCALE_TYPE, VR::LO, "HU"),
        sequence(tags::SOFTCOPY_VOILUT_SEQUENCE, vec![window]),
        text(tags::PRESENTATION_LUT_SHAPE, VR::CS, "IDENTITY"),
    ]
}
