//! Result objects: the DICOM Segmentation (PS3.3 A.51) that goes back to the PACS.
//!
//! One frame a source slice that carries mask, in that slice's own plane, so gantry tilt and uneven spacing are right
//! by construction. [`SourceHeader::read`] takes patient and study from one source instance, [`build_segmentation`]
//! makes the object and [`check`] looks it over, from its bytes, before it leaves.
//!
//! Architecture Invariant: no clock, no randomness and no network. Every UID is derived from the source instances, the
//! model, the configuration, the kind and the version; the same input gives the same bytes.

mod attributes;
pub mod bits;
mod charset;
mod check;
mod codes;
mod element;
mod error;
mod frames;
mod meta;
mod own;
mod read;
mod segment;
mod segmentation;
mod source;

pub use charset::{DecodedText, decode_text};
pub use check::{CheckFailed, check};
pub use error::ResultError;
pub use own::{MANUFACTURER, MODEL_NAME, ObjectMarks, is_own, is_own_object};
pub use read::{ReadError, ReadFrame, ReadSegmentation, read_segmentation};
pub use segmentation::{Segmentation, SegmentationInput, SourceSlice, build_segmentation};
pub use source::{SourceError, SourceHeader};
