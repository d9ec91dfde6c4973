//! Reading a binary segmentation back: masks and planes, frame by frame.

use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use ichor_core::{ImagePlane, Uid};
use thiserror::Error;

use crate::bits::{self, BitError};

/// Why a file is not read as a binary segmentation.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Not a DICOM file.
    #[error("segmentation cannot be parsed: {0}")]
    Parse(String),
    /// Another kind of object, or a kind of segmentation that is not read here.
    #[error("{name} is {found:?}, {expected:?} expected")]
    Kind {
        /// The attribute.
        name: &'static str,
        /// What stands there.
        found: String,
        /// What must stand there.
        expected: &'static str,
    },
    /// An attribute is missing or broken.
    #[error("{0} is missing or not valid")]
    Attribute(&'static str),
    /// One of a frame's attributes is missing or broken.
    #[error("frame {frame}: {name} is missing or not valid")]
    Frame {
        /// One-based frame.
        frame: usize,
        /// The attribute.
        name: &'static str,
    },
    /// The pixel data are too short.
    #[error("pixel data: {0}")]
    Bits(#[from] BitError),
}

/// A frame as it stands in the object.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadFrame {
    /// The source instance that it was derived from.
    pub source_sop_instance: Uid,
    /// Number of the segment that it belongs to.
    pub segment: u16,
    /// Its plane.
    pub plane: ImagePlane,
    /// Rows × columns, row by row, 0 or 1.
    pub mask: Vec<u8>,
}

/// A binary segmentation as it stands in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSegmentation {
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// The frames, in order.
    pub frames: Vec<ReadFrame>,
}

/// Reads a Part 10 file that holds an uncompressed BINARY segmentation, ours or another's.
///
/// # Errors
/// [`ReadError`] names the attribute, and the frame.
pub fn read_segmentation(path: impl AsRef<Path>) -> Result<ReadSegmentation, ReadError> {
    let file = dicom_object::open_file(path).map_err(|e| ReadError::Parse(e.to_string()))?;
    let object: &InMemDicomObject = &file;
    for (tag, name, expected) in [
        (tags::SOP_CLASS_UID, "SOP class UID", uids::SEGMENTATION_STORAGE),
        (tags::SEGMENTATION_TYPE, "segmentation type", "BINARY"),
        (tags::BITS_ALLOCATED, "bits allocated", "1"),
    ] {
        let found = text(object, tag).unwrap_or_default();
        if found != expected {
            return Err(ReadError::Kind { name, found, expected });
        }
    }
    let size = |tag, name| text(object, tag).and_then(|t| t.parse::<u16>().ok()).ok_or(ReadError::Attribute(name));
    let (rows, columns) = (size(tags::ROWS, "rows")?, size(tags::COLUMNS, "columns")?);
    let pixels = usize::from(rows) * usize::from(columns);
    let packed =
        object.get(tags::PIXEL_DATA).and_then(|e| e.to_bytes().ok()).ok_or(ReadError::Attribute("pixel data"))?;
    let shared = item(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let per_frame = object.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).and_then(|e| e.items()).unwrap_or_default();
    let frames = per_frame.iter().enumerate().map(|(i, frame)| {
        let groups = Groups { number: i + 1, frame, shared };
        Ok(ReadFrame {
            source_sop_instance: groups.source()?,
            segment: groups.segment()?,
            plane: groups.plane(u32::from(rows), u32::from(columns))?,
            mask: bits::unpack_frame(&packed, i, pixels)?,
        })
    });
    Ok(ReadSegmentation {
        sop_instance: uid(object, tags::SOP_INSTANCE_UID).ok_or(ReadError::Attribute("SOP instance UID"))?,
        study_instance: uid(object, tags::STUDY_INSTANCE_UID).ok_or(ReadError::Attribute("study instance UID"))?,
        frames: frames.collect::<Result<_, ReadError>>()?,
    })
}

fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    Some(object.get(tag)?.to_str().ok()?.trim_matches(['\0', ' ']).to_owned())
}

fn uid(object: &InMemDicomObject, tag: Tag) -> Option<Uid> {
    Uid::parse(&text(object, tag)?).ok()
}

fn item(object: &InMemDicomObject, tag: Tag) -> Option<&InMemDicomObject> {
    object.get(tag)?.items()?.first()
}

/// The functional groups of one frame.
struct Groups<'a> {
    number: usize,
    frame: &'a InMemDicomObject,
    shared: Option<&'a InMemDicomObject>,
}

impl Groups<'_> {
    fn group(&self, tag: Tag) -> Option<&InMemDicomObject> {
        item(self.frame, tag).or_else(|| item(self.shared?, tag))
    }

    fn missing(&self, name: &'static str) -> ReadError {
        ReadError::Frame { frame: self.number, name }
    }

    fn source(&self) -> Result<Uid, ReadError> {
        self.group(tags::DERIVATION_IMAGE_SEQUENCE)
            .and_then(|derivation| item(derivation, tags::SOURCE_IMAGE_SEQUENCE))
            .and_then(|source| uid(source, tags::REFERENCED_SOP_INSTANCE_UID))
            .ok_or_else(|| self.missing("source image"))
    }

    fn segment(&self) -> Result<u16, ReadError> {
        self.group(tags::SEGMENT_IDENTIFICATION_SEQUENCE)
            .and_then(|group| text(group, tags::REFERENCED_SEGMENT_NUMBER)?.parse().ok())
            .ok_or_else(|| self.missing("segment number"))
    }

    fn numbers<const N: usize>(&self, group: Tag, tag: Tag, name: &'static str) -> Result<[f64; N], ReadError> {
        self.group(group)
            .and_then(|g| g.get(tag)?.to_multi_float64().ok()?.try_into().ok())
            .ok_or_else(|| self.missing(name))
    }

    fn plane(&self, rows: u32, columns: u32) -> Result<ImagePlane, ReadError> {
        let [a, b, c, d, e, f] =
            self.numbers(tags::PLANE_ORIENTATION_SEQUENCE, tags::IMAGE_ORIENTATION_PATIENT, "orientation")?;
        let plane = ImagePlane {
            position: self.numbers(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT, "position")?,
            row: [a, b, c],
            column: [d, e, f],
            spacing: self.numbers(tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_SPACING, "pixel spacing")?,
            rows,
            columns,
        };
        plane.checked().map_err(|_| self.missing("plane"))
    }
}
