//! A CT slice around bytes from the fuzzer, read as a child of the decoder reads it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use dicom_core::value::PixelFragmentSequence;
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ichor_ct::volume::read_slice_from;

/// Rows and Columns, those of the seeds.
const SIDE: u16 = 64;

/// Decodes a fragment: the first byte says whether 8 or 16 bits are allocated.
///
/// A panic of a codec is no finding: the child that it ends is there for that. What aborts, faults, hangs or allocates
/// without end is one, although the child contains it, too.
pub fn decode_fragment(transfer_syntax: &str, bytes: &[u8]) {
    let Some((depth, fragment)) = bytes.split_first() else { return };
    let mut object = header(if depth & 1 == 0 { 16 } else { 8 });
    let pixels = PixelFragmentSequence::new_fragments(vec![fragment.to_vec()]);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, pixels));
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(transfer_syntax)
        .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
        .media_storage_sop_instance_uid("2.25.1");
    let Ok(file) = object.with_meta(meta) else { return };
    let mut written = Vec::new();
    if file.write_all(&mut written).is_ok() {
        read(&written);
    }
}

fn read(file: &[u8]) {
    static QUIET: Once = Once::new();
    // libFuzzer's own hook aborts at a panic.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    if let Ok(Ok(slice)) = catch_unwind(AssertUnwindSafe(|| read_slice_from(file))) {
        assert_eq!(slice.hu.len(), slice.plane.rows as usize * slice.plane.columns as usize);
    }
}

fn header(allocated: u16) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    for (tag, vr, value) in [
        (tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        (tags::SOP_INSTANCE_UID, VR::UI, "2.25.1"),
        (tags::IMAGE_POSITION_PATIENT, VR::DS, "-100\\-100\\0"),
        (tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0"),
        (tags::PIXEL_SPACING, VR::DS, "0.5\\0.5"),
        (tags::RESCALE_SLOPE, VR::DS, "1"),
        (tags::RESCALE_INTERCEPT, VR::DS, "-1024"),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
    ] {
        object.put(DataElement::new(tag, vr, value));
    }
    for (tag, value) in [
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::ROWS, SIDE),
        (tags::COLUMNS, SIDE),
        (tags::BITS_ALLOCATED, allocated),
        (tags::BITS_STORED, allocated),
        (tags::HIGH_BIT, allocated - 1),
        (tags::PIXEL_REPRESENTATION, 0),
    ] {
        object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(value)));
    }
    object
}
