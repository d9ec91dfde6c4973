//! Attribution maps that are kept: one file an analysis that came out positive, in it a grey PNG for each positive slice.
//!
//! They are no DICOM objects: nothing delivers them, and no search or retrieval finds them. They go when the study's results
//! go, and are verified and backed up as these are.

use std::path::PathBuf;

use ichor_core::Uid;

use crate::{Store, StoreError, Timestamp};

/// Where in the file of maps a slice's PNG is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapPlace {
    /// Its first byte.
    pub offset: u64,
    /// Its bytes.
    pub bytes: u32,
}

/// A map that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFile {
    /// The file with all maps of the analysis.
    pub path: PathBuf,
    /// Where in it.
    pub place: MapPlace,
}

/// Whether a slice has a map, by the newest outcome of its study, and if not why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SliceMap {
    /// It has.
    Kept(MapFile),
    /// The study has no outcome that is a finding.
    NoFinding,
    /// The study is negative.
    NegativeStudy,
    /// The slice is not one of those that were analysed.
    OtherSlice,
    /// The study is positive, the slice is not.
    NegativeSlice,
    /// The analysis kept no maps: it was made before there were any, or was told not to.
    NeverKept,
    /// They were kept until then.
    Removed(Timestamp),
}

impl Store {
    /// The attribution map of a slice; with no `frame` of a multi-frame instance the first that was analysed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such study; [`StoreError::Busy`], [`StoreError::Database`],
    /// [`StoreError::Corrupt`].
    pub async fn slice_map(&self, study: &Uid, instance: &Uid, frame: Option<u32>) -> Result<SliceMap, StoreError> {
        self.index().slice_map(self.blobs(), study, instance, frame).await
    }
}
