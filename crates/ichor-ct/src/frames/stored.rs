//! Pixels as a file holds them, frame by frame, whatever the object is: for those who pass them on, draw them, or have them
//! decoded elsewhere.

use std::fs::File;
use std::path::{Path, PathBuf};

use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, FileMetaTableBuilder, InMemDicomObject, OpenFileOptions, open_file};
use dicom_transfer_syntax_registry::entries;

use super::index::PixelIndex;
use super::{MOST_FRAMES, read_at};
use crate::attribute::{count, text};
use crate::error::CtError;

/// What a decoder needs to know of an image (PS3.3 C.7.6.3), and nothing of the patient.
const DESCRIPTION: [Tag; 9] = [
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::PLANAR_CONFIGURATION,
    tags::ROWS,
    tags::COLUMNS,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
];

/// How the cells of an image are to be understood (PS3.3 C.7.6.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelDescription {
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// Number of Frames; 1 where it is absent.
    pub frames: u32,
    /// Samples per Pixel.
    pub samples: u32,
    /// Bits Allocated.
    pub allocated: u32,
    /// Bits Stored.
    pub stored: u32,
    /// Whether values have a sign.
    pub is_signed: bool,
    /// Whether colours lie plane by plane.
    pub is_planar: bool,
    /// Photometric Interpretation.
    pub photometric: String,
}

impl PixelDescription {
    /// Reads it from a header.
    ///
    /// # Errors
    /// [`CtError`] if the object holds no image, or one that is larger than anybody makes.
    pub fn of(object: &DefaultDicomObject) -> Result<Self, CtError> {
        let allocated = count(object, tags::BITS_ALLOCATED, "Bits Allocated")?;
        let described = Self {
            rows: count(object, tags::ROWS, "Rows")?,
            columns: count(object, tags::COLUMNS, "Columns")?,
            frames: count(object, tags::NUMBER_OF_FRAMES, "Number of Frames").unwrap_or(1),
            samples: count(object, tags::SAMPLES_PER_PIXEL, "Samples per Pixel").unwrap_or(1),
            allocated,
            stored: count(object, tags::BITS_STORED, "Bits Stored").unwrap_or(allocated),
            is_signed: count(object, tags::PIXEL_REPRESENTATION, "Pixel Representation").unwrap_or(0) == 1,
            is_planar: count(object, tags::PLANAR_CONFIGURATION, "Planar Configuration").unwrap_or(0) == 1,
            photometric: text(object, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default().trim().to_owned(),
        };
        let wrong = |name, problem: String| Err(CtError::Attribute { name, problem });
        if !(1..=MOST_FRAMES).contains(&described.frames) {
            return wrong("Number of Frames", format!("is {}, 1 to {MOST_FRAMES} are supported", described.frames));
        }
        if !(1..=65_535).contains(&described.rows) || !(1..=65_535).contains(&described.columns) {
            return wrong("Rows and Columns", format!("are {} and {}", described.rows, described.columns));
        }
        if ![1, 8, 16, 32].contains(&described.allocated) || !(1..=4).contains(&described.samples) {
            let problem = format!("is {allocated} with {} samples, 1, 8, 16 or 32 are supported", described.samples);
            return wrong("Bits Allocated", problem);
        }
        Ok(described)
    }

    /// Bits of one frame, uncompressed.
    #[must_use]
    pub fn frame_bits(&self) -> u64 {
        [self.rows, self.columns, self.samples, self.allocated].into_iter().map(u64::from).product()
    }

    /// Bytes of one frame, uncompressed; a last byte that is not full counts.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        self.frame_bits().div_ceil(8)
    }
}

/// The pixels of one file.
pub struct StoredPixels {
    path: PathBuf,
    header: DefaultDicomObject,
    description: PixelDescription,
    source: Source,
}

enum Source {
    /// They lie in the file.
    File(PixelIndex),
    /// The data set was deflated.
    Memory(Vec<u8>),
}

impl StoredPixels {
    /// Reads the header of a Part 10 file and finds its frames. A deflated file is inflated as a whole: whoever calls has
    /// asked before how large that is.
    ///
    /// # Errors
    /// [`CtError`] if it cannot be parsed, or holds no pixel data.
    pub fn open(path: &Path) -> Result<Self, CtError> {
        let parse = |error: &dyn std::fmt::Display| CtError::Parse(error.to_string());
        let read = OpenFileOptions::new().read_until(tags::PIXEL_DATA).open_file(path);
        let header = read.map_err(|error| parse(&error))?;
        let description = PixelDescription::of(&header)?;
        let source = if header.meta().transfer_syntax() == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN {
            let whole = open_file(path).map_err(|error| parse(&error))?;
            let pixels = whole.element_opt(tags::PIXEL_DATA).ok().flatten().ok_or(CtError::Missing("Pixel Data"))?;
            Source::Memory(pixels.to_bytes().map_err(|error| parse(&error))?.into_owned())
        } else {
            let mut file = File::open(path).map_err(|error| parse(&error))?;
            Source::File(PixelIndex::of(&mut file, description.frames)?)
        };
        Ok(Self { path: path.to_owned(), header, description, source })
    }

    /// Everything before the pixels.
    #[must_use]
    pub const fn header(&self) -> &DefaultDicomObject {
        &self.header
    }

    /// How the cells are to be understood.
    #[must_use]
    pub const fn description(&self) -> &PixelDescription {
        &self.description
    }

    /// Whether no codec is needed.
    #[must_use]
    pub const fn is_native(&self) -> bool {
        !matches!(self.source, Source::File(PixelIndex::Fragments(_)))
    }

    /// One frame, counted from 1, as it is: uncompressed in little endian order, a frame of single bits beginning with a
    /// byte of its own; else the codestream.
    ///
    /// # Errors
    /// [`CtError`] if there is no such frame, or not all of it.
    pub fn raw(&self, frame: u32) -> Result<Vec<u8>, CtError> {
        let index = self.index(frame)?;
        match &self.source {
            Source::File(PixelIndex::Fragments(frames)) => {
                let mut file = File::open(&self.path).map_err(|error| CtError::Parse(error.to_string()))?;
                let fragments = frames.get(index as usize).ok_or(CtError::Missing("Pixel Data"))?;
                let mut bytes = Vec::new();
                for (start, length) in fragments {
                    bytes.append(&mut read_at(&mut file, *start, *length)?);
                }
                Ok(bytes)
            }
            Source::File(PixelIndex::Native { start, length }) => {
                let (from, until) = self.span(index, *length)?;
                let mut file = File::open(&self.path).map_err(|error| CtError::Parse(error.to_string()))?;
                let bytes = read_at(&mut file, start + from, until - from)?;
                Ok(self.in_order(index, bytes))
            }
            Source::Memory(all) => {
                let (from, until) = self.span(index, all.len() as u64)?;
                Ok(self.in_order(index, all[from as usize..until as usize].to_vec()))
            }
        }
    }

    /// One frame, counted from 1, as a single-frame Part 10 file in the same transfer syntax that says nothing of the
    /// patient: for a decoder elsewhere.
    ///
    /// # Errors
    /// As [`Self::raw`].
    pub fn single(&self, frame: u32) -> Result<Vec<u8>, CtError> {
        let index = self.index(frame)?;
        let Source::File(PixelIndex::Fragments(frames)) = &self.source else {
            return Err(CtError::Unsupported("decoding what is not encoded"));
        };
        let parse = |error: &dyn std::fmt::Display| CtError::Parse(error.to_string());
        let mut file = File::open(&self.path).map_err(|error| parse(&error))?;
        let fragments = frames.get(index as usize).ok_or(CtError::Missing("Pixel Data"))?;
        let bytes = fragments.iter().map(|(start, length)| read_at(&mut file, *start, *length));
        let pixels = PixelFragmentSequence::new(Vec::<u32>::new(), bytes.collect::<Result<Vec<_>, _>>()?);
        let mut image = InMemDicomObject::new_empty();
        for element in DESCRIPTION.into_iter().filter_map(|tag| self.header.element_opt(tag).ok().flatten()) {
            image.put(element.clone());
        }
        let class = uids::SECONDARY_CAPTURE_IMAGE_STORAGE;
        image.put(DataElement::new(tags::SOP_CLASS_UID, VR::UI, PrimitiveValue::from(class)));
        image.put(DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, PrimitiveValue::from("2.25.1")));
        image.put(DataElement::new(tags::PIXEL_DATA, VR::OB, pixels));
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(self.header.meta().transfer_syntax())
            .media_storage_sop_class_uid(class)
            .media_storage_sop_instance_uid("2.25.1");
        let mut bytes = Vec::new();
        let file = image.with_meta(meta).map_err(|error| parse(&error))?;
        file.write_all(&mut bytes).map_err(|error| parse(&error))?;
        Ok(bytes)
    }

    fn index(&self, frame: u32) -> Result<u32, CtError> {
        let frames = self.description.frames;
        frame.checked_sub(1).filter(|index| *index < frames).ok_or_else(|| CtError::Attribute {
            name: "Number of Frames",
            problem: format!("is {frames}, there is no frame {frame}"),
        })
    }

    /// First byte and the one behind the last of a frame.
    fn span(&self, index: u32, length: u64) -> Result<(u64, u64), CtError> {
        let bits = self.description.frame_bits();
        let (from, until) = (u64::from(index) * bits, u64::from(index + 1) * bits);
        let (from, until) = (from / 8, until.div_ceil(8));
        if until <= length {
            return Ok((from, until));
        }
        Err(CtError::ShortPixelData {
            found: usize::try_from(length.saturating_sub(from)).unwrap_or(usize::MAX),
            wanted: usize::try_from(until - from).unwrap_or(usize::MAX),
            rows: self.description.rows,
            columns: self.description.columns,
        })
    }

    fn in_order(&self, index: u32, bytes: Vec<u8>) -> Vec<u8> {
        let is_big = self.header.meta().transfer_syntax() == entries::EXPLICIT_VR_BIG_ENDIAN.uid();
        match self.description.allocated {
            1 => aligned(
                &bytes,
                (u64::from(index) * self.description.frame_bits() % 8) as u32,
                self.description.frame_bits(),
            ),
            16 if is_big => bytes.chunks_exact(2).flat_map(|cell| [cell[1], cell[0]]).collect(),
            32 if is_big => bytes.chunks_exact(4).flat_map(|cell| [cell[3], cell[2], cell[1], cell[0]]).collect(),
            _ => bytes,
        }
    }
}

/// Bits from bit `shift` of the first byte on, the lowest first (PS3.5 8.1.1), so many of them; the rest of the last byte is 0.
fn aligned(bytes: &[u8], shift: u32, bits: u64) -> Vec<u8> {
    let wanted = usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX).min(bytes.len());
    let byte = |at: usize| u16::from(bytes.get(at).copied().unwrap_or(0));
    let mut moved: Vec<u8> = (0..wanted).map(|at| ((byte(at) | byte(at + 1) << 8) >> shift & 0xFF) as u8).collect();
    if let (Some(last), 1..) = (moved.last_mut(), bits % 8) {
        *last &= (1u16 << (bits % 8)).wrapping_sub(1) as u8;
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_begin_with_a_byte_of_their_own() {
        // Three frames of nine bits: 1 at the ends of each.
        let bits = [0b0000_0001u8, 0b0000_0011, 0b0000_0110, 0b0000_0100];
        assert_eq!(aligned(&bits[0..2], 0, 9), [0b0000_0001, 0b0000_0001]);
        assert_eq!(aligned(&bits[1..3], 1, 9), [0b0000_0001, 0b0000_0001]);
        assert_eq!(aligned(&bits[2..4], 2, 9), [0b0000_0001, 0b0000_0001]);
        assert_eq!(aligned(&[0xFF, 0xFF], 0, 16), [0xFF, 0xFF]);
    }
}
