//! Why an instance cannot be used.

use ichor_core::{InvalidPlane, Reason};
use thiserror::Error;

/// What is wrong with one instance. The text names the attribute; the caller knows the object.
#[derive(Debug, Error)]
pub enum CtError {
    /// The file cannot be parsed.
    #[error("cannot be parsed: {0}")]
    Parse(String),
    /// An attribute that is needed is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// An attribute holds what it may not.
    #[error("{name} {problem}")]
    Attribute {
        /// The attribute's name.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Position, orientation and spacing do not make a plane.
    #[error(transparent)]
    Plane(#[from] InvalidPlane),
    /// A Modality LUT Sequence: its values are not Hounsfield units by slope and intercept (PS3.3 C.11.1).
    #[error("has a Modality LUT Sequence, which is not supported")]
    ModalityLut,
    /// A Rescale Type of other than Hounsfield units, as dual-energy maps have (PS3.3 C.11.1.1.2).
    #[error("Rescale Type is {0:?}, the values are not Hounsfield units")]
    RescaleType(String),
    /// Compressed or native pixel data that cannot be decoded.
    #[error("pixel data cannot be decoded: {0}")]
    Decode(String),
    /// A coding that no decoder here reads.
    #[error("pixel data cannot be decoded: {0} is not supported")]
    Unsupported(&'static str),
    /// A codestream that disagrees with the header, found before it is decoded.
    #[error("compressed pixel data do not match the header: {0}")]
    Codestream(String),
    /// Fewer bytes than rows × columns × bytes a pixel.
    #[error("pixel data has {found} bytes, {rows} rows × {columns} columns need {wanted}")]
    ShortPixelData {
        /// Bytes that are there.
        found: usize,
        /// Bytes that are needed.
        wanted: usize,
        /// Rows.
        rows: u32,
        /// Columns.
        columns: u32,
    },
}

impl CtError {
    /// The reason that is recorded for the instance.
    #[must_use]
    pub fn reason(&self) -> Reason {
        let code = match self {
            Self::Parse(_) => "unreadable",
            Self::Missing(_) => "attribute-missing",
            Self::Attribute { .. } => "attribute-invalid",
            Self::Plane(InvalidPlane::Orientation { .. }) => "orientation-singular",
            Self::Plane(InvalidPlane::Spacing(_)) => "spacing-not-positive",
            Self::Plane(_) => "geometry-invalid",
            Self::ModalityLut => "modality-lut",
            Self::RescaleType(_) => "not-hounsfield",
            Self::Decode(_) => "pixel-data-undecodable",
            Self::Unsupported(_) => "codec-unsupported",
            Self::Codestream(_) => "pixel-data-mismatch",
            Self::ShortPixelData { .. } => "pixel-data-short",
        };
        Reason::new(code, self.to_string())
    }
}
