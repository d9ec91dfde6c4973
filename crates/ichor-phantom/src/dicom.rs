//! Phantoms as DICOM: CT Image Storage (PS3.3 A.3), Explicit VR Little Endian, one file a slice.

use std::path::{Path, PathBuf};

use dicom_core::value::PrimitiveValue;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ichor_core::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, ImagePlane, Uid};

use crate::error::PhantomError;
use crate::identity::DicomIdentity;
use crate::options::{Padding, PhantomOptions, Storage};
use crate::phantom::Phantom;

/// Stored values are Hounsfield units less this.
pub(crate) const INTERCEPT: i32 = -1024;
/// The stored value outside the reconstruction circle.
pub(crate) const PADDING_VALUE: i16 = -2000;
/// Kind of the series that holds the phantom, in derived UIDs.
pub(crate) const SOFT: &str = "soft-tissue";

/// A data set under construction.
pub(crate) struct DataSet(pub(crate) InMemDicomObject);

impl DataSet {
    pub(crate) fn text(&mut self, tag: Tag, vr: VR, value: impl Into<String>) -> &mut Self {
        self.0.put(DataElement::new(tag, vr, PrimitiveValue::from(value.into())));
        self
    }

    pub(crate) fn number(&mut self, tag: Tag, value: u16) -> &mut Self {
        self.0.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
        self
    }

    /// Decimal strings, joined as one value with backslashes.
    pub(crate) fn decimals(&mut self, tag: Tag, values: &[f64]) -> &mut Self {
        let text: Vec<String> = values.iter().map(|v| decimal(*v)).collect();
        self.text(tag, VR::DS, text.join("\\"))
    }

    pub(crate) fn uid(&mut self, tag: Tag, uid: &Uid) -> &mut Self {
        self.text(tag, VR::UI, uid.as_str())
    }
}

/// A decimal string of at most 16 characters (PS3.5 6.2), with as many digits as fit.
pub(crate) fn decimal(value: f64) -> String {
    let mut digits = 10usize;
    loop {
        let text = format!("{value:.digits$}");
        let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        if short.len() <= 16 || digits == 0 {
            return if short == "-0" { "0".to_owned() } else { short.to_owned() };
        }
        digits -= 1;
    }
}

/// One image of a series.
pub(crate) struct Image<'a> {
    pub(crate) sop_instance: Uid,
    pub(crate) number: usize,
    pub(crate) plane: ImagePlane,
    /// Hounsfield units, row by row.
    pub(crate) hu: &'a [i16],
    /// Radius of the reconstruction circle in mm, where there is padding outside it.
    pub(crate) circle_mm: Option<f64>,
}

/// What all images of a series share.
pub(crate) struct Series<'a> {
    pub(crate) identity: &'a DicomIdentity,
    pub(crate) options: &'a PhantomOptions,
    pub(crate) instance: Uid,
    pub(crate) number: u32,
    pub(crate) description: &'a str,
    /// Third value of Image Type.
    pub(crate) kind: &'a str,
    pub(crate) kernel: &'a str,
    pub(crate) window: [f64; 2],
}

/// Writes the slices of a phantom into a folder (made if absent), as `slice-0001.dcm` and on, lowest first.
///
/// # Errors
/// [`PhantomError`] naming the file that could not be written.
pub fn write_dicom(phantom: &Phantom, identity: &DicomIdentity, dir: &Path) -> Result<Vec<PathBuf>, PhantomError> {
    let series = Series {
        identity,
        options: &phantom.options,
        instance: identity.series(SOFT),
        number: 2,
        description: "HEAD 5/5 SOFT TISSUE SYNTHETIC",
        kind: "AXIAL",
        kernel: &identity.kernel,
        window: [40.0, 80.0],
    };
    let images = phantom.slices.iter().enumerate().map(|(index, slice)| Image {
        sop_instance: identity.instance(SOFT, index),
        number: index + 1,
        plane: slice.plane,
        hu: &slice.hu,
        circle_mm: phantom.circle_mm,
    });
    write_series(&series, images, dir, "slice")
}

/// Writes a series, a file an image.
pub(crate) fn write_series<'a>(
    series: &Series<'_>,
    images: impl Iterator<Item = Image<'a>>,
    dir: &Path,
    stem: &str,
) -> Result<Vec<PathBuf>, PhantomError> {
    std::fs::create_dir_all(dir).map_err(|source| PhantomError::Io { path: dir.to_owned(), source })?;
    images
        .map(|image| {
            let path = dir.join(format!("{stem}-{:04}.dcm", image.number));
            write_object(series.image(&image), uids::CT_IMAGE_STORAGE, &image.sop_instance, &path)?;
            Ok(path)
        })
        .collect()
}

/// Writes one data set with its file meta information.
pub(crate) fn write_object(
    data: InMemDicomObject,
    sop_class: &str,
    sop_instance: &Uid,
    path: &Path,
) -> Result<(), PhantomError> {
    let meta = FileMetaTableBuilder::new()
        .media_storage_sop_class_uid(sop_class)
        .media_storage_sop_instance_uid(sop_instance.as_str())
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
        .implementation_version_name(IMPLEMENTATION_VERSION_NAME)
        .build()
        .map_err(|why| PhantomError::Meta { path: path.to_owned(), why: why.to_string() })?;
    data.with_exact_meta(meta)
        .write_to_file(path)
        .map_err(|source| PhantomError::Write { path: path.to_owned(), source: Box::new(source) })
}

/// Attributes that every object of the study has: patient, study, equipment, SOP common.
pub(crate) fn common(identity: &DicomIdentity, sop_class: &str, sop_instance: &Uid) -> DataSet {
    let mut set = DataSet(InMemDicomObject::new_empty());
    set.text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192")
        .text(tags::INSTANCE_CREATION_DATE, VR::DA, &identity.study_date)
        .text(tags::INSTANCE_CREATION_TIME, VR::TM, &identity.study_time)
        .text(tags::SOP_CLASS_UID, VR::UI, sop_class)
        .uid(tags::SOP_INSTANCE_UID, sop_instance)
        .text(tags::STUDY_DATE, VR::DA, &identity.study_date)
        .text(tags::STUDY_TIME, VR::TM, &identity.study_time)
        .text(tags::SERIES_DATE, VR::DA, &identity.study_date)
        .text(tags::SERIES_TIME, VR::TM, &identity.study_time)
        .text(tags::CONTENT_DATE, VR::DA, &identity.study_date)
        .text(tags::CONTENT_TIME, VR::TM, &identity.study_time)
        .text(tags::ACCESSION_NUMBER, VR::SH, &identity.accession)
        .text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "")
        .text(tags::STUDY_DESCRIPTION, VR::LO, "CT HEAD SYNTHETIC")
        .text(tags::PATIENT_NAME, VR::PN, &identity.patient_name)
        .text(tags::PATIENT_ID, VR::LO, &identity.patient_id)
        .text(tags::PATIENT_BIRTH_DATE, VR::DA, "")
        .text(tags::PATIENT_SEX, VR::CS, &identity.patient_sex)
        .text(tags::PATIENT_AGE, VR::AS, &identity.patient_age)
        .text(tags::STUDY_INSTANCE_UID, VR::UI, identity.study_instance.as_str())
        .text(tags::STUDY_ID, VR::SH, &identity.study_id)
        .text(tags::MANUFACTURER, VR::LO, "ichor")
        .text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "ichor-phantom")
        .text(tags::DEVICE_SERIAL_NUMBER, VR::LO, "0")
        .text(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION"))
        .text(tags::IMAGE_COMMENTS, VR::LT, "synthetic, not a patient")
        .text(tags::BODY_PART_EXAMINED, VR::CS, "HEAD");
    set
}

impl Series<'_> {
    fn image(&self, image: &Image<'_>) -> InMemDicomObject {
        let mut set = common(self.identity, uids::CT_IMAGE_STORAGE, &image.sop_instance);
        self.acquisition(&mut set, image);
        plane(&mut set, &image.plane);
        self.pixels(&mut set, image);
        set.0
    }

    fn acquisition(&self, set: &mut DataSet, image: &Image<'_>) {
        let options = self.options;
        set.text(tags::IMAGE_TYPE, VR::CS, format!("ORIGINAL\\PRIMARY\\{}", self.kind))
            .text(tags::MODALITY, VR::CS, "CT")
            .text(tags::SERIES_DESCRIPTION, VR::LO, self.description)
            .uid(tags::SERIES_INSTANCE_UID, &self.instance)
            .text(tags::SERIES_NUMBER, VR::IS, self.number.to_string())
            .text(tags::ACQUISITION_NUMBER, VR::IS, "1")
            .text(tags::INSTANCE_NUMBER, VR::IS, image.number.to_string())
            .text(tags::ACQUISITION_DATE, VR::DA, &self.identity.study_date)
            .text(tags::ACQUISITION_TIME, VR::TM, &self.identity.study_time)
            .text(tags::PROTOCOL_NAME, VR::LO, "HEAD ROUTINE")
            .text(tags::PATIENT_POSITION, VR::CS, "HFS")
            .uid(tags::FRAME_OF_REFERENCE_UID, &self.identity.frame_of_reference)
            .text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "OM")
            .text(tags::KVP, VR::DS, "120")
            .text(tags::SCAN_OPTIONS, VR::CS, if options.tilt_degrees == 0.0 { "HELICAL" } else { "AXIAL" })
            .decimals(tags::SLICE_THICKNESS, &[options.slice_thickness_mm])
            .decimals(tags::DATA_COLLECTION_DIAMETER, &[options.fov_mm.max(250.0)])
            .decimals(tags::RECONSTRUCTION_DIAMETER, &[options.fov_mm])
            .decimals(tags::GANTRY_DETECTOR_TILT, &[options.tilt_degrees])
            .text(tags::EXPOSURE_TIME, VR::IS, "1000")
            .text(tags::X_RAY_TUBE_CURRENT, VR::IS, "200")
            .text(tags::EXPOSURE, VR::IS, "200")
            .text(tags::CONVOLUTION_KERNEL, VR::SH, self.kernel);
    }

    fn pixels(&self, set: &mut DataSet, image: &Image<'_>) {
        let (bits, signed) = match self.options.storage {
            Storage::Signed16 => (16u16, true),
            Storage::Unsigned12 => (12, false),
        };
        set.number(tags::SAMPLES_PER_PIXEL, 1)
            .text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2")
            .number(tags::ROWS, image.plane.rows as u16)
            .number(tags::COLUMNS, image.plane.columns as u16)
            .number(tags::BITS_ALLOCATED, 16)
            .number(tags::BITS_STORED, bits)
            .number(tags::HIGH_BIT, bits - 1)
            .number(tags::PIXEL_REPRESENTATION, u16::from(signed))
            .decimals(tags::WINDOW_CENTER, &self.window[..1])
            .decimals(tags::WINDOW_WIDTH, &self.window[1..])
            .decimals(tags::RESCALE_INTERCEPT, &[f64::from(INTERCEPT)])
            .decimals(tags::RESCALE_SLOPE, &[1.0])
            .text(tags::RESCALE_TYPE, VR::LO, if self.kind == "LOCALIZER" { "US" } else { "HU" });
        if image.circle_mm.is_some() && self.options.padding == Padding::Declared {
            set.0.put(DataElement::new(tags::PIXEL_PADDING_VALUE, VR::SS, PrimitiveValue::from(PADDING_VALUE)));
        }
        let stored: Vec<u16> = stored_values(image, signed);
        set.0.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(stored.into())));
    }
}

/// Stored values of an image, as the bits of 16-bit words.
fn stored_values(image: &Image<'_>, signed: bool) -> Vec<u16> {
    let (rows, columns) = (image.plane.rows as usize, image.plane.columns as usize);
    let radius2 = image.circle_mm.map(|r| (r / image.plane.spacing[0]).powi(2));
    let middle = [(rows as f64 - 1.0) / 2.0, (columns as f64 - 1.0) / 2.0];
    image
        .hu
        .iter()
        .enumerate()
        .map(|(at, hu)| {
            let (dy, dx) = ((at / columns) as f64 - middle[0], (at % columns) as f64 - middle[1]);
            if signed && radius2.is_some_and(|radius2| dx * dx + dy * dy > radius2) {
                return PADDING_VALUE as u16;
            }
            let stored = i32::from(*hu) - INTERCEPT;
            if signed { stored.clamp(-32768, 32767) as i16 as u16 } else { stored.clamp(0, 4095) as u16 }
        })
        .collect()
}

/// Image Plane module (PS3.3 C.7.6.2).
fn plane(set: &mut DataSet, plane: &ImagePlane) {
    let orientation: Vec<f64> = plane.row.iter().chain(&plane.column).copied().collect();
    set.decimals(tags::PIXEL_SPACING, &plane.spacing)
        .decimals(tags::IMAGE_ORIENTATION_PATIENT, &orientation)
        .decimals(tags::IMAGE_POSITION_PATIENT, &plane.position)
        .decimals(tags::SLICE_LOCATION, &[plane.position[2]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_strings_fit_and_keep_a_hundredth_of_a_micrometre() {
        for value in [0.0, -0.0, 1.0, -119.765625, 0.46875, -0.3173046564050922, 1e-12, -199.99999999, 123456.789] {
            let text = decimal(value);
            assert!(text.len() <= 16, "{text}");
            assert!((text.parse::<f64>().unwrap() - value).abs() < 1e-8, "{value} became {text}");
        }
        assert_eq!(decimal(-0.0), "0");
    }
}
