//! Data that somebody brings: RSNA 2019, PhysioNet CT-ICH, a folder of DICOM studies with labels.
//!
//! Each source is read into a [`Catalogue`], which says what there is and what it shows before a pixel is decoded; a
//! [`split`] by patient is made of that and written down; then the slices are prepared once and kept on disk.

pub mod catalogue;
pub mod decode;
pub mod disk;
pub mod folder;
pub mod headers;
pub mod labels_csv;
pub mod nifti;
pub mod physionet;
pub mod recipe;
pub mod rsna;
pub mod source;
pub mod split;

pub use catalogue::{Catalogue, DataReport, Place, Scan, ScanSlice};
pub use disk::DiskSlices;
pub use recipe::{DataForm, DataRecipe, Part, SplitRecipe};
pub use source::{DataError, Opened, open};

#[cfg(test)]
pub(crate) use physionet::tests::published as published_physionet;
