//! Reading a segmentation back: masks and planes, frame by frame.

use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use ichor_core::{ImagePlane, Uid};
use thiserror::Error;

use crate::bits::{self, BitError};
use crate::element::Element;
use crate::form::SegmentationType;
use crate::rle;

/// Why a file is not read as a segmentation.
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
    /// The pixel data cannot be decoded.
    #[error("pixel data: {0}")]
    Pixels(String),
}

/// A frame as it stands in the object.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadFrame {
    /// The source instance that it was derived from.
    pub source_sop_instance: Uid,
    /// The frame of that instance, counted from 1, where it has several.
    pub source_frame: Option<u32>,
    /// Number of the segment that it belongs to; `None` in a label map.
    pub segment: Option<u16>,
    /// Its plane.
    pub plane: ImagePlane,
    /// Rows × columns, row by row: 0 or 1 (BINARY), 0 to Maximum Fractional Value (FRACTIONAL), segments' numbers
    /// (LABELMAP).
    pub mask: Vec<u16>,
}

/// A segmentation as it stands in a file.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSegmentation {
    /// SOP Instance UID.
    pub sop_instance: Uid,
    /// Study Instance UID.
    pub study_instance: Uid,
    /// Segmentation Type.
    pub kind: SegmentationType,
    /// The frames, in order.
    pub frames: Vec<ReadFrame>,
}

/// Reads a Part 10 file that holds a segmentation, ours or another's: BINARY, FRACTIONAL or LABELMAP, native, deflated
/// or in RLE.
///
/// # Errors
/// [`ReadError`] names the attribute, and the frame.
pub fn read_segmentation(path: impl AsRef<Path>) -> Result<ReadSegmentation, ReadError> {
    let file = dicom_object::open_file(path).map_err(|e| ReadError::Parse(e.to_string()))?;
    let object: &InMemDicomObject = &file;
    let kinds = [SegmentationType::Binary, SegmentationType::Fractional, SegmentationType::LabelMap];
    let class = text(object, tags::SOP_CLASS_UID).unwrap_or_default();
    if !kinds.iter().any(|kind| kind.sop_class() == class) {
        let expected = "Segmentation Storage or Label Map Segmentation Storage";
        return Err(ReadError::Kind { name: "SOP class UID", found: class, expected });
    }
    let found = text(object, tags::SEGMENTATION_TYPE).unwrap_or_default();
    let fits = |kind: &SegmentationType| kind.sop_class() == class && kind.defined_term() == found;
    let Some(kind) = kinds.into_iter().find(fits) else {
        let (name, expected) = ("segmentation type", "one of its SOP class");
        return Err(ReadError::Kind { name, found, expected });
    };
    let number = |tag, name| text(object, tag).and_then(|t| t.parse::<u16>().ok()).ok_or(ReadError::Attribute(name));
    let (rows, columns) = (number(tags::ROWS, "rows")?, number(tags::COLUMNS, "columns")?);
    let pixels = usize::from(rows) * usize::from(columns);
    let bits = number(tags::BITS_ALLOCATED, "bits allocated")?;
    let data = object.get(tags::PIXEL_DATA).ok_or(ReadError::Attribute("pixel data"))?;
    let pixel_data = PixelData::of(data, pixels, bits)?;
    let shared = item(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE);
    let per_frame = object.get(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).and_then(|e| e.items()).unwrap_or_default();
    let frames = per_frame.iter().enumerate().map(|(i, frame)| {
        let groups = Groups { number: i + 1, frame, shared };
        Ok(ReadFrame {
            source_sop_instance: groups.source()?,
            source_frame: groups.source_frame()?,
            segment: (kind != SegmentationType::LabelMap).then(|| groups.segment()).transpose()?,
            plane: groups.plane(u32::from(rows), u32::from(columns))?,
            mask: pixel_data.frame(i)?,
        })
    });
    Ok(ReadSegmentation {
        sop_instance: uid(object, tags::SOP_INSTANCE_UID).ok_or(ReadError::Attribute("SOP instance UID"))?,
        study_instance: uid(object, tags::STUDY_INSTANCE_UID).ok_or(ReadError::Attribute("study instance UID"))?,
        kind,
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

/// Pixel Data, and how to take a frame out of it.
enum PixelData<'a> {
    Bits(std::borrow::Cow<'a, [u8]>, usize),
    Native(std::borrow::Cow<'a, [u8]>, usize, usize),
    Rle(&'a [Vec<u8>], usize, usize),
}

impl<'a> PixelData<'a> {
    fn of(element: &'a Element, pixels: usize, bits: u16) -> Result<Self, ReadError> {
        let bytes = usize::from(bits / 8);
        match (element.fragments(), element.to_bytes(), bits) {
            (Some(fragments), _, 8 | 16) => Ok(Self::Rle(fragments, pixels, bytes)),
            (None, Ok(data), 1) => Ok(Self::Bits(data, pixels)),
            (None, Ok(data), 8 | 16) => Ok(Self::Native(data, pixels, bytes)),
            _ => Err(ReadError::Pixels(format!("{bits} bits allocated, or no bytes"))),
        }
    }

    /// The zero-based frame, one value a pixel.
    fn frame(&self, frame: usize) -> Result<Vec<u16>, ReadError> {
        let values = |bytes: &[u8], width: usize| -> Vec<u16> {
            bytes
                .chunks_exact(width)
                .map(|p| p.iter().rev().fold(0, |value, byte| value << 8 | u16::from(*byte)))
                .collect()
        };
        match self {
            Self::Bits(data, pixels) => Ok(values(&bits::unpack_frame(data, frame, *pixels)?, 1)),
            Self::Native(data, pixels, bytes) => {
                let length = pixels * bytes;
                let here = data.get(frame * length..(frame + 1) * length);
                here.map(|here| values(here, *bytes)).ok_or_else(|| ReadError::Pixels("too short".to_owned()))
            }
            Self::Rle(fragments, pixels, bytes) => {
                let fragment = fragments.get(frame).ok_or_else(|| ReadError::Pixels("too few fragments".to_owned()))?;
                let decoded = rle::decode(fragment, *pixels, *bytes).map_err(|e| ReadError::Pixels(e.to_string()))?;
                Ok(values(&decoded, *bytes))
            }
        }
    }
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

    fn source_image(&self) -> Option<&InMemDicomObject> {
        item(self.group(tags::DERIVATION_IMAGE_SEQUENCE)?, tags::SOURCE_IMAGE_SEQUENCE)
    }

    fn source(&self) -> Result<Uid, ReadError> {
        self.source_image()
            .and_then(|source| uid(source, tags::REFERENCED_SOP_INSTANCE_UID))
            .ok_or_else(|| self.missing("source image"))
    }

    fn source_frame(&self) -> Result<Option<u32>, ReadError> {
        let number = self.source_image().and_then(|source| text(source, tags::REFERENCED_FRAME_NUMBER));
        number.map(|number| number.parse().map_err(|_| self.missing("source frame"))).transpose()
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
