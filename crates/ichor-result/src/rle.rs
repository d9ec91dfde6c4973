//! RLE Lossless frames (PS3.5 Annex G): a header of 64 bytes, then one segment for each byte of a pixel, the most
//! significant first, each padded to even length. Runs do not cross rows (PS3.5 G.3.1).

use thiserror::Error;

const HEADER: usize = 64;
/// Longest run of either kind.
const LONGEST: usize = 128;

/// A frame that is not RLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a frame in RLE: {0}")]
pub(crate) struct RleError(&'static str);

/// Encodes a frame of little-endian pixels of `bytes` (1 or 2) each. The result has even length.
pub(crate) fn encode(frame: &[u8], columns: usize, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out[0] = bytes as u8;
    let mut plane = Vec::with_capacity(columns);
    for (segment, byte) in (0..bytes).rev().enumerate() {
        let offset = out.len() as u32;
        out[4 + segment * 4..8 + segment * 4].copy_from_slice(&offset.to_le_bytes());
        for row in frame.chunks_exact(columns * bytes) {
            plane.clear();
            plane.extend(row.iter().skip(byte).step_by(bytes));
            encode_row(&plane, &mut out);
        }
        if out.len() % 2 == 1 {
            out.push(0);
        }
    }
    out
}

fn encode_row(row: &[u8], out: &mut Vec<u8>) {
    let mut literal = 0..0;
    let mut at = 0;
    while at < row.len() {
        let same = row[at..].iter().take(LONGEST).take_while(|v| **v == row[at]).count();
        // Two equal bytes within a literal run cost nothing; as a run of their own they would end it.
        if same >= 3 || (same == 2 && literal.is_empty()) {
            put_literal(&row[literal.clone()], out);
            out.extend([(257 - same) as u8, row[at]]);
            at += same;
            literal = at..at;
        } else {
            at += 1;
            literal.end = at;
        }
    }
    put_literal(&row[literal], out);
}

fn put_literal(bytes: &[u8], out: &mut Vec<u8>) {
    for part in bytes.chunks(LONGEST) {
        out.push((part.len() - 1) as u8);
        out.extend(part);
    }
}

/// Decodes a frame of `pixels` pixels of `bytes` each into little-endian pixels.
pub(crate) fn decode(data: &[u8], pixels: usize, bytes: usize) -> Result<Vec<u8>, RleError> {
    let word = |at: usize| {
        let four = data.get(at..at + 4).and_then(|four| <[u8; 4]>::try_from(four).ok());
        four.map(|four| u32::from_le_bytes(four) as usize).ok_or(RleError("the header is cut off"))
    };
    if word(0)? != bytes {
        return Err(RleError("the number of segments is not that of the bytes of a pixel"));
    }
    let mut frame = vec![0; pixels * bytes];
    for segment in 0..bytes {
        let start = word(4 + segment * 4)?;
        let end = if segment + 1 < bytes { word(8 + segment * 4)? } else { data.len() };
        let coded = data.get(start..end).filter(|_| start >= HEADER).ok_or(RleError("a segment lies outside"))?;
        let plane = decode_segment(coded, pixels)?;
        for (pixel, value) in frame.chunks_exact_mut(bytes).zip(plane) {
            pixel[bytes - 1 - segment] = value;
        }
    }
    Ok(frame)
}

fn decode_segment(mut coded: &[u8], pixels: usize) -> Result<Vec<u8>, RleError> {
    let mut plane = Vec::with_capacity(pixels);
    while plane.len() < pixels {
        let (head, rest) = coded.split_first().ok_or(RleError("a segment ends before its pixels do"))?;
        let taken = match *head {
            128 => 0,
            literal @ 0..=127 => {
                let bytes = rest.get(..usize::from(literal) + 1).ok_or(RleError("a literal run is cut off"))?;
                plane.extend(bytes);
                bytes.len()
            }
            repeat => {
                let value = rest.first().ok_or(RleError("a replicated run is cut off"))?;
                plane.resize(plane.len() + 257 - usize::from(repeat), *value);
                1
            }
        };
        coded = &rest[taken..];
    }
    if plane.len() > pixels {
        return Err(RleError("a run reaches beyond the frame"));
    }
    Ok(plane)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_the_standard() {
        // PS3.5 G.3.1: runs of 2 and more are replicated, the rest is literal.
        let row = [5, 5, 5, 5, 1, 2, 3, 3, 3];
        let coded = encode(&row, 9, 1);
        assert_eq!(&coded[..8], [1, 0, 0, 0, 64, 0, 0, 0]);
        assert_eq!(&coded[64..], [253, 5, 1, 1, 2, 254, 3, 0]);
    }

    #[test]
    fn broken_frames_are_refused() {
        let coded = encode(&[7; 40], 10, 1);
        assert_eq!(decode(&coded, 40, 1).unwrap(), [7; 40]);
        for (data, pixels, bytes) in [
            (&coded[..30], 40, 1),
            (&coded[..66], 40, 1),
            (&coded[..], 41, 1),
            (&coded[..], 39, 1),
            (&coded[..], 40, 2),
        ] {
            assert!(decode(data, pixels, bytes).is_err(), "{} {pixels} {bytes}", data.len());
        }
    }

    proptest! {
        #[test]
        fn round_trip(columns in 1usize..300, rows in 1usize..5, bytes in 1usize..3, seed in any::<u64>(), variety in 1u64..5) {
            let mut state = seed | 1;
            let frame: Vec<u8> = (0..rows * columns * bytes)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    ((state >> 60) % variety) as u8
                })
                .collect();
            let coded = encode(&frame, columns, bytes);
            prop_assert_eq!(coded.len() % 2, 0);
            prop_assert_eq!(decode(&coded, rows * columns, bytes).unwrap(), frame);
        }
    }
}
