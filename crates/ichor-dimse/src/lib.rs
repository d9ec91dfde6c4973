//! DICOM message exchange: Storage and Verification, as provider and as user.
