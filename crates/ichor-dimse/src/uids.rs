//! Registered identifiers (PS3.6 Annex A) that this crate negotiates.

use ichor_core::Uid;

/// DICOM Application Context Name (PS3.7 Annex A).
pub const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
/// Verification SOP Class (PS3.4 Annex A).
pub const VERIFICATION: &str = "1.2.840.10008.1.1";

/// Storage Commitment Push Model SOP Class (PS3.4 J.3.5).
pub const STORAGE_COMMITMENT: &str = "1.2.840.10008.1.20.1";
/// Storage Commitment Push Model SOP Instance, the well-known one (PS3.4 J.3.5).
pub const STORAGE_COMMITMENT_INSTANCE: &str = "1.2.840.10008.1.20.1.1";

/// Study Root Query/Retrieve Information Model - FIND (PS3.4 C.6.2.3.1).
pub const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
/// Study Root Query/Retrieve Information Model - MOVE (PS3.4 C.6.2.3.1).
pub const STUDY_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
/// Modality Worklist Information Model - FIND (PS3.4 K.6.1.4).
pub const MODALITY_WORKLIST_FIND: &str = "1.2.840.10008.5.1.4.31";

/// Implicit VR Little Endian: the default transfer syntax.
pub const IMPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2";
/// Explicit VR Little Endian.
pub const EXPLICIT_VR_LITTLE_ENDIAN: &str = "1.2.840.10008.1.2.1";

/// CT Image Storage.
pub const CT_IMAGE_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.2";
/// Segmentation Storage.
pub const SEGMENTATION_STORAGE: &str = "1.2.840.10008.5.1.4.1.1.66.4";

/// Storage SOP classes that are accepted unless configured otherwise: head CT, and what rides along with it.
pub const STORAGE_SOP_CLASSES: &[&str] = &[
    CT_IMAGE_STORAGE,
    "1.2.840.10008.5.1.4.1.1.2.1", // Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2", // Legacy Converted Enhanced CT Image Storage
    // Screens and reformats.
    "1.2.840.10008.5.1.4.1.1.7",   // Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.1", // Multi-frame Single Bit Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.2", // Multi-frame Grayscale Byte Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.3", // Multi-frame Grayscale Word Secondary Capture Image Storage
    "1.2.840.10008.5.1.4.1.1.7.4", // Multi-frame True Color Secondary Capture Image Storage
    // Reports and dose.
    "1.2.840.10008.5.1.4.1.1.88.11", // Basic Text SR Storage
    "1.2.840.10008.5.1.4.1.1.88.22", // Enhanced SR Storage
    "1.2.840.10008.5.1.4.1.1.88.33", // Comprehensive SR Storage
    "1.2.840.10008.5.1.4.1.1.88.34", // Comprehensive 3D SR Storage
    "1.2.840.10008.5.1.4.1.1.88.35", // Extensible SR Storage
    "1.2.840.10008.5.1.4.1.1.88.40", // Procedure Log Storage
    "1.2.840.10008.5.1.4.1.1.88.59", // Key Object Selection Document Storage
    "1.2.840.10008.5.1.4.1.1.88.67", // X-Ray Radiation Dose SR Storage
    "1.2.840.10008.5.1.4.1.1.88.71", // Acquisition Context SR Storage
    "1.2.840.10008.5.1.4.1.1.88.73", // Patient Radiation Dose SR Storage
    "1.2.840.10008.5.1.4.1.1.88.76", // Enhanced X-Ray Radiation Dose SR Storage
    "1.2.840.10008.5.1.4.1.1.104.1", // Encapsulated PDF Storage
    "1.2.840.10008.5.1.4.1.1.104.2", // Encapsulated CDA Storage
    // How to show it.
    "1.2.840.10008.5.1.4.1.1.11.1", // Grayscale Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.2", // Color Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.3", // Pseudo-Color Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.4", // Blending Softcopy Presentation State Storage
    "1.2.840.10008.5.1.4.1.1.11.8", // Advanced Blending Presentation State Storage
    // What scanners and workstations derive.
    SEGMENTATION_STORAGE,
    "1.2.840.10008.5.1.4.1.1.66.7",  // Label Map Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.66.5",  // Surface Segmentation Storage
    "1.2.840.10008.5.1.4.1.1.30",    // Parametric Map Storage
    "1.2.840.10008.5.1.4.1.1.66",    // Raw Data Storage
    "1.2.840.10008.5.1.4.1.1.66.1",  // Spatial Registration Storage
    "1.2.840.10008.5.1.4.1.1.66.2",  // Spatial Fiducials Storage
    "1.2.840.10008.5.1.4.1.1.67",    // Real World Value Mapping Storage
    "1.2.840.10008.5.1.4.1.1.200.2", // CT Performed Procedure Protocol Storage
];

/// Transfer syntaxes that are accepted unless configured otherwise: received bytes are kept as they come, so this is
/// what the decoders behind can read.
pub const TRANSFER_SYNTAXES: &[&str] = &[
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.1.99",  // Deflated Explicit VR Little Endian
    "1.2.840.10008.1.2.2",     // Explicit VR Big Endian (retired)
    "1.2.840.10008.1.2.4.50",  // JPEG Baseline (Process 1)
    "1.2.840.10008.1.2.4.51",  // JPEG Extended (Process 2 & 4)
    "1.2.840.10008.1.2.4.57",  // JPEG Lossless, Non-Hierarchical (Process 14)
    "1.2.840.10008.1.2.4.70",  // JPEG Lossless, Non-Hierarchical, First-Order Prediction
    "1.2.840.10008.1.2.4.80",  // JPEG-LS Lossless
    "1.2.840.10008.1.2.4.81",  // JPEG-LS Lossy (Near-Lossless)
    "1.2.840.10008.1.2.4.90",  // JPEG 2000 (Lossless Only)
    "1.2.840.10008.1.2.4.91",  // JPEG 2000
    "1.2.840.10008.1.2.4.201", // High-Throughput JPEG 2000 (Lossless Only)
    "1.2.840.10008.1.2.4.202", // High-Throughput JPEG 2000 with RPCL Options (Lossless Only)
    "1.2.840.10008.1.2.4.203", // High-Throughput JPEG 2000
    "1.2.840.10008.1.2.5",     // RLE Lossless
];

/// Turns one of this module's constants into a [`Uid`].
#[expect(clippy::expect_used, reason = "the argument is a constant of this crate, and a test parses each")]
pub(crate) fn known(uid: &'static str) -> Uid {
    Uid::parse(uid).expect("a registered UID is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_valid_and_stand_once() {
        let mut all = vec![
            APPLICATION_CONTEXT,
            VERIFICATION,
            STORAGE_COMMITMENT,
            STORAGE_COMMITMENT_INSTANCE,
            STUDY_ROOT_FIND,
            STUDY_ROOT_MOVE,
            MODALITY_WORKLIST_FIND,
        ];
        all.extend(STORAGE_SOP_CLASSES);
        all.extend(TRANSFER_SYNTAXES);
        for uid in &all {
            assert_eq!(known(uid).as_str(), *uid);
        }
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
