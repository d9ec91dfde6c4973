//! Result objects: DICOM Segmentation.
