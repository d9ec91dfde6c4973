//! Maps that are kept for people to look at: a grey PNG a positive slice, in one file.

use ichor_picture::Raster;
use ichor_store::{IncomingBlob, MapPlace, SliceScore, StagedBlob, Store};
use tokio::task::spawn_blocking;

use super::study::AnalysisError;

/// A file of maps in the making. Dropped before [`Self::finish`] it leaves nothing behind.
pub(crate) struct MapPages {
    blob: IncomingBlob,
    length: u64,
    /// Places of slices, and of their maps.
    places: Vec<(usize, MapPlace)>,
}

impl MapPages {
    pub(super) async fn begin(store: &Store) -> Result<Self, AnalysisError> {
        Ok(Self { blob: store.blobs().begin().await?, length: 0, places: Vec::new() })
    }

    /// Adds the map of the slice at `index`: rows × columns values from 0 to 1.
    pub(super) async fn add(
        &mut self,
        index: usize,
        rows: u32,
        columns: u32,
        map: Vec<f32>,
    ) -> Result<(), AnalysisError> {
        let png = spawn_blocking(move || {
            let samples = map.iter().map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
            Raster::grey(columns, rows, samples)?.png()
        });
        let png = png.await??;
        self.blob.write(&png).await?;
        let bytes = u32::try_from(png.len()).unwrap_or(u32::MAX);
        self.places.push((index, MapPlace { offset: self.length, bytes }));
        self.length += u64::from(bytes);
        Ok(())
    }

    /// The file, and in `slices` where each one's map is; `None` if there is none.
    pub(super) async fn finish(self, slices: &mut [SliceScore]) -> Result<Option<StagedBlob>, AnalysisError> {
        if self.places.is_empty() {
            return Ok(None);
        }
        for (index, place) in self.places {
            if let Some(slice) = slices.get_mut(index) {
                slice.map = Some(place);
            }
        }
        Ok(Some(self.blob.finish().await?))
    }
}
