//! Small CT files, written attribute by attribute so that each test can break one.

#![expect(unreachable_pub, reason = "shared by several test binaries")]
#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(clippy::unwrap_used, reason = "a test ends by panicking, also in its helpers")]

use std::path::{Path, PathBuf};

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
