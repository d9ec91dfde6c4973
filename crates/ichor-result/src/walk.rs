//! The frames of an object, one at a time, out of the bytes of its file: for the check, which looks at every pixel and
//! must not hold them all. Only what is written here is read: Explicit VR Little Endian, deflated or not, and RLE.

use std::io::{BufReader, Read, Seek};

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use flate2::read::DeflateDecoder;

use crate::meta::transfer_syntax;
use crate::rle;

const UNDEFINED_LENGTH: u32 = u32::MAX;
const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// What the pixels of a frame are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameShape {
    /// Rows × columns.
    pub(crate) pixels: usize,
    /// Bits Allocated: 1, 8 or 16.
    pub(crate) bits: usize,
}

/// Reads the frames of a Part 10 file in order.
pub(crate) struct FrameWalk {
    reader: Box<dyn Read>,
    shape: FrameShape,
    is_rle: bool,
    /// Offsets of the fragments, as the file says; and where the next one lies.
    offsets: Vec<u32>,
    next: u32,
    /// Bytes of native pixel data that are left.
    left: u32,
    /// The bits of the last byte that belong to the next frame, least significant first, and how many.
    carry: (u8, usize),
}

impl FrameWalk {
    /// Goes to the pixel data of a file that is open at its start.
    pub(crate) fn open(mut file: impl Read + Seek + 'static, shape: FrameShape) -> Result<Self, String> {
        let syntax = transfer_syntax(&mut file).map_err(|e| e.to_string())?;
        let file = BufReader::new(file);
        let mut reader: Box<dyn Read> = if syntax == uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN {
            Box::new(BufReader::new(DeflateDecoder::new(file)))
        } else {
            Box::new(file)
        };
        let left = find_pixel_data(&mut reader).map_err(|e| format!("the way to the pixel data: {e}"))?;
        let is_rle = syntax == uids::RLE_LOSSLESS;
        if is_rle != (left == UNDEFINED_LENGTH) {
            return Err(format!("pixel data of length {left:#x} in {syntax}"));
        }
        let mut walk = Self { reader, shape, is_rle, offsets: Vec::new(), next: 0, left, carry: (0, 0) };
        if is_rle {
            let table = walk.fragment()?;
            walk.offsets = table.chunks_exact(4).map(|o| u32::from_le_bytes([o[0], o[1], o[2], o[3]])).collect();
        }
        Ok(walk)
    }

    /// Bytes of native pixel data; `None` for encapsulated frames.
    pub(crate) fn native_length(&self) -> Option<u32> {
        (!self.is_rle).then_some(self.left)
    }

    /// The next frame: one byte a pixel of 1 or 8 bits, two of 16.
    pub(crate) fn next_frame(&mut self, number: usize) -> Result<Vec<u8>, String> {
        if self.is_rle {
            let (said, here) = (self.offsets.get(number - 1).copied(), self.next);
            if said != Some(here) {
                return Err(format!("frame {number} lies at {here}, the offset table says {said:?}"));
            }
            let fragment = self.fragment()?;
            self.next = here.saturating_add(fragment.len() as u32 + 8);
            return rle::decode(&fragment, self.shape.pixels, self.shape.bits / 8)
                .map_err(|e| format!("frame {number}: {e}"));
        }
        if self.shape.bits > 1 {
            return self.native(self.shape.pixels * self.shape.bits / 8);
        }
        let mut pixels = Vec::with_capacity(self.shape.pixels + 8);
        let (byte, count) = self.carry;
        pixels.extend((0..count).map(|bit| byte >> bit & 1));
        let missing = self.shape.pixels.saturating_sub(pixels.len()).div_ceil(8);
        for byte in self.native(missing)? {
            pixels.extend((0..8).map(|bit| byte >> bit & 1));
        }
        let rest = pixels.split_off(self.shape.pixels);
        let byte = rest.iter().enumerate().fold(0, |byte, (bit, set)| byte | set << bit);
        self.carry = (byte, rest.len());
        Ok(pixels)
    }

    /// What is wrong behind the last frame of `frames`, if anything is.
    pub(crate) fn fault_at_end(self, frames: usize) -> Option<String> {
        let mut rest = Vec::new();
        if self.is_rle && self.offsets.len() != frames {
            return Some(format!("the offset table names {} fragments for {frames} frames", self.offsets.len()));
        }
        if let Err(error) = self.reader.take(64).read_to_end(&mut rest) {
            return Some(format!("behind the last frame: {error}"));
        }
        if self.is_rle {
            let is_end = rest == [0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0];
            return (!is_end).then(|| "the fragments do not end behind the last frame".to_owned());
        }
        if rest.len() as u64 != u64::from(self.left) {
            return Some(format!("{} bytes behind the last frame, {} belong to the pixel data", rest.len(), self.left));
        }
        let is_padding = self.carry.0 == 0 && rest.iter().all(|byte| *byte == 0);
        (!is_padding).then(|| "padding bits of the pixel data are set".to_owned())
    }

    fn native(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let taken = u32::try_from(length).ok().and_then(|length| self.left.checked_sub(length));
        self.left = taken.ok_or("the pixel data end before the last frame")?;
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).map_err(|e| format!("pixel data: {e}"))?;
        Ok(bytes)
    }

    fn fragment(&mut self) -> Result<Vec<u8>, String> {
        let mut head = [0; 8];
        self.reader.read_exact(&mut head).map_err(|e| format!("fragment: {e}"))?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if tag(&head) != ITEM || length % 2 == 1 {
            return Err(format!("{} of {length} bytes where a fragment begins", tag(&head)));
        }
        let mut bytes = Vec::new();
        let read = self.reader.by_ref().take(u64::from(length)).read_to_end(&mut bytes);
        match read {
            Ok(read) if read as u64 == u64::from(length) => Ok(bytes),
            Ok(_) => Err("a fragment is cut off".to_owned()),
            Err(error) => Err(format!("fragment: {error}")),
        }
    }
}

fn tag(head: &[u8]) -> Tag {
    Tag(u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]))
}

/// Skips the data set up to the value of Pixel Data at its top level, and returns its length.
fn find_pixel_data(reader: &mut impl Read) -> std::io::Result<u32> {
    let mut depth = 0usize;
    loop {
        let mut head = [0; 8];
        reader.read_exact(&mut head)?;
        let (tag, last_four) = (tag(&head), u32::from_le_bytes([head[4], head[5], head[6], head[7]]));
        if matches!(tag, ITEM_END | SEQUENCE_END) {
            depth = depth.saturating_sub(1);
            continue;
        }
        let length = if tag == ITEM {
            last_four
        } else if is_long(&head[4..6]) {
            let mut long = [0; 4];
            reader.read_exact(&mut long)?;
            u32::from_le_bytes(long)
        } else {
            u32::from(u16::from_le_bytes([head[6], head[7]]))
        };
        if tag == tags::PIXEL_DATA && depth == 0 {
            return Ok(length);
        }
        if length == UNDEFINED_LENGTH {
            depth += 1;
        } else {
            std::io::copy(&mut reader.by_ref().take(u64::from(length)), &mut std::io::sink())?;
        }
    }
}

/// Whether a VR has a length of 32 bits (PS3.5 table 7.1-1).
fn is_long(vr: &[u8]) -> bool {
    const LONG: [&[u8]; 13] =
        [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];
    LONG.contains(&vr)
}
