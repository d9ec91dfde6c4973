//! Everything that series choice needs of an instance, read without its pixel data.

use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, OpenFileOptions};
use ichor_core::{ImagePlane, Reason, Uid};

use crate::attribute::{count, exactly, number, text, texts, uid};
use crate::error::CtError;
use crate::frames::MultiFrame;
use crate::gate::{adult_age, says_phantom};
use crate::volume::rescale;

/// CT Image Storage (PS3.4 B.5).
pub const CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
/// Enhanced CT Image Storage.
pub const ENHANCED_CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2.1";
/// Legacy Converted Enhanced CT Image Storage.
pub const LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2.2";

/// One instance's header.
#[derive(Clone, Debug)]
pub struct InstanceHeader {
    /// The file.
    pub path: PathBuf,
    /// The frame, counted from 1, where the file has several; as Referenced Frame Number counts (PS3.3 10.3).
    pub frame: Option<u32>,
    /// SOP Class UID.
    pub sop_class: Uid,
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Series Instance UID.
    pub series_instance: Uid,
    /// Modality, empty if absent.
    pub modality: String,
    /// Image Type, upper case.
    pub image_type: Vec<String>,
    /// Body Part Examined.
    pub body_part: Option<String>,
    /// Series Description.
    pub series_description: Option<String>,
    /// Protocol Name.
    pub protocol: Option<String>,
    /// Study Description.
    pub study_description: Option<String>,
    /// The attribute by which it is of a phantom or of quality assurance, if so.
    pub phantom: Option<&'static str>,
    /// The patient's age in years, where it is known.
    pub age_years: Option<f64>,
    /// When it was acquired, in seconds of an unnamed epoch; to compare scans of one study.
    pub acquired_s: Option<f64>,
    /// Convolution Kernel.
    pub kernel: Option<String>,
    /// Contrast/Bolus Agent.
    pub contrast: Option<String>,
    /// Series Number.
    pub series_number: Option<f64>,
    /// Instance Number.
    pub instance_number: Option<f64>,
    /// Slice Thickness, in mm.
    pub slice_thickness: Option<f64>,
    /// Frame of Reference UID.
    pub frame_of_reference: Option<Uid>,
    /// The plane, or why there is none.
    pub plane: Result<ImagePlane, Reason>,
    /// Why the values cannot be rescaled to Hounsfield units, if so.
    pub unscaled: Option<Reason>,
}

impl InstanceHeader {
    /// Reads a Part 10 file up to its pixel data.
    ///
    /// # Errors
    /// [`CtError`] if the file cannot be parsed or a UID is missing. A plane that cannot be is no error here: it is
    /// kept as a reason, because most of what a study holds need not have one.
    pub fn read(path: &Path) -> Result<Self, CtError> {
        let object = OpenFileOptions::new()
            .read_until(tags::PIXEL_DATA)
            .open_file(path)
            .map_err(|error| CtError::Parse(error.to_string()))?;
        Self::of(&object, path)
    }

    /// Reads the headers of a file: one of a single-frame image, and one a frame of a multi-frame CT image.
    ///
    /// # Errors
    /// As [`Self::read`], and if a multi-frame image does not describe each of its frames.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, CtError> {
        let header = Self::read(path)?;
        if header.is_enhanced_ct() { MultiFrame::open(path)?.headers() } else { Ok(vec![header]) }
    }

    /// The header of a data set that lies in a file.
    pub(crate) fn of(object: &DefaultDicomObject, path: &Path) -> Result<Self, CtError> {
        Ok(Self {
            path: path.to_owned(),
            frame: None,
            sop_class: uid(object, tags::SOP_CLASS_UID, "SOP Class UID")?,
            sop_instance: uid(object, tags::SOP_INSTANCE_UID, "SOP Instance UID")?,
            series_instance: uid(object, tags::SERIES_INSTANCE_UID, "Series Instance UID")?,
            modality: text(object, tags::MODALITY).unwrap_or_default(),
            image_type: texts(object, tags::IMAGE_TYPE).iter().map(|value| value.to_uppercase()).collect(),
            body_part: text(object, tags::BODY_PART_EXAMINED),
            series_description: text(object, tags::SERIES_DESCRIPTION),
            protocol: text(object, tags::PROTOCOL_NAME),
            study_description: text(object, tags::STUDY_DESCRIPTION),
            phantom: says_phantom(object),
            age_years: adult_age(object),
            acquired_s: acquired(object),
            kernel: text(object, tags::CONVOLUTION_KERNEL),
            contrast: text(object, tags::CONTRAST_BOLUS_AGENT),
            series_number: number(object, tags::SERIES_NUMBER),
            instance_number: number(object, tags::INSTANCE_NUMBER),
            slice_thickness: number(object, tags::SLICE_THICKNESS).filter(|mm| *mm > 0.0),
            frame_of_reference: uid(object, tags::FRAME_OF_REFERENCE_UID, "Frame of Reference UID").ok(),
            plane: plane(object).map_err(|error| error.reason()),
            unscaled: rescale(object).err().map(|error| error.reason()),
        })
    }

    /// The instance, and the frame if there are several, for reasons.
    #[must_use]
    pub fn label(&self) -> String {
        match self.frame {
            Some(frame) => format!("{} frame {frame}", self.sop_instance),
            None => self.sop_instance.to_string(),
        }
    }

    /// Whether the instance is a single-frame CT image. A Modality that is absent excludes nothing; another one does.
    #[must_use]
    pub fn is_ct_image(&self) -> bool {
        self.sop_class.as_str() == CT_IMAGE_STORAGE && ["", "CT"].contains(&self.modality.as_str())
    }

    /// Whether the instance is a multi-frame CT image.
    #[must_use]
    pub fn is_enhanced_ct(&self) -> bool {
        [ENHANCED_CT_IMAGE_STORAGE, LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE].contains(&self.sop_class.as_str())
    }
}

/// Acquisition Date and Time (or DateTime) in seconds; months count as 31 days, which keeps the order.
fn acquired(object: &DefaultDicomObject) -> Option<f64> {
    let moment = text(object, tags::ACQUISITION_DATE_TIME).or_else(|| {
        let (date, time) = (text(object, tags::ACQUISITION_DATE)?, text(object, tags::ACQUISITION_TIME)?);
        Some(date + &time)
    })?;
    let digits: String = moment.chars().filter(char::is_ascii_digit).take(14).collect();
    let part = |from: usize, to: usize| digits.get(from..to).map_or(Some(0.0), |text| text.parse::<f64>().ok());
    let units = [(part(0, 4)?, 12.0), (part(4, 6)?, 31.0), (part(6, 8)?, 24.0), (part(8, 10)?, 60.0)];
    let minutes = units.into_iter().fold(0.0, |sum, (value, next)| (sum + value) * next);
    (digits.len() >= 12).then_some((minutes + part(10, 12)?) * 60.0 + part(12, 14)?)
}

/// The Image Plane Module (PS3.3 C.7.6.2) of a single-frame image.
pub(crate) fn plane(object: &DefaultDicomObject) -> Result<ImagePlane, CtError> {
    let [rx, ry, rz, cx, cy, cz] = exactly(object, tags::IMAGE_ORIENTATION_PATIENT, "Image Orientation (Patient)")?;
    let plane = ImagePlane {
        position: exactly(object, tags::IMAGE_POSITION_PATIENT, "Image Position (Patient)")?,
        row: [rx, ry, rz],
        column: [cx, cy, cz],
        spacing: exactly(object, tags::PIXEL_SPACING, "Pixel Spacing")?,
        rows: count(object, tags::ROWS, "Rows")?,
        columns: count(object, tags::COLUMNS, "Columns")?,
    };
    Ok(plane.checked()?)
}
