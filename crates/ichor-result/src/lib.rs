//! Result objects: the DICOM Segmentation (PS3.3 A.51) that goes back to the PACS, in every form a destination asks for.
//!
//! One frame a lesion and source slice that carries it (one a slice in a label map), in that slice's own plane, so gantry
//! tilt and uneven spacing are right by construction. [`SourceHeader::read`] takes patient and study from one source
//! instance, [`write_segmentation`] writes the object frame by frame and [`check`](check()) looks it over, from its bytes,
//! before it leaves.
//!
//! Architecture Invariant: no clock, no randomness and no network. Every UID is derived from the source instances, the
//! model, the configuration, the kind, the form and the version; the same input gives the same bytes.

mod attributes;
pub mod bits;
mod capture;
mod charset;
mod check;
mod codes;
mod element;
mod encode;
mod error;
mod form;
mod frames;
mod mask;
mod meta;
mod own;
mod part10;
mod presentation;
mod provenance;
mod read;
mod report;
mod rle;
mod segment;
mod segmentation;
mod source;
mod walk;

pub use capture::{Capture, CaptureInput, CaptureLook, check_capture, write_capture};
pub use charset::{DecodedText, decode_text};
pub use check::{CheckFailed, check};
pub use error::ResultError;
pub use form::{Encoding, FormError, SegmentationForm, SegmentationType};
pub use mask::{MaskRun, SliceMask};
pub use own::{MANUFACTURER, MODEL_NAME, ObjectMarks, is_own, is_own_object};
pub use presentation::{Presentation, PresentationInput, check_presentation, write_presentation};
pub use provenance::Provenance;
pub use read::{ReadError, ReadFrame, ReadSegmentation, read_segmentation};
pub use report::{
    Conclusion, KeyObjectInput, LesionFacts, Report, ReportInput, SegmentationReference, SeriesFacts,
    check_key_objects, check_report, write_key_objects, write_report,
};
pub use segment::SegmentReference;
pub use segmentation::{Segmentation, SegmentationInput, SourceSlice, write_segmentation};
pub use source::{SourceError, SourceHeader};
