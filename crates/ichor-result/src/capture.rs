//! Secondary Capture (PS3.3 A.8.1): what was found, as pictures, for a PACS that shows neither Segmentations nor reports.
//!
//! One picture a slice, so that the series scrolls like its source. Nothing in it names the patient.

mod check;
mod picture;

use std::io::Write;

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use ichor_core::Uid;

pub use check::check_capture;

use crate::codes;
use crate::element::{Element, decimals, empty, sequence, text, us};
use crate::error::ResultError;
use crate::mask::SliceMask;
use crate::part10::write_part10;
use crate::provenance::Provenance;
use crate::segment::LABEL;
use crate::segmentation::SourceSlice;
use crate::source::copied;
use picture::{Picture, Scene};

/// Series Numbers of captures lie this much above those of Segmentations.
const SERIES_NUMBER_STEP: u32 = 3;

/// How a capture looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CaptureLook {
    /// Centre of the window, in HU.
    pub window_center: i16,
    /// Width of the window, in HU.
    pub window_width: u16,
    /// How much of a pixel's colour the mask takes, in percent; its contour takes all.
    pub opacity_percent: u8,
}

impl Default for CaptureLook {
    /// The brain window, and a mask that the tissue shines through.
    fn default() -> Self {
        Self { window_center: 40, window_width: 80, opacity_percent: 25 }
    }
}

/// Everything that the captures of a study share.
#[derive(Clone, Debug)]
pub struct CaptureInput<'a> {
    /// Where they come from.
    pub provenance: Provenance<'a>,
    /// All slices that were analysed, in order.
    pub slices: &'a [SourceSlice],
    /// The probability of hemorrhage of each, 0 to 1.
    pub probabilities: &'a [f32],
    /// From this probability on a slice is called positive.
    pub slice_threshold: f32,
    /// One mask a slice.
    pub masks: &'a [SliceMask],
    /// How they look.
    pub look: CaptureLook,
}

/// A capture that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Secondary Capture Image Storage.
    pub sop_class: Uid,
    /// Derived SOP Instance UID.
    pub sop_instance: Uid,
    /// Derived Series Instance UID, the same for all slices and versions.
    pub series_instance: Uid,
    /// Transfer Syntax UID: Explicit VR Little Endian.
    pub transfer_syntax: Uid,
}

/// Writes the capture of the slice at `at` as a Part 10 file; `hu`: its `rows × columns` pixels. The same input gives the
/// same bytes; the file must pass [`check_capture`] before it leaves.
///
/// # Errors
/// [`ResultError::NoSlices`] if there is no such slice; [`ResultError::MaskCount`] if masks or probabilities do not pair
/// with slices; [`ResultError::Mask`] if the slice's mask or pixels are of another size; [`ResultError::ImageSize`] if the
/// picture is larger than DICOM allows; [`ResultError::Write`] when `out` fails.
pub fn write_capture(input: &CaptureInput<'_>, at: usize, hu: &[i16], out: impl Write) -> Result<Capture, ResultError> {
    let slices = input.slices.len();
    for others in [input.masks.len(), input.probabilities.len()] {
        if others != slices {
            return Err(ResultError::MaskCount { masks: others, slices });
        }
    }
    let (Some(slice), Some(mask)) = (input.slices.get(at), input.masks.get(at)) else {
        return Err(ResultError::NoSlices);
    };
    let scene = Scene::new(input, at, slice, mask, hu)?;
    let picture = scene.paint();
    let provenance = &input.provenance;
    let constant = |uid: &str| Uid::parse(uid).map_err(|e| ResultError::Encode(e.to_string()));
    let capture = Capture {
        sop_class: constant(uids::SECONDARY_CAPTURE_IMAGE_STORAGE)?,
        sop_instance: derive("ichor-sc-instance", input, Some(slice)),
        series_instance: derive("ichor-sc-series", input, None),
        transfer_syntax: constant(uids::EXPLICIT_VR_LITTLE_ENDIAN)?,
    };
    let too_large = || ResultError::ImageSize { rows: slice.plane.rows, columns: slice.plane.columns };
    let rows = u16::try_from(picture.rows).map_err(|_| too_large())?;
    let columns = u16::try_from(picture.columns).map_err(|_| too_large())?;
    let elements = copied(provenance.header)
        .into_iter()
        .filter(|element| element.header().tag != tags::POSITION_REFERENCE_INDICATOR)
        .chain(provenance.laterality())
        .chain(provenance.sop_common(capture.sop_class.as_str(), &capture.sop_instance)?)
        .chain(provenance.subject_and_equipment()?)
        .chain(series_and_image(input, at, slice, &capture)?)
        .chain(pixels(picture, rows, columns, slice));
    write_part10(elements, out)?;
    Ok(capture)
}

/// The UID of the series, or of one slice of one version.
fn derive(name: &str, input: &CaptureInput<'_>, slice: Option<&SourceSlice>) -> Uid {
    let Provenance { header, model, configuration_digest, version, .. } = input.provenance;
    let CaptureLook { window_center, window_width, opacity_percent } = input.look;
    let look = format!("{window_center}/{window_width}/{opacity_percent}");
    let (version, frame) = (version.to_string(), slice.and_then(|s| s.frame_number).unwrap_or_default().to_string());
    let series = [name, header.study().as_str(), header.series().as_str(), model.as_str(), configuration_digest, &look];
    let of_slice = slice.map(|slice| [version.as_str(), slice.sop_instance.as_str(), frame.as_str()]);
    Uid::derive(series.into_iter().chain(of_slice.into_iter().flatten()))
}

/// General Series, SC Equipment, General Image and SC Image (PS3.3 C.7.3.1, C.8.6.1, C.7.6.1, C.8.6.2).
fn series_and_image(
    input: &CaptureInput<'_>,
    at: usize,
    slice: &SourceSlice,
    capture: &Capture,
) -> Result<Vec<Element>, ResultError> {
    let provenance = &input.provenance;
    let (day, time) = provenance.date_and_time()?;
    let frame = slice.frame_number.map(|frame| text(tags::REFERENCED_FRAME_NUMBER, VR::IS, frame.to_string()));
    let source = [
        text(tags::REFERENCED_SOP_CLASS_UID, VR::UI, slice.sop_class.as_str()),
        text(tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, slice.sop_instance.as_str()),
        codes::SOURCE_IMAGE.sequence(tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE),
    ];
    let source = InMemDicomObject::from_element_iter(source.into_iter().chain(frame));
    let CaptureLook { window_center, window_width, .. } = input.look;
    let description = format!(
        "Source slice in window {window_center}/{window_width} with the mask and the probabilities of {}",
        provenance.model
    );
    let mut elements = vec![
        text(tags::MODALITY, VR::CS, "OT"),
        text(tags::SERIES_INSTANCE_UID, VR::UI, capture.series_instance.as_str()),
        text(tags::SERIES_NUMBER, VR::IS, provenance.series_number(SERIES_NUMBER_STEP).to_string()),
        text(tags::SERIES_DESCRIPTION, VR::LO, format!("{LABEL}, pictures {}", provenance.series_suffix())),
        text(tags::CONVERSION_TYPE, VR::CS, "WSD"),
        text(tags::INSTANCE_NUMBER, VR::IS, (at + 1).to_string()),
        empty(tags::PATIENT_ORIENTATION, VR::CS),
        text(tags::CONTENT_DATE, VR::DA, day),
        text(tags::CONTENT_TIME, VR::TM, time),
        text(tags::IMAGE_TYPE, VR::CS, "DERIVED\\SECONDARY"),
        text(tags::DERIVATION_DESCRIPTION, VR::ST, description),
        sequence(tags::SOURCE_IMAGE_SEQUENCE, vec![source]),
        // What is burned in names the model, not the patient.
        text(tags::BURNED_IN_ANNOTATION, VR::CS, "NO"),
        text(tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00"),
    ];
    elements.extend(provenance.notice().map(|notice| text(tags::IMAGE_COMMENTS, VR::LT, notice)));
    Ok(elements)
}

/// Image Pixel (PS3.3 C.7.6.3), and the distance of pixels.
fn pixels(picture: Picture, rows: u16, columns: u16, slice: &SourceSlice) -> Vec<Element> {
    let spacing = slice.plane.spacing.map(|mm| mm / f64::from(picture.scale));
    vec![
        us(tags::SAMPLES_PER_PIXEL, 3),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "RGB"),
        us(tags::PLANAR_CONFIGURATION, 0),
        us(tags::ROWS, rows),
        us(tags::COLUMNS, columns),
        us(tags::BITS_ALLOCATED, 8),
        us(tags::BITS_STORED, 8),
        us(tags::HIGH_BIT, 7),
        us(tags::PIXEL_REPRESENTATION, 0),
        decimals(tags::PIXEL_SPACING, &spacing),
        DataElement::new(tags::PIXEL_DATA, VR::OB, PrimitiveValue::U8(picture.rgb.into())),
    ]
}
