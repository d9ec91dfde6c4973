//! Synthetic head CT with known bleeds, written as DICOM.
