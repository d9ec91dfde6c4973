//! Why no segmentation came out.

use ichor_core::{InvalidPlane, Uid};
use thiserror::Error;

use crate::bits::BitError;
use crate::check::CheckFailed;

/// Why [`build_segmentation`](crate::build_segmentation) refused.
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
    /// A mask does not have rows × columns pixels.
    #[error("mask of instance {instance} has {pixels} pixels, {rows} rows x {columns} columns expected")]
    MaskSize {
        /// The source instance.
        instance: Uid,
        /// Pixels of the mask.
        pixels: usize,
        /// Rows of the slice.
        rows: u32,
        /// Columns of the slice.
        columns: u32,
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
    /// The accepted-at time cannot be written as DICOM date and time.
    #[error("acceptance time {0} is outside the years 1 to 9999")]
    Time(String),
    /// The frames cannot be packed.
    #[error("frames cannot be packed: {0}")]
    Bits(#[from] BitError),
    /// The writer refused the data set.
    #[error("segmentation cannot be encoded: {0}")]
    Encode(String),
    /// The finished object does not pass its own check and must not leave.
    #[error(transparent)]
    Check(#[from] CheckFailed),
}
