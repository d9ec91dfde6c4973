//! The forms that one result may take: which kind of Segmentation, in which encoding.

use dicom_dictionary_std::uids;
use thiserror::Error;

/// Segmentation Type (0062,0001).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentationType {
    /// One bit a pixel, one frame a segment and slice (Segmentation Storage).
    #[default]
    Binary,
    /// One byte a pixel, the probability, one frame a segment and slice (Segmentation Storage).
    Fractional,
    /// The segment's number in each pixel, one frame a slice (Label Map Segmentation Storage).
    LabelMap,
}

/// How the data set and its frames are encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encoding {
    /// Explicit VR Little Endian (PS3.5 A.2).
    #[default]
    ExplicitLittleEndian,
    /// Deflated Explicit VR Little Endian (PS3.5 A.5).
    Deflated,
    /// RLE Lossless (PS3.5 A.4.2, Annex G).
    RleLossless,
}

/// A form that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FormError {
    /// RLE takes frames apart into bytes; bits came to it with CP-2301 only, and most readers cannot take them.
    #[error("RLE Lossless is for frames of whole bytes: a binary segmentation has one bit a pixel, take deflated")]
    RleOfBits,
}

/// The form of a Segmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentationForm {
    kind: SegmentationType,
    encoding: Encoding,
    empty_frames: bool,
}

impl SegmentationForm {
    /// A form; with `empty_frames` every analysed slice has its frames, those without mask too.
    ///
    /// # Errors
    /// [`FormError`] for an encoding that does not go with the type.
    pub const fn new(kind: SegmentationType, encoding: Encoding, empty_frames: bool) -> Result<Self, FormError> {
        match (kind, encoding) {
            (SegmentationType::Binary, Encoding::RleLossless) => Err(FormError::RleOfBits),
            _ => Ok(Self { kind, encoding, empty_frames }),
        }
    }

    /// Segmentation Type.
    #[must_use]
    pub const fn kind(&self) -> SegmentationType {
        self.kind
    }

    /// Encoding.
    #[must_use]
    pub const fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Whether slices without mask have frames too.
    #[must_use]
    pub const fn empty_frames(&self) -> bool {
        self.empty_frames
    }

    /// The form in words, for logs and UIDs: the same words are the same form.
    #[must_use]
    pub fn words(&self) -> String {
        let encoding = match self.encoding {
            Encoding::ExplicitLittleEndian => "explicit",
            Encoding::Deflated => "deflated",
            Encoding::RleLossless => "rle",
        };
        let empty = if self.empty_frames { " with empty frames" } else { "" };
        format!("{} {encoding}{empty}", self.kind.defined_term().to_ascii_lowercase())
    }
}

impl SegmentationType {
    /// The Defined Term of Segmentation Type (0062,0001).
    #[must_use]
    pub const fn defined_term(self) -> &'static str {
        match self {
            Self::Binary => "BINARY",
            Self::Fractional => "FRACTIONAL",
            Self::LabelMap => "LABELMAP",
        }
    }

    /// SOP Class UID of the object.
    #[must_use]
    pub const fn sop_class(self) -> &'static str {
        match self {
            Self::Binary | Self::Fractional => uids::SEGMENTATION_STORAGE,
            Self::LabelMap => uids::LABEL_MAP_SEGMENTATION_STORAGE,
        }
    }
}

impl Encoding {
    /// Transfer Syntax UID.
    #[must_use]
    pub const fn transfer_syntax(self) -> &'static str {
        match self {
            Self::ExplicitLittleEndian => uids::EXPLICIT_VR_LITTLE_ENDIAN,
            Self::Deflated => uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
            Self::RleLossless => uids::RLE_LOSSLESS,
        }
    }
}
