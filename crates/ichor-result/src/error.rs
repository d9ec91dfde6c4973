//! Why no object came out.

use ichor_core::{InvalidPlane, Uid};
use thiserror::Error;

use crate::bits::BitError;

/// Why [`write_segmentation`](crate::write_segmentation) or [`write_report`](crate::write_report) refused.
#[derive(Debug, Error)]
pub enum ResultError {
    /// Every mask is absent or empty; a SEG without frames does not exist (PS3.3 C.7.6.6), the study is a negative.
    #[error("no slice carries mask, nothing to segment")]
    NothingToSegment,
    /// No source slices at all.
    #[error("no source slices")]
    NoSlices,
    /// Masks do not pair with slices.
    #[error("{masks} masks for {slices} slices")]
    MaskCount {
        /// Masks given.
        masks: usize,
        /// Slices given.
        slices: usize,
    },
    /// A mask that cannot be.
    #[error("mask of instance {instance}: {fault}")]
    Mask {
        /// The source instance.
        instance: Uid,
        /// What is wrong.
        fault: String,
    },
    /// A FRACTIONAL object of masks without values.
    #[error("mask of instance {instance} has no values, which a fractional segmentation needs")]
    NoValues {
        /// The source instance.
        instance: Uid,
    },
    /// A lesion without a pixel.
    #[error("lesion {number} has no pixel in any slice")]
    EmptyLesion {
        /// Its number.
        number: usize,
    },
    /// Frames of one object share rows and columns.
    #[error("instance {instance} has {rows} rows x {columns} columns, unlike the slices before it")]
    MixedSize {
        /// The source instance.
        instance: Uid,
        /// Its rows.
        rows: u32,
        /// Its columns.
        columns: u32,
    },
    /// Rows and columns are 16-bit in DICOM.
    #[error("{rows} rows x {columns} columns do not fit into a DICOM image")]
    ImageSize {
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
    },
    /// A plane that cannot be.
    #[error("plane of instance {instance} is invalid: {source}")]
    Plane {
        /// The source instance.
        instance: Uid,
        /// What is wrong.
        source: InvalidPlane,
    },
    /// Two slices with mask lie at the same place: a viewer could show only one of them.
    #[error("instances {first} and {second} carry mask at the same position")]
    DuplicatePosition {
        /// One of them.
        first: Uid,
        /// The other.
        second: Uid,
    },
    /// A measurement that no report may hold.
    #[error("a measurement that cannot be: {0}")]
    Measurement(String),
    /// The accepted-at time cannot be written as DICOM date and time.
    #[error("acceptance time {0} is outside the years 1 to 9999")]
    Time(String),
    /// The frames are more than a DICOM value holds.
    #[error("frames cannot be packed: {0}")]
    Bits(#[from] BitError),
    /// The object cannot be written to where it is to go.
    #[error("the object cannot be written: {0}")]
    Write(#[from] std::io::Error),
    /// The writer refused the data set.
    #[error("the object cannot be encoded: {0}")]
    Encode(String),
}
