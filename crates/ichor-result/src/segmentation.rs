//! Building the DICOM Segmentation (PS3.3 A.51).

use dicom_core::{Tag, VR};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_core::{ImagePlane, Uid};

use crate::element::{Element, cut, empty, sequence, text, us};
use crate::encode::{PixelLayout, write_part10};
use crate::error::ResultError;
use crate::form::{SegmentationForm, SegmentationType};
use crate::frames::{Frame, functional_groups, select};
use crate::mask::SliceMask;
use crate::provenance::Provenance;
use crate::segment::{self, Maker, SegmentReference};
use crate::source::copied;

/// The value of a FRACTIONAL pixel that stands for 1.
pub(crate) const MAXIMUM_FRACTIONAL_VALUE: u16 = 255;

/// One source slice: an instance, or a frame of a multi-frame instance.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceSlice {
    /// SOP Class UID of the instance.
    pub sop_class: Uid,
    /// SOP Instance UID of the instance.
    pub sop_instance: Uid,
    /// One-based frame, if the instance is multi-frame.
    pub frame_number: Option<u32>,
    /// Its plane, as it stands in the instance.
    pub plane: ImagePlane,
    /// Nominal Slice Thickness in mm; `None` takes the header's.
    pub slice_thickness_mm: Option<f64>,
}

/// Everything that makes a segmentation what it is.
#[derive(Clone, Debug)]
pub struct SegmentationInput<'a> {
    /// Where it comes from.
    pub provenance: Provenance<'a>,
    /// All slices that were analysed, those without mask too.
    pub slices: &'a [SourceSlice],
    /// One mask a slice.
    pub masks: &'a [SliceMask],
    /// How many lesions the masks show; each is a segment, of the lesion's number.
    pub lesions: u16,
    /// The form of the object.
    pub form: SegmentationForm,
}

/// A segmentation that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Segmentation Storage, or Label Map Segmentation Storage.
    pub sop_class: Uid,
    /// Derived SOP Instance UID.
    pub sop_instance: Uid,
    /// Derived Series Instance UID, the same for all versions.
    pub series_instance: Uid,
    /// Study Instance UID of the source.
    pub study_instance: Uid,
    /// Transfer Syntax UID.
    pub transfer_syntax: Uid,
    /// Number of frames.
    pub frames: usize,
    /// The segments, one a lesion.
    pub segments: Vec<SegmentReference>,
}

/// The UIDs of a result, all derived.
struct Derived {
    instance: Uid,
    series: Uid,
    dimensions: Uid,
    segments: Vec<SegmentReference>,
    frame_of_reference: Uid,
}

impl Derived {
    fn of(input: &SegmentationInput<'_>) -> Self {
        let (study, series) = (input.provenance.header.study().as_str(), input.provenance.header.series().as_str());
        let (model, configuration) = (input.provenance.model.as_str(), input.provenance.configuration_digest);
        let form = input.form.words();
        let version = input.provenance.version.to_string();
        let frame_number = |s: &SourceSlice| s.frame_number.unwrap_or_default();
        let mut sources: Vec<(&str, u32)> =
            input.slices.iter().map(|s| (s.sop_instance.as_str(), frame_number(s))).collect();
        sources.sort_unstable();
        let numbers: Vec<String> = sources.iter().map(|(_, frame)| frame.to_string()).collect();
        let instance = Uid::derive(
            ["ichor-seg-instance", study, series, model, configuration, form.as_str(), version.as_str()]
                .into_iter()
                .chain(sources.iter().zip(&numbers).flat_map(|((uid, _), frame)| [*uid, frame.as_str()])),
        );
        let dimensions = Uid::derive(["ichor-seg-dimensions", instance.as_str()]);
        let frame_of_reference = input.provenance.header.frame_of_reference().cloned();
        Self {
            instance,
            series: Uid::derive(["ichor-seg-series", study, series, model, configuration, form.as_str()]),
            dimensions,
            segments: input.provenance.lesions(input.lesions),
            frame_of_reference: frame_of_reference
                .unwrap_or_else(|| Uid::derive(["ichor-frame-of-reference", study, series])),
        }
    }
}

/// Writes the segmentation of one study as a Part 10 file: one frame a segment and slice that carries it, or one a
/// slice in a label map. Frames are made and written one at a time.
///
/// The same input gives the same bytes. Slices may come in any order; frames lie in the order of their position. The
/// file must pass [`check`](crate::check()) before it leaves.
///
/// # Errors
/// [`ResultError::NothingToSegment`] when no slice carries mask: the study is a negative. [`ResultError::Write`] when
/// `out` fails. Every other [`ResultError`] names what cannot be.
pub fn write_segmentation(
    input: &SegmentationInput<'_>,
    out: impl std::io::Write,
) -> Result<Segmentation, ResultError> {
    let frames = select(input)?;
    let plane = &frames[0].slice.plane;
    // Both were checked to fit by `select`.
    let layout = PixelLayout::new(input.form.kind(), plane.rows as u16, plane.columns as u16, input.lesions);
    let derived = Derived::of(input);
    let provenance = input.provenance;
    let maker = Maker { model: input.provenance.model, configuration_digest: input.provenance.configuration_digest };
    let mut object = InMemDicomObject::new_empty();
    let elements = copied(input.provenance.header)
        .into_iter()
        .chain(identification(&provenance, input.form.kind(), &derived)?)
        .chain(provenance.subject_and_equipment()?)
        .chain(image(&frames, layout, input))
        .chain(dimensions(&derived, input.form.kind()))
        .chain(references(input))
        .chain(functional_groups(&frames, input))
        .chain([segment::segment_sequence(&maker, &derived.segments, input.form.kind())]);
    for element in elements {
        object.put(element);
    }
    write_part10(object, &frames, layout, input.form.encoding(), out)?;
    let constant = |uid: &str| Uid::parse(uid).map_err(|e| ResultError::Encode(e.to_string()));
    Ok(Segmentation {
        sop_class: constant(input.form.kind().sop_class())?,
        sop_instance: derived.instance,
        series_instance: derived.series,
        study_instance: input.provenance.header.study().clone(),
        transfer_syntax: constant(input.form.encoding().transfer_syntax())?,
        frames: frames.len(),
        segments: derived.segments,
    })
}

/// SOP Common, series, frame of reference and the content's names (PS3.3 C.12.1, C.7.3.1, C.8.20.1, C.7.4.1).
fn identification(
    provenance: &Provenance<'_>,
    kind: SegmentationType,
    derived: &Derived,
) -> Result<Vec<Element>, ResultError> {
    let (day, time) = provenance.date_and_time()?;
    let notice = provenance.notice();
    let description = notice.clone().unwrap_or_else(|| format!("{} by {}", segment::LABEL, provenance.model.name()));
    let mut elements = provenance.sop_common(kind.sop_class(), &derived.instance)?;
    elements.extend([
        text(tags::SERIES_INSTANCE_UID, VR::UI, derived.series.as_str()),
        text(tags::MODALITY, VR::CS, "SEG"),
        text(tags::SERIES_NUMBER, VR::IS, provenance.series_number(0).to_string()),
        text(tags::SERIES_DESCRIPTION, VR::LO, format!("{} {}", segment::LABEL, provenance.series_suffix())),
        text(tags::INSTANCE_NUMBER, VR::IS, provenance.instance_number().to_string()),
        text(tags::FRAME_OF_REFERENCE_UID, VR::UI, derived.frame_of_reference.as_str()),
        text(tags::CONTENT_DATE, VR::DA, day),
        text(tags::CONTENT_TIME, VR::TM, time),
        text(tags::CONTENT_LABEL, VR::CS, "HEMORRHAGE"),
        text(tags::CONTENT_DESCRIPTION, VR::LO, cut(&description, 64)),
        empty(tags::CONTENT_CREATOR_NAME, VR::PN),
    ]);
    elements.extend(notice.map(|n| text(tags::IMAGE_COMMENTS, VR::LT, cut(&n, 10_240))));
    Ok(elements)
}

/// Image Pixel and Segmentation Image (PS3.3 C.7.6.3, C.8.20.2).
fn image(frames: &[Frame<'_>], layout: PixelLayout, input: &SegmentationInput<'_>) -> Vec<Element> {
    let plane = &frames[0].slice.plane;
    // Both were checked to fit by `select`.
    let (rows, columns) = (plane.rows as u16, plane.columns as u16);
    let (bits, kind, header) = (layout.bits_allocated(), input.form.kind(), input.provenance.header);
    let mut elements = vec![
        text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\PRIMARY"),
        us(tags::SAMPLES_PER_PIXEL, 1),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        text(tags::NUMBER_OF_FRAMES, VR::IS, frames.len().to_string()),
        us(tags::ROWS, rows),
        us(tags::COLUMNS, columns),
        us(tags::BITS_ALLOCATED, bits),
        us(tags::BITS_STORED, bits),
        us(tags::HIGH_BIT, bits - 1),
        us(tags::PIXEL_REPRESENTATION, 0),
        text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO"),
        text(tags::SEGMENTATION_TYPE, VR::CS, kind.defined_term()),
        text(tags::SEGMENTS_OVERLAP, VR::CS, "NO"),
    ];
    match kind {
        SegmentationType::Binary => {}
        SegmentationType::Fractional => {
            elements.push(text(tags::SEGMENTATION_FRACTIONAL_TYPE, VR::CS, "PROBABILITY"));
            elements.push(us(tags::MAXIMUM_FRACTIONAL_VALUE, MAXIMUM_FRACTIONAL_VALUE));
        }
        // What belongs to no segment has this value.
        SegmentationType::LabelMap => elements.push(us(tags::PIXEL_PADDING_VALUE, 0)),
    }
    // Once lossy, always lossy (PS3.3 C.7.6.1.1.5).
    let lossy = header.text(tags::LOSSY_IMAGE_COMPRESSION).is_some_and(|l| l == "01");
    elements.push(text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, if lossy { "01" } else { "00" }));
    if lossy {
        let more = [tags::LOSSY_IMAGE_COMPRESSION_RATIO, tags::LOSSY_IMAGE_COMPRESSION_METHOD];
        elements.extend(more.into_iter().filter_map(|tag| header.object.get(tag).cloned()));
    }
    elements
}

/// The Multi-frame Dimension module (PS3.3 C.7.6.17): segment, then position; the position alone in a label map.
fn dimensions(derived: &Derived, kind: SegmentationType) -> Vec<Element> {
    let organization = || text(tags::DIMENSION_ORGANIZATION_UID, VR::UI, derived.dimensions.as_str());
    let attribute = |tag: Tag, value: Tag| {
        dicom_core::DataElement::new(tag, VR::AT, dicom_core::value::PrimitiveValue::from(value))
    };
    let index = |pointer: Tag, group: Tag, label: &str| {
        InMemDicomObject::from_element_iter([
            organization(),
            attribute(tags::DIMENSION_INDEX_POINTER, pointer),
            attribute(tags::FUNCTIONAL_GROUP_POINTER, group),
            text(tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label),
        ])
    };
    let by_segment = (kind != SegmentationType::LabelMap)
        .then(|| index(tags::REFERENCED_SEGMENT_NUMBER, tags::SEGMENT_IDENTIFICATION_SEQUENCE, "Segment Number"));
    let by_position = index(tags::IMAGE_POSITION_PATIENT, tags::PLANE_POSITION_SEQUENCE, "Image Position (Patient)");
    vec![
        sequence(tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![InMemDicomObject::from_element_iter([organization()])]),
        sequence(tags::DIMENSION_INDEX_SEQUENCE, by_segment.into_iter().chain([by_position]).collect()),
    ]
}

/// Common Instance Reference (PS3.3 C.12.2): the source series with every analysed instance.
fn references(input: &SegmentationInput<'_>) -> Vec<Element> {
    let mut seen = std::collections::HashSet::new();
    let instances: Vec<InMemDicomObject> = input
        .slices
        .iter()
        .filter(|slice| seen.insert(&slice.sop_instance))
        .map(|slice| {
            InMemDicomObject::from_element_iter([
                text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, slice.sop_class.as_str()),
                text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, slice.sop_instance.as_str()),
            ])
        })
        .collect();
    let series = InMemDicomObject::from_element_iter([
        text(tags::SERIES_INSTANCE_UID, VR::UI, input.provenance.header.series().as_str()),
        sequence(tags::REFERENCED_INSTANCE_SEQUENCE, instances),
    ]);
    vec![sequence(tags::REFERENCED_SERIES_SEQUENCE, vec![series])]
}
