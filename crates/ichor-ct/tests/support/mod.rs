//! Small CT files, written attribute by attribute so that each test can break one.

#![expect(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

use std::path::{Path, PathBuf};

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

/// One CT image in the making.
pub struct CtFile {
    pub object: InMemDicomObject,
}

impl CtFile {
    /// An axial soft-tissue slice of a head at height `z`, `side × side` pixels of `value`, slope 1, intercept −1024.
    pub fn new(series: &str, number: usize, z: f64, side: u16, value: i16) -> Self {
        let mut object = InMemDicomObject::new_empty();
        let mut text = |tag, vr, value: &str| object.put(DataElement::new(tag, vr, value));
        text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE);
        text(tags::SOP_INSTANCE_UID, VR::UI, &format!("{series}.{number}"));
        text(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3");
        text(tags::SERIES_INSTANCE_UID, VR::UI, series);
        text(tags::MODALITY, VR::CS, "CT");
        text(tags::BODY_PART_EXAMINED, VR::CS, "HEAD");
        text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL");
        text(tags::INSTANCE_NUMBER, VR::IS, &number.to_string());
        text(tags::SLICE_THICKNESS, VR::DS, "5");
        text(tags::IMAGE_POSITION_PATIENT, VR::DS, &format!("-100\\-100\\{z}"));
        text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0");
        text(tags::PIXEL_SPACING, VR::DS, "0.5\\0.5");
        text(tags::RESCALE_SLOPE, VR::DS, "1");
        text(tags::RESCALE_INTERCEPT, VR::DS, "-1024");
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
        for (tag, value) in [
            (tags::SAMPLES_PER_PIXEL, 1),
            (tags::ROWS, side),
            (tags::COLUMNS, side),
            (tags::BITS_ALLOCATED, 16),
            (tags::BITS_STORED, 16),
            (tags::HIGH_BIT, 15),
            (tags::PIXEL_REPRESENTATION, 1),
        ] {
            object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
        }
        let mut file = Self { object };
        file.pixels(&vec![value; usize::from(side) * usize::from(side)]);
        file
    }

    /// Sets a text attribute.
    pub fn with(mut self, tag: Tag, vr: VR, value: &str) -> Self {
        self.object.put(DataElement::new(tag, vr, value));
        self
    }

    /// Sets an unsigned short.
    pub fn with_u16(mut self, tag: Tag, value: u16) -> Self {
        self.object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
        self
    }

    /// Declares its text as UTF-8.
    pub fn utf8(self) -> Self {
        self.with(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192")
    }

    /// Gives it a Modality LUT Sequence of one item.
    pub fn with_modality_lut(mut self) -> Self {
        let item = InMemDicomObject::from_element_iter([
            DataElement::new(tags::LUT_DESCRIPTOR, VR::US, PrimitiveValue::U16([2, 0, 16].as_slice().into())),
            DataElement::new(tags::MODALITY_LUT_TYPE, VR::LO, "HU"),
            DataElement::new(tags::LUT_DATA, VR::OW, PrimitiveValue::U16([0, 1].as_slice().into())),
        ]);
        self.object.put(DataElement::new(tags::MODALITY_LUT_SEQUENCE, VR::SQ, DataSetSequence::from(vec![item])));
        self
    }

    /// Removes an attribute.
    pub fn without(mut self, tag: Tag) -> Self {
        self.object.remove_element(tag);
        self
    }

    /// Sets the pixel data.
    pub fn pixels(&mut self, stored: &[i16]) {
        let words: Vec<u16> = stored.iter().map(|value| *value as u16).collect();
        self.object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(words.into())));
    }

    /// Writes a Part 10 file in the given transfer syntax.
    pub fn write(self, folder: &Path, name: &str, transfer_syntax: &str) -> PathBuf {
        let class = self.object.element(tags::SOP_CLASS_UID).unwrap().to_str().unwrap().into_owned();
        let instance = self.object.element(tags::SOP_INSTANCE_UID).unwrap().to_str().unwrap().into_owned();
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(transfer_syntax)
            .media_storage_sop_class_uid(class)
            .media_storage_sop_instance_uid(instance);
        let path = folder.join(name);
        self.object.with_meta(meta).unwrap().write_to_file(&path).unwrap();
        path
    }

    /// Writes in Explicit VR Little Endian.
    pub fn save(self, folder: &Path, name: &str) -> PathBuf {
        self.write(folder, name, uids::EXPLICIT_VR_LITTLE_ENDIAN)
    }
}

/// Writes a slice in a brain window with the outlines of a mask (red) and of the truth (green) as a PPM picture into the
/// folder that ICHOR_WRITE_MASKS names; nothing without it. For people who look at masks.
pub fn write_picture(name: &str, hu: &[i16], mask: &[u8], truth: Option<&[u8]>, columns: usize) {
    let Some(folder) = std::env::var_os("ICHOR_WRITE_MASKS") else { return };
    let is_edge = |mask: &[u8], at: usize| {
        let inside = |next: Option<usize>| next.and_then(|next| mask.get(next)).is_some_and(|m| *m != 0);
        let around = [at.checked_sub(1), Some(at + 1), at.checked_sub(columns), Some(at + columns)];
        mask[at] != 0 && !around.into_iter().all(inside)
    };
    let mut picture = format!("P6\n{columns} {}\n255\n", hu.len() / columns).into_bytes();
    for (at, value) in hu.iter().enumerate() {
        let grey = ((f32::from(*value) + 20.0) / 120.0).clamp(0.0, 1.0) * 255.0;
        picture.extend(match (is_edge(mask, at), truth.is_some_and(|truth| is_edge(truth, at))) {
            (true, true) => [255, 255, 0],
            (true, false) => [255, 0, 0],
            (false, true) => [0, 200, 0],
            (false, false) => [grey as u8; 3],
        });
    }
    std::fs::write(PathBuf::from(folder).join(format!("{}.ppm", name.replace(' ', "_"))), picture).unwrap();
}
