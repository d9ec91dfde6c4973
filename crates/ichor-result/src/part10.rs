//! Small objects, whole: elements become a Part 10 file (PS3.10) in Explicit VR Little Endian. Segmentations, which can be
//! large, are written frame by frame (`encode`).

use std::io::Write;

use dicom_dictionary_std::uids;
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ichor_core::{IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME};

use crate::element::Element;
use crate::error::ResultError;

/// Writes the file; of elements with the same tag the last counts.
pub(crate) fn write_part10(elements: impl Iterator<Item = Element>, mut out: impl Write) -> Result<(), ResultError> {
    let mut object = InMemDicomObject::new_empty();
    for element in elements {
        object.put(element);
    }
    let encode_error = |e: &dyn std::error::Error| ResultError::Encode(e.to_string());
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .implementation_class_uid(IMPLEMENTATION_CLASS_UID)
        .implementation_version_name(IMPLEMENTATION_VERSION_NAME);
    let mut bytes = Vec::new();
    object.with_meta(meta).map_err(|e| encode_error(&e))?.write_all(&mut bytes).map_err(|e| encode_error(&e))?;
    out.write_all(&bytes)?;
    Ok(out.flush()?)
}
