//! What a compressed image says of itself, read before a decoder believes it.
//!
//! Decoders size their buffers by the codestream, and copy what they decoded into an image of the header's size: a
//! larger one ends in a panic or in gigabytes, a smaller one in an image whose rest is silently zero. Both are refused
//! here, with the two sizes named.

use dicom_object::DefaultDicomObject;

use crate::error::CtError;

/// The size that a codestream declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Declared {
    rows: u32,
    columns: u32,
    components: u32,
    /// Bits of a sample.
    precision: u32,
    /// Coded by the cosine transform (ISO 10918-1, SOF0 to SOF2): lossy JPEG.
    is_dct: bool,
}

/// The codecs whose streams are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// ISO 10918-1 and, in the same markers, ISO 14495-1 (JPEG-LS).
    Jpeg,
    /// ISO 15444-1 and -15 (HTJ2K).
    Jpeg2000,
    /// PS3.5 annex G.
    Rle,
}

impl Family {
    fn of(transfer_syntax: &str) -> Option<Self> {
        match transfer_syntax.strip_prefix("1.2.840.10008.1.2.")? {
            "5" => Some(Self::Rle),
            "4.50" | "4.51" | "4.57" | "4.70" | "4.80" | "4.81" => Some(Self::Jpeg),
            "4.90" | "4.91" | "4.201" | "4.202" | "4.203" => Some(Self::Jpeg2000),
            _ => None,
        }
    }
}

/// The matrix of the header, which the codestream has to agree with. One sample a pixel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) rows: u32,
    pub(crate) columns: u32,
    /// Bits Allocated, 8 or 16.
    pub(crate) allocated: u32,
}

/// Which decoder a codestream needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// That of its transfer syntax.
    Usual,
    /// Lossy JPEG of 12 bits a sample, this stream.
    LossyJpeg12(Vec<u8>),
}

/// Compares the first frame's codestream with the header.
///
/// # Errors
/// [`CtError::Codestream`] if it declares another size, or none that can be read.
pub(crate) fn check(object: &DefaultDicomObject, fragments: &[Vec<u8>], expected: Expected) -> Result<Coding, CtError> {
    let Some(family) = Family::of(object.meta().transfer_syntax()) else { return Ok(Coding::Usual) };
    let joined;
    let stream = match fragments {
        [] => return Err(CtError::Codestream("there is no fragment".to_owned())),
        [only] => only,
        // A frame may be cut anywhere, also inside of its own header (PS3.5 A.4). Each fragment of RLE is a frame.
        [first, ..] if family == Family::Rle => first,
        several => {
            joined = several.concat();
            &joined
        }
    };
    let declared = match family {
        Family::Jpeg => jpeg(stream),
        Family::Jpeg2000 => jpeg_2000(stream),
        Family::Rle => return rle(stream, expected).map(|()| Coding::Usual),
    };
    let declared = declared.ok_or_else(|| CtError::Codestream("it has no header that gives its size".to_owned()))?;
    declared.agrees(family, expected)?;
    Ok(match declared.is_dct && declared.precision == 12 {
        true => Coding::LossyJpeg12(stream.clone()),
        false => Coding::Usual,
    })
}

impl Declared {
    fn agrees(self, family: Family, expected: Expected) -> Result<(), CtError> {
        let Expected { rows, columns, allocated } = expected;
        if (self.rows, self.columns, self.components) != (rows, columns, 1) {
            return Err(CtError::Codestream(format!(
                "it says {} rows × {} columns of {} components, the header {rows} × {columns} of 1",
                self.rows, self.columns, self.components
            )));
        }
        // JPEG decoders give one byte a sample up to 8 bits and two above; in cells of another width the values would
        // be others.
        let fits = match family {
            Family::Jpeg => (1..=allocated).contains(&self.precision) && (self.precision > 8) == (allocated == 16),
            Family::Jpeg2000 | Family::Rle => (1..=allocated).contains(&self.precision),
        };
        if !fits {
            let text = format!("it has {} bits a sample, Bits Allocated is {allocated}", self.precision);
            return Err(CtError::Codestream(text));
        }
        Ok(())
    }
}

/// The frame header (SOFn, ISO 10918-1 B.2.2; SOF55, ISO 14495-1 C.2.2).
fn jpeg(stream: &[u8]) -> Option<Declared> {
    let mut rest = stream.strip_prefix(&[0xFF, 0xD8])?;
    loop {
        // Any number of fill bytes may stand before a marker.
        let at = rest.iter().position(|byte| *byte != 0xFF)?;
        let (marker, after) = (rest[at], rest.get(at + 1..)?);
        if at == 0 {
            return None;
        }
        let is_frame = matches!(marker, 0xC0..=0xCF | 0xF7) && !matches!(marker, 0xC4 | 0xC8 | 0xCC);
        match marker {
            // Another image, its end, start of scan: the frame header would have come before.
            0xD8..=0xDA => return None,
            0x01 | 0xD0..=0xD7 => rest = after,
            _ if is_frame => {
                let [precision, r0, r1, c0, c1, components] = after.get(2..8)?.try_into().ok()?;
                return Some(Declared {
                    rows: u16::from_be_bytes([r0, r1]).into(),
                    columns: u16::from_be_bytes([c0, c1]).into(),
                    components: u32::from(components),
                    precision: u32::from(precision),
                    is_dct: (0xC0..=0xC2).contains(&marker),
                });
            }
            _ => {
                let length = u16::from_be_bytes(after.get(..2)?.try_into().ok()?);
                rest = after.get(usize::from(length.max(2))..)?;
            }
        }
    }
}

/// Image and tile size (SIZ, ISO 15444-1 A.5.1). It is the first marker segment; some writers put the boxes of a JP2
/// file before it.
fn jpeg_2000(stream: &[u8]) -> Option<Declared> {
    const START: [u8; 4] = [0xFF, 0x4F, 0xFF, 0x51];
    let at = stream.windows(START.len()).position(|window| window == START)?;
    let siz = stream.get(at + START.len()..)?;
    let long = |from: usize| Some(u32::from_be_bytes(siz.get(from..from + 4)?.try_into().ok()?));
    // Lsiz 2, Rsiz 2, Xsiz, Ysiz, XOsiz, YOsiz, the tile's four, Csiz 2, then Ssiz, XRsiz and YRsiz of each component.
    let (width, height) = (long(4)?.checked_sub(long(12)?)?, long(8)?.checked_sub(long(16)?)?);
    let components = u16::from_be_bytes(siz.get(36..38)?.try_into().ok()?);
    let [depth, x_step, y_step] = siz.get(38..41)?.try_into().ok()?;
    if (x_step, y_step) != (1, 1) {
        return None;
    }
    let precision = u32::from(depth & 0x7F) + 1;
    Some(Declared { rows: height, columns: width, components: u32::from(components), precision, is_dct: false })
}

/// The RLE header (PS3.5 G.5): a segment for each byte of a sample, in order, within the fragment.
fn rle(fragment: &[u8], expected: Expected) -> Result<(), CtError> {
    const HEADER: usize = 64;
    let refused = |text: String| Err(CtError::Codestream(text));
    let Some(header) = fragment.get(..HEADER) else {
        return refused(format!("the RLE fragment has {} bytes, its header alone {HEADER}", fragment.len()));
    };
    let long = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (segments, wanted) = (long(0), expected.allocated as usize / 8);
    if segments != wanted {
        return refused(format!("it has {segments} RLE segments, {wanted} are needed"));
    }
    let mut offsets: Vec<usize> = (1..=segments).map(|index| long(index * 4)).collect();
    offsets.push(fragment.len());
    if offsets[0] < HEADER || offsets.windows(2).any(|pair| pair[0] >= pair[1]) {
        return refused(format!(
            "RLE segments at {:?} do not lie in order in {} bytes",
            &offsets[..segments],
            fragment.len()
        ));
    }
    let (rows, columns) = (expected.rows as usize, expected.columns as usize);
    let pixels = rows * columns;
    for pair in offsets.windows(2) {
        let found = unpacked(&fragment[pair[0]..pair[1]]);
        if found < pixels {
            return refused(format!("an RLE segment ends after {found} of {pixels} bytes"));
        }
        // Padding may unpack to a few bytes more; a whole row or column is another matrix.
        if found - pixels >= rows.min(columns) {
            return refused(format!("an RLE segment has {found} bytes, the header's matrix {pixels}"));
        }
    }
    Ok(())
}

/// Bytes that a segment unpacks to (PS3.5 G.3.2), up to its end or to a run that is cut off.
fn unpacked(segment: &[u8]) -> usize {
    let (mut at, mut bytes) = (0, 0);
    while let Some(control) = segment.get(at) {
        let (run, length) = match *control {
            count @ 0..=127 => (usize::from(count) + 1, usize::from(count) + 2),
            128 => (0, 1),
            count => (257 - usize::from(count), 2),
        };
        if at + length > segment.len() {
            return bytes;
        }
        (at, bytes) = (at + length, bytes + run);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_BY_SEVEN: Declared = Declared { rows: 5, columns: 7, components: 1, precision: 12, is_dct: false };

    fn sof(marker: u8) -> Vec<u8> {
        let comment = [0xFF, 0xFE, 0, 4, 1, 2];
        [&[0xFF, 0xD8], &comment[..], &[0xFF, 0xFF, marker, 0, 11, 12, 0, 5, 0, 7, 1, 1, 0x11, 0]].concat()
    }

    fn siz(width: u32, height: u32, offset: u32) -> Vec<u8> {
        let mut bytes = vec![0xFF, 0x4F, 0xFF, 0x51, 0, 41, 0, 0];
        for value in [width + offset, height + offset, offset, offset, width, height, 0, 0] {
            bytes.extend(value.to_be_bytes());
        }
        bytes.extend([0, 1, 11, 1, 1]);
        bytes
    }

    #[test]
    fn size_of_jpeg_and_jpeg_ls() {
        for marker in [0xC0, 0xC1, 0xC3, 0xF7] {
            let is_dct = marker < 0xC3;
            assert_eq!(jpeg(&sof(marker)), Some(Declared { is_dct, ..FIVE_BY_SEVEN }), "{marker:02X}");
        }
        // Huffman tables are no frame header, and a scan before the frame is no image.
        for marker in [0xC4, 0xDA, 0xD9] {
            assert_eq!(jpeg(&sof(marker)), None, "{marker:02X}");
        }
    }

    #[test]
    fn size_of_jpeg_2000_is_without_its_offset() {
        assert_eq!(jpeg_2000(&siz(7, 5, 3)), Some(FIVE_BY_SEVEN));
        assert_eq!(jpeg_2000(&[&[0; 85], &siz(7, 5, 0)[..]].concat()), Some(FIVE_BY_SEVEN));
    }

    #[test]
    fn each_cut_of_a_header_is_no_size() {
        let (jpeg_bytes, siz_bytes) = (sof(0xC3), siz(7, 5, 0));
        assert!((0..jpeg_bytes.len() - 3).all(|cut| jpeg(&jpeg_bytes[..cut]).is_none()));
        assert!((0..siz_bytes.len()).all(|cut| jpeg_2000(&siz_bytes[..cut]).is_none()));
    }

    #[test]
    fn other_sizes_and_depths_are_refused() {
        let expected = Expected { rows: 5, columns: 7, allocated: 16 };
        let check = |declared: Declared, expected, text: &str| {
            let error = declared.agrees(Family::Jpeg, expected).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        };
        assert!(FIVE_BY_SEVEN.agrees(Family::Jpeg, expected).is_ok());
        check(Declared { rows: 60_000, ..FIVE_BY_SEVEN }, expected, "it says 60000 rows × 7 columns");
        check(Declared { components: 3, ..FIVE_BY_SEVEN }, expected, "of 3 components");
        check(Declared { precision: 8, ..FIVE_BY_SEVEN }, expected, "8 bits a sample");
        check(FIVE_BY_SEVEN, Expected { allocated: 8, ..expected }, "12 bits a sample");
    }

    #[test]
    fn rle_segments_lie_in_order_and_are_whole() {
        let expected = Expected { rows: 2, columns: 2, allocated: 16 };
        let fragment = |offsets: [u32; 2], segments: u32, body: &[u8]| {
            let mut bytes = [segments, offsets[0], offsets[1]].map(u32::to_le_bytes).concat();
            bytes.resize(64, 0);
            bytes.extend(body);
            bytes
        };
        let run = [253, 9, 253, 8]; // Four times 9; four times 8.
        assert!(rle(&fragment([64, 66], 2, &run), expected).is_ok());
        assert!(rle(&fragment([64, 66], 2, &[&run[..], &[0]].concat()), expected).is_ok(), "padding");
        for (offsets, segments, body, text) in [
            ([64, 66], 1, &run[..], "1 RLE segments"),
            ([64, 66], u32::MAX, &run, "4294967295 RLE segments"),
            ([64, 64], 2, &run, "in order"),
            ([66, 64], 2, &run, "in order"),
            ([0, 66], 2, &run, "in order"),
            ([64, u32::MAX], 2, &run, "in order"),
            ([64, 66], 2, &run[..3], "ends after 0 of 4"),
            ([64, 66], 2, &[253, 9, 254, 8], "ends after 3 of 4"),
            ([64, 66], 2, &[253, 9, 251, 8], "has 6 bytes, the header's matrix 4"),
        ] {
            let error = rle(&fragment(offsets, segments, body), expected).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        assert!(rle(&[0; 63], expected).is_err());
    }
}
