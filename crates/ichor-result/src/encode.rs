//! Writing the Part 10 file: the data set, then its frames one at a time, so that no more of them is held than one.

use std::io::Write;

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::transfer_syntax::TransferSyntaxIndex;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;
use flate2::Compression;
use flate2::write::DeflateEncoder;
use ichor_core::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

use crate::bits::{self, BitError, BitPacker};
use crate::error::ResultError;
use crate::form::{Encoding, SegmentationType};
use crate::frames::Frame;
use crate::rle;

const UNDEFINED_LENGTH: u32 = u32::MAX;
/// The largest label that fits into one byte.
const LARGEST_BYTE_LABEL: u16 = 255;

/// The pixels of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PixelLayout {
    kind: SegmentationType,
    rows: usize,
    columns: usize,
    /// Bytes of a pixel; 1 where it is a bit.
    bytes: usize,
}

impl PixelLayout {
    pub(crate) const fn new(kind: SegmentationType, rows: u16, columns: u16, lesions: u16) -> Self {
        let is_wide = matches!(kind, SegmentationType::LabelMap) && lesions > LARGEST_BYTE_LABEL;
        Self { kind, rows: rows as usize, columns: columns as usize, bytes: if is_wide { 2 } else { 1 } }
    }

    /// Bits Allocated (0028,0100).
    pub(crate) const fn bits_allocated(&self) -> u16 {
        match self.kind {
            SegmentationType::Binary => 1,
            SegmentationType::Fractional | SegmentationType::LabelMap => 8 * self.bytes as u16,
        }
    }

    /// Bytes of Pixel Data that is not encapsulated, padding included.
    fn native_length(&self, frames: usize) -> Result<u32, BitError> {
        let pixels = self.rows * self.columns;
        let length = match self.kind {
            SegmentationType::Binary => bits::packed_length(frames, pixels)?,
            SegmentationType::Fractional | SegmentationType::LabelMap => {
                // As many bits as so many frames of bytes have.
                bits::packed_length(frames, pixels * self.bytes * 8)?
            }
        };
        u32::try_from(length).map_err(|_| BitError::TooLarge { frames, pixels })
    }

    /// A frame of whole bytes: rows × columns pixels.
    fn paint(&self, frame: &Frame<'_>, pixels: &mut Vec<u8>) {
        pixels.clear();
        pixels.resize(self.rows * self.columns * self.bytes, 0);
        match (self.kind, frame.segment) {
            (SegmentationType::Binary, Some(segment)) => frame.mask.paint_segment(segment, self.columns, pixels),
            (SegmentationType::Fractional, Some(segment)) => frame.mask.paint_values(segment, self.columns, pixels),
            _ => frame.mask.paint_labels(self.columns, self.bytes, pixels),
        }
    }
}

/// Writes preamble, meta group, data set and frames.
pub(crate) fn write_part10(
    object: InMemDicomObject,
    frames: &[Frame<'_>],
    layout: PixelLayout,
    encoding: Encoding,
    mut out: impl Write,
) -> Result<(), ResultError> {
    let encode_error = |e: &dyn std::error::Error| ResultError::Encode(e.to_string());
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(encoding.transfer_syntax())
        .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
        .implementation_version_name(IMPLEMENTATION_VERSION_NAME);
    let file = object.with_meta(meta).map_err(|e| encode_error(&e))?;
    out.write_all(&[0; 128])?;
    out.write_all(b"DICM")?;
    file.meta().write(&mut out).map_err(|e| encode_error(&e))?;
    let object = file.into_inner();
    match encoding {
        Encoding::ExplicitLittleEndian => {
            write_data_set(&object, &mut out)?;
            write_native(frames, layout, &mut out)?;
        }
        Encoding::Deflated => {
            let mut counted = Counted { out: &mut out, bytes: 0 };
            let mut deflated = DeflateEncoder::new(&mut counted, Compression::default());
            write_data_set(&object, &mut deflated)?;
            write_native(frames, layout, &mut deflated)?;
            deflated.finish()?;
            // The deflated stream has even length (PS3.5 A.5).
            let is_odd = counted.bytes % 2 == 1;
            out.write_all(if is_odd { &[0] } else { &[] })?;
        }
        Encoding::RleLossless => {
            write_data_set(&object, &mut out)?;
            write_rle(frames, layout, &mut out)?;
        }
    }
    Ok(out.flush()?)
}

/// Counts what passes through.
struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

fn write_data_set(object: &InMemDicomObject, out: &mut impl Write) -> Result<(), ResultError> {
    let encode_error = |e: &dyn std::error::Error| ResultError::Encode(e.to_string());
    let syntax = TransferSyntaxRegistry
        .get(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .ok_or_else(|| ResultError::Encode("no writer of Explicit VR Little Endian".to_owned()))?;
    // The writer makes many small writes.
    let mut buffered = std::io::BufWriter::new(out);
    object.write_dataset_with_ts(&mut buffered, syntax).map_err(|e| encode_error(&e))?;
    Ok(buffered.flush()?)
}

/// Tag, VR and length of Pixel Data, which is the last element.
fn write_head(vr: [u8; 2], length: u32, out: &mut impl Write) -> std::io::Result<()> {
    let Tag(group, element) = tags::PIXEL_DATA;
    out.write_all(&group.to_le_bytes())?;
    out.write_all(&element.to_le_bytes())?;
    out.write_all(&vr)?;
    out.write_all(&[0, 0])?;
    out.write_all(&length.to_le_bytes())
}

fn write_native(frames: &[Frame<'_>], layout: PixelLayout, out: &mut impl Write) -> Result<(), ResultError> {
    let length = layout.native_length(frames.len())?;
    // 16-bit pixels are words (PS3.5 8.1.2, A.2).
    write_head(if layout.bytes == 2 { *b"OW" } else { *b"OB" }, length, out)?;
    let (mut pixels, mut packed, mut packer) = (Vec::new(), Vec::new(), BitPacker::default());
    let mut written = 0u64;
    for frame in frames {
        layout.paint(frame, &mut pixels);
        let bytes = if layout.kind == SegmentationType::Binary {
            packed.clear();
            packer.push(&pixels, &mut packed);
            &packed
        } else {
            &pixels
        };
        out.write_all(bytes)?;
        written += bytes.len() as u64;
    }
    packed.clear();
    packer.finish(&mut packed);
    out.write_all(&packed)?;
    written += packed.len() as u64;
    out.write_all(if written < u64::from(length) { &[0] } else { &[] })?;
    Ok(())
}

/// One fragment a frame behind a filled Basic Offset Table (PS3.5 A.4). The offsets come first, so the compressed frames
/// are held; they are small, as masks are runs already.
fn write_rle(frames: &[Frame<'_>], layout: PixelLayout, out: &mut impl Write) -> Result<(), ResultError> {
    let mut pixels = Vec::new();
    let mut fragments = Vec::with_capacity(frames.len());
    let (mut offsets, mut next) = (Vec::with_capacity(frames.len() * 4), 0u32);
    for frame in frames {
        layout.paint(frame, &mut pixels);
        let fragment = rle::encode(&pixels, layout.columns, layout.bytes);
        offsets.extend(next.to_le_bytes());
        let too_large = BitError::TooLarge { frames: frames.len(), pixels: layout.rows * layout.columns };
        next = u32::try_from(fragment.len() + 8).ok().and_then(|length| next.checked_add(length)).ok_or(too_large)?;
        fragments.push(fragment);
    }
    write_head(*b"OB", UNDEFINED_LENGTH, out)?;
    write_item(&offsets, out)?;
    for fragment in &fragments {
        write_item(fragment, out)?;
    }
    out.write_all(&[0xfe, 0xff, 0xdd, 0xe0, 0, 0, 0, 0])?;
    Ok(())
}

fn write_item(value: &[u8], out: &mut impl Write) -> std::io::Result<()> {
    out.write_all(&[0xfe, 0xff, 0x00, 0xe0])?;
    out.write_all(&(value.len() as u32).to_le_bytes())?;
    out.write_all(value)
}
