//! Multi-frame CT: Enhanced CT (PS3.3 A.38.1) and Legacy Converted Enhanced CT (A.70), each frame as if it were an image
//! of its own.
//!
//! What the functional groups (C.7.6.16) say of a frame is brought to where a single-frame image says it; from there on
//! the same code reads both. Pixels are read frame by frame: a file of a thousand frames costs the memory of one.

mod groups;
mod index;
mod stored;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::{DefaultDicomObject, InMemDicomObject, OpenFileOptions};
use dicom_transfer_syntax_registry::entries;

use crate::attribute::count;
use crate::error::CtError;
use crate::header::InstanceHeader;
use crate::volume::{Slice, read_object};
use groups::Groups;
use index::PixelIndex;
pub use stored::{PixelDescription, StoredPixels};

/// Most frames of one file.
const MOST_FRAMES: u32 = 65_536;

/// One multi-frame file, its header read and its frames found.
pub struct MultiFrame {
    path: PathBuf,
    /// Everything but functional groups and pixels.
    root: DefaultDicomObject,
    groups: Groups,
    frames: u32,
}

impl MultiFrame {
    /// Reads the header of a Part 10 file.
    ///
    /// # Errors
    /// [`CtError`] if it cannot be parsed, or if it does not describe as many frames as it has: then no frame can be
    /// told from another.
    pub fn open(path: &Path) -> Result<Self, CtError> {
        let mut root = OpenFileOptions::new()
            .read_until(tags::PIXEL_DATA)
            .open_file(path)
            .map_err(|error| CtError::Parse(error.to_string()))?;
        let frames = count(&root, tags::NUMBER_OF_FRAMES, "Number of Frames")?;
        if !(1..=MOST_FRAMES).contains(&frames) {
            let problem = format!("is {frames}, 1 to {MOST_FRAMES} are supported");
            return Err(CtError::Attribute { name: "Number of Frames", problem });
        }
        let groups = Groups::take(&mut root)?;
        if groups.frames() != frames as usize {
            let problem = format!("has {} items, Number of Frames is {frames}", groups.frames());
            return Err(CtError::Attribute { name: "Per-Frame Functional Groups Sequence", problem });
        }
        Ok(Self { path: path.to_owned(), root, groups, frames })
    }

    /// How many frames it has.
    #[must_use]
    pub const fn frames(&self) -> u32 {
        self.frames
    }

    /// The header of each frame, in the order of the file.
    ///
    /// # Errors
    /// [`CtError`] if a UID is missing. A frame without a place keeps the reason in its header.
    pub fn headers(&self) -> Result<Vec<InstanceHeader>, CtError> {
        let header = |frame| {
            let object = self.without_pixels(frame)?;
            let mut header = InstanceHeader::of(&object, &self.path)?;
            header.frame = Some(frame);
            // The number within the file: frames at one position are told apart by it.
            header.instance_number = Some(f64::from(frame));
            Ok(header)
        };
        (1..=self.frames).map(header).collect()
    }

    /// Decodes one frame, counted from 1, into Hounsfield units.
    ///
    /// # Errors
    /// [`CtError`] names what is wrong with the frame; the others are not affected.
    pub fn read(&self, frame: u32) -> Result<Slice, CtError> {
        read_object(&self.image(frame)?)
    }

    /// One frame, counted from 1, as a single-frame Part 10 file in the same transfer syntax: for a decoder elsewhere.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn file(&self, frame: u32) -> Result<Vec<u8>, CtError> {
        let mut bytes = Vec::new();
        self.image(frame)?.write_all(&mut bytes).map_err(|error| CtError::Parse(error.to_string()))?;
        Ok(bytes)
    }

    fn without_pixels(&self, frame: u32) -> Result<DefaultDicomObject, CtError> {
        let index = frame.checked_sub(1).filter(|_| frame <= self.frames).ok_or_else(|| CtError::Attribute {
            name: "Number of Frames",
            problem: format!("is {}, there is no frame {frame}", self.frames),
        })?;
        let mut object = self.root.clone();
        self.groups.bring_to(&mut object, index as usize);
        object.remove_element(tags::NUMBER_OF_FRAMES);
        Ok(object)
    }

    /// A frame with its pixels, as a single-frame image.
    fn image(&self, frame: u32) -> Result<DefaultDicomObject, CtError> {
        let mut object = self.without_pixels(frame)?;
        let sides = [count(&object, tags::ROWS, "Rows")?, count(&object, tags::COLUMNS, "Columns")?];
        let allocated = count(&object, tags::BITS_ALLOCATED, "Bits Allocated")?;
        let samples = count(&object, tags::SAMPLES_PER_PIXEL, "Samples per Pixel").unwrap_or(1);
        let size = sides.iter().chain([&samples, &allocated.div_ceil(8)]).fold(1u64, |all, one| all * u64::from(*one));
        let mut file = File::open(&self.path).map_err(|error| CtError::Parse(error.to_string()))?;
        let pixels: DataElement<InMemDicomObject> = match PixelIndex::of(&mut file, self.frames)? {
            PixelIndex::Native { start, length } => {
                let end = size.saturating_mul(u64::from(frame));
                if end > length {
                    return Err(CtError::ShortPixelData {
                        found: length.saturating_sub(end - size) as usize,
                        wanted: size as usize,
                        rows: sides[0],
                        columns: sides[1],
                    });
                }
                let bytes = read_at(&mut file, start + end - size, size)?;
                let is_big = object.meta().transfer_syntax() == entries::EXPLICIT_VR_BIG_ENDIAN.uid();
                DataElement::new(tags::PIXEL_DATA, VR::OW, native(&bytes, allocated, is_big))
            }
            PixelIndex::Fragments(frames) => {
                let fragments = &frames[frame as usize - 1];
                let bytes = fragments.iter().map(|(start, length)| read_at(&mut file, *start, *length));
                let pixels = PixelFragmentSequence::new(Vec::<u32>::new(), bytes.collect::<Result<Vec<_>, _>>()?);
                DataElement::new(tags::PIXEL_DATA, VR::OB, pixels)
            }
        };
        object.put(pixels);
        Ok(object)
    }
}

fn read_at(file: &mut File, start: u64, length: u64) -> Result<Vec<u8>, CtError> {
    let failed = |error: std::io::Error| CtError::Parse(error.to_string());
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 == length {
        return Ok(bytes);
    }
    Err(CtError::Parse(format!("the file ends {} bytes before its pixel data do", length - bytes.len() as u64)))
}

/// Uncompressed cells as a parser gives them.
fn native(bytes: &[u8], allocated: u32, is_big: bool) -> PrimitiveValue {
    if allocated != 16 {
        return PrimitiveValue::from(bytes.to_vec());
    }
    let cell = |pair: &[u8]| match is_big {
        true => u16::from_be_bytes([pair[0], pair[1]]),
        false => u16::from_le_bytes([pair[0], pair[1]]),
    };
    PrimitiveValue::U16(bytes.chunks_exact(2).map(cell).collect())
}
