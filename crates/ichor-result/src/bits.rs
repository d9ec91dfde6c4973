//! Bit packing of binary frames (PS3.5 8.1.1, PS3.3 C.8.20.2): one bit a pixel, the first pixel in the least
//! significant bit, frames one after another **without** alignment to bytes between them, the whole padded with zero
//! bits to an even number of bytes.

use thiserror::Error;

/// Why frames cannot be packed or unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BitError {
    /// A frame of the wrong size.
    #[error("frame of {found} pixels, expected {expected}")]
    FrameSize {
        /// Pixels of the frame.
        found: usize,
        /// Pixels of every frame.
        expected: usize,
    },
    /// A DICOM value is at most 2³² − 2 bytes long.
    #[error("{frames} frames of {pixels} pixels exceed the largest DICOM value")]
    TooLarge {
        /// Frames.
        frames: usize,
        /// Pixels of each.
        pixels: usize,
    },
    /// Unpacking beyond the end.
    #[error("frame {frame} of {pixels} pixels lies beyond the {bytes} bytes of pixel data")]
    OutOfRange {
        /// Zero-based frame.
        frame: usize,
        /// Pixels of each frame.
        pixels: usize,
        /// Bytes there are.
        bytes: usize,
    },
}

/// Bytes of Pixel Data for so many frames of so many pixels, padding to even length included.
///
/// # Errors
/// [`BitError::TooLarge`] when that exceeds a DICOM value.
pub fn packed_length(frames: usize, pixels: usize) -> Result<usize, BitError> {
    let too_large = BitError::TooLarge { frames, pixels };
    let bits = frames.checked_mul(pixels).ok_or_else(|| too_large.clone())?;
    let bytes = bits.div_ceil(8).next_multiple_of(2);
    if bytes as u64 >= u64::from(u32::MAX) { Err(too_large) } else { Ok(bytes) }
}

/// Packs frames of `pixels` bytes each; zero is background, anything else is mask.
///
/// # Errors
/// [`BitError`] for a frame of another size, or more than a DICOM value holds.
pub fn pack<'a>(frames: impl ExactSizeIterator<Item = &'a [u8]>, pixels: usize) -> Result<Vec<u8>, BitError> {
    let length = packed_length(frames.len(), pixels)?;
    let (mut packed, mut packer) = (Vec::with_capacity(length), BitPacker::default());
    for frame in frames {
        if frame.len() != pixels {
            return Err(BitError::FrameSize { found: frame.len(), expected: pixels });
        }
        packer.push(frame, &mut packed);
    }
    packer.finish(&mut packed);
    packed.resize(length, 0);
    Ok(packed)
}

/// Packs one frame after another; between them no more is held than the bits of the byte that is not full yet.
#[derive(Debug, Default)]
pub(crate) struct BitPacker {
    pending: u8,
    bits: usize,
}

impl BitPacker {
    /// Appends the full bytes of what is pending and `frame`.
    pub(crate) fn push(&mut self, frame: &[u8], out: &mut Vec<u8>) {
        let lead = (8 - self.bits) % 8;
        let (head, body) = frame.split_at(lead.min(frame.len()));
        for &pixel in head {
            self.pending |= u8::from(pixel != 0) << self.bits;
            self.bits += 1;
        }
        if self.bits == 8 {
            out.push(self.pending);
            (self.pending, self.bits) = (0, 0);
        }
        for eight in body.chunks(8) {
            let byte = eight.iter().enumerate().fold(0u8, |byte, (k, &pixel)| byte | (u8::from(pixel != 0) << k));
            if eight.len() == 8 {
                out.push(byte);
            } else {
                (self.pending, self.bits) = (byte, eight.len());
            }
        }
    }

    /// Appends the last byte if it is not full.
    pub(crate) fn finish(self, out: &mut Vec<u8>) {
        if self.bits > 0 {
            out.push(self.pending);
        }
    }
}

/// Takes the zero-based frame out again, one byte a pixel, 0 or 1.
///
/// # Errors
/// [`BitError::OutOfRange`] when the pixel data end before the frame does.
pub fn unpack_frame(packed: &[u8], frame: usize, pixels: usize) -> Result<Vec<u8>, BitError> {
    let out_of_range = BitError::OutOfRange { frame, pixels, bytes: packed.len() };
    let start = frame.checked_mul(pixels).ok_or_else(|| out_of_range.clone())?;
    let end = start.checked_add(pixels).ok_or_else(|| out_of_range.clone())?;
    if end.div_ceil(8) > packed.len() {
        return Err(out_of_range);
    }
    Ok((start..end).map(|bit| packed[bit / 8] >> (bit % 8) & 1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_pixel_is_the_least_significant_bit() {
        let frame = [1, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(pack([&frame[..]].into_iter(), 10).unwrap(), [0b0000_0001, 0b0000_0010]);
    }

    #[test]
    fn frames_follow_without_alignment() {
        // Three frames of three pixels: 101 010 111, in bits from the least significant on.
        let frames: [&[u8]; 3] = [&[9, 0, 1], &[0, 255, 0], &[1, 1, 1]];
        assert_eq!(pack(frames.into_iter(), 3).unwrap(), [0b1101_0101, 0b0000_0001]);
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let frames: [&[u8]; 2] = [&[0, 0], &[0]];
        assert_eq!(pack(frames.into_iter(), 2), Err(BitError::FrameSize { found: 1, expected: 2 }));
        assert!(matches!(packed_length(usize::MAX, 2), Err(BitError::TooLarge { .. })));
        assert!(matches!(packed_length(200_000, 512 * 512), Err(BitError::TooLarge { .. })));
        assert!(matches!(unpack_frame(&[0, 0], 1, 9), Err(BitError::OutOfRange { .. })));
        assert!(matches!(unpack_frame(&[0, 0], usize::MAX, 9), Err(BitError::OutOfRange { .. })));
    }

    proptest! {
        #[test]
        fn round_trip(pixels in 1usize..70, frames in 1usize..9, seed in any::<u64>()) {
            let mut state = seed | 1;
            let mut next = || { state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); state >> 60 };
            let masks: Vec<Vec<u8>> = (0..frames)
                .map(|f| (0..pixels).map(|_| if f == 1 { 0 } else { (next() % 3) as u8 }).collect())
                .collect();
            let packed = pack(masks.iter().map(Vec::as_slice), pixels).unwrap();
            prop_assert_eq!(packed.len(), packed_length(frames, pixels).unwrap());
            prop_assert_eq!(packed.len() % 2, 0);
            for (i, mask) in masks.iter().enumerate() {
                let binary: Vec<u8> = mask.iter().map(|p| u8::from(*p != 0)).collect();
                prop_assert_eq!(&unpack_frame(&packed, i, pixels).unwrap(), &binary);
            }
            let bits: u32 = packed.iter().map(|b| b.count_ones()).sum();
            let set: usize = masks.iter().flatten().filter(|p| **p != 0).count();
            prop_assert_eq!(bits as usize, set, "padding bits are zero");
        }
    }
}
