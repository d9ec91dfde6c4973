//! Pictures of slices. Who draws them is the caller's: DICOM stays outside of this crate.

use std::path::PathBuf;

use ichor_core::Uid;
use ichor_store::MapFile;

/// Draws slices.
pub trait Pictures: Send + Sync + 'static {
    /// A PNG. May block.
    ///
    /// # Errors
    /// [`PictureFault`].
    fn draw(&self, wanted: &WantedPicture) -> Result<Vec<u8>, PictureFault>;
}

/// Which picture.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedPicture {
    /// The source's Part 10 file.
    pub file: PathBuf,
    /// Its SOP Instance UID.
    pub sop_instance: Uid,
    /// The frame, counted from 1, of a multi-frame file.
    pub frame: Option<u32>,
    /// Window centre and width, HU.
    pub window: (f64, f64),
    /// What lies over the slice.
    pub overlay: Overlay,
}

/// What is drawn over a slice.
#[derive(Clone, Debug, PartialEq)]
pub enum Overlay {
    /// Nothing.
    None,
    /// The outline of the mask in this Segmentation.
    Outline(Uid, PathBuf),
    /// This attribution map.
    Map(MapFile),
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PictureFault {
    /// The file holds no slice that can be shown.
    #[error("{0}")]
    Unreadable(String),
    /// Not now.
    #[error("{0}")]
    Unavailable(String),
}

/// A window with a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Preset {
    pub(crate) name: &'static str,
    pub(crate) label: &'static str,
    pub(crate) center: f64,
    pub(crate) width: f64,
}

/// The windows that a head CT is read in.
pub(crate) const PRESETS: [Preset; 5] = [
    Preset { name: "brain", label: "Brain", center: 40.0, width: 80.0 },
    Preset { name: "blood", label: "Blood", center: 60.0, width: 40.0 },
    Preset { name: "subdural", label: "Subdural", center: 75.0, width: 215.0 },
    Preset { name: "stroke", label: "Stroke", center: 35.0, width: 30.0 },
    Preset { name: "bone", label: "Bone", center: 600.0, width: 2800.0 },
];
