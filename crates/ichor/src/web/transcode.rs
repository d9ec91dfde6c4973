//! Whole files in Explicit VR Little Endian.

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use dicom_object::{FileMetaTableBuilder, open_file};
use ichor_dicomweb::server::{ArchiveFault, Held};

use super::frames::{EXPLICIT_LITTLE_ENDIAN, Frames, fault};
use super::json;

/// A file in Explicit VR Little Endian, its pixels decoded if they were not.
pub(super) fn transcoded(frames: &Frames, held: &Held) -> Result<Vec<u8>, ArchiveFault> {
    let broken = |error: &dyn std::fmt::Display| {
        ArchiveFault::Broken(format!("instance {} cannot be transcoded: {error}", held.instance))
    };
    let length = std::fs::metadata(&held.place).map_err(|error| broken(&error))?.len();
    if length > frames.most_bytes {
        return Err(frames.too_large(held));
    }
    frames.check_inflation(held)?;
    let has_pixels =
        json::header(&held.place, held.instance.as_str())?.element_opt(tags::ROWS).ok().flatten().is_some();
    let pixels = if has_pixels { Some(frames.open(held)?) } else { None };
    let object = match &pixels {
        Some(pixels) if !pixels.is_native() => {
            let described = pixels.description();
            if described.frame_bytes().saturating_mul(u64::from(described.frames)) > frames.most_bytes {
                return Err(frames.too_large(held));
            }
            let mut bytes = Vec::new();
            for frame in 1..=described.frames {
                bytes.append(&mut frames.native(held, pixels, frame)?);
            }
            let is_wide = described.allocated > 8;
            if bytes.len() % 2 == 1 {
                bytes.push(0);
            }
            let mut object = pixels.header().clone();
            for tag in [tags::EXTENDED_OFFSET_TABLE, tags::EXTENDED_OFFSET_TABLE_LENGTHS] {
                object.remove_element(tag);
            }
            let value = if is_wide {
                let cells = bytes.chunks_exact(2).map(|cell| u16::from_le_bytes([cell[0], cell[1]]));
                PrimitiveValue::U16(cells.collect())
            } else {
                PrimitiveValue::from(bytes)
            };
            object.put(DataElement::new(tags::PIXEL_DATA, if is_wide { VR::OW } else { VR::OB }, value));
            object
        }
        _ => open_file(&held.place).map_err(|error| broken(&error))?,
    };
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(EXPLICIT_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(held.sop_class.as_str())
        .media_storage_sop_instance_uid(held.instance.as_str());
    let mut bytes = Vec::new();
    let file = object.into_inner().with_meta(meta).map_err(|error| broken(&error))?;
    file.write_all(&mut bytes).map_err(|error| broken(&error))?;
    Ok(bytes)
}

/// The pixel data of a file as one value, uncompressed.
pub(super) fn pixel_data(frames: &Frames, held: &Held) -> Result<Vec<u8>, ArchiveFault> {
    let pixels = frames.open(held)?;
    let described = pixels.description();
    if described.frame_bytes().saturating_mul(u64::from(described.frames)) > frames.most_bytes {
        return Err(frames.too_large(held));
    }
    if described.allocated == 1 && described.frame_bits() % 8 != 0 {
        // Frames of single bits follow each other without a gap.
        let object = open_file(&held.place).map_err(|error| ArchiveFault::Broken(error.to_string()))?;
        return json::bulk(&object, &[], "7FE00010");
    }
    let mut bytes = Vec::new();
    for frame in 1..=described.frames {
        let mut one = match pixels.is_native() {
            true => pixels.raw(frame).map_err(|error| fault(held, &error))?,
            false => frames.native(held, &pixels, frame)?,
        };
        bytes.append(&mut one);
    }
    Ok(bytes)
}
