//! Slices through the model, in batches.

use ichor_ct::refine::{RefineInput, RefineOptions, refine};
use ichor_ct::volume::PlacedSlice;
use ichor_decode::{Decoder, Unavailable};
use tokio::task::{JoinHandle, spawn_blocking};

use super::prepare::{Batch, PreparedSlice, Purpose, Recipe, prepare};
use super::{AnalysisError, ModelError, ModelTraits, SliceModel};

/// Slices in batches, the next one being prepared while the last is worked on.
pub(crate) struct Batches {
    pending: std::vec::IntoIter<PlacedSlice>,
    next: Option<JoinHandle<Result<Batch, Unavailable>>>,
    decoder: Decoder,
    size: usize,
    recipe: Recipe,
}

impl Batches {
    pub(crate) fn new(
        slices: Vec<PlacedSlice>,
        decoder: &Decoder,
        traits: &ModelTraits,
        purpose: Purpose,
        size: usize,
    ) -> Self {
        let recipe = Recipe { preset: traits.preset, size: traits.size, purpose, priority: traits.priority };
        let (pending, decoder, size) = (slices.into_iter(), decoder.clone(), size.max(1));
        let mut batches = Self { pending, next: None, decoder, size, recipe };
        batches.prefetch();
        batches
    }

    fn prefetch(&mut self) {
        let slices: Vec<PlacedSlice> = self.pending.by_ref().take(self.size).collect();
        let (decoder, recipe) = (self.decoder.clone(), self.recipe);
        self.next = (!slices.is_empty()).then(|| spawn_blocking(move || prepare(slices, &decoder, recipe)));
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Batch>, AnalysisError> {
        let Some(preparing) = self.next.take() else { return Ok(None) };
        let batch = preparing.await??;
        self.prefetch();
        Ok(Some(batch))
    }
}

/// Probability of hemorrhage of each slice, checked.
pub(crate) async fn classify<M: SliceModel>(model: &M, slices: &[PreparedSlice]) -> Result<Vec<f32>, AnalysisError> {
    if slices.is_empty() {
        return Ok(Vec::new());
    }
    let inputs: Vec<f32> = slices.iter().flat_map(|slice| slice.input.iter().copied()).collect();
    let probabilities = model.classify(inputs, slices.len()).await?;
    if probabilities.len() != slices.len() || probabilities.iter().any(|p| !(0.0..=1.0).contains(p)) {
        return Err(ModelError(format!("probabilities {probabilities:?} for {} slices", slices.len())).into());
    }
    Ok(probabilities)
}

/// A positive slice on its source grid, rows × columns.
pub(crate) struct SourceMask {
    /// Not 0 in the mask.
    pub(crate) mask: Vec<u8>,
    /// The map, 0 to 1; empty if it was not asked for.
    pub(crate) map: Vec<f32>,
    /// The slice in HU.
    pub(crate) hu: Vec<i16>,
}

/// The masks of positive slices, with their maps if asked for.
pub(crate) async fn mask<M: SliceModel>(
    model: &M,
    slices: Vec<PreparedSlice>,
    with_maps: bool,
) -> Result<Vec<SourceMask>, AnalysisError> {
    let inputs = slices.iter().flat_map(|slice| slice.input.iter().copied()).collect();
    let brains = slices.iter().flat_map(PreparedSlice::brain_on_input).collect();
    let maps = model.maps(inputs, brains, slices.len()).await?;
    if maps.len() != slices.len() {
        return Err(ModelError(format!("{} maps for {} slices", maps.len(), slices.len())).into());
    }
    let (threshold, refine) = (model.traits().mask_threshold, model.traits().refine);
    let on_source = move |(slice, map): (PreparedSlice, Vec<f32>)| {
        let refined = refine.and_then(|options| refined(&slice, &map, &options));
        SourceMask {
            mask: refined.unwrap_or_else(|| slice.grid.mask_to_source(&map, threshold, &slice.brain)),
            map: if with_maps { slice.grid.map_to_source(&map) } else { Vec::new() },
            hu: slice.hu,
        }
    };
    Ok(spawn_blocking(move || slices.into_iter().zip(maps).map(on_source).collect()).await?)
}

/// The refined mask; `None` where nothing that the map points at looks like blood, and the plain one stays.
fn refined(slice: &PreparedSlice, map: &[f32], options: &RefineOptions) -> Option<Vec<u8>> {
    let source = slice.grid.map_within(map, &slice.brain);
    let plane = &slice.placed.plane;
    let input = RefineInput {
        rows: plane.rows as usize,
        columns: plane.columns as usize,
        spacing: plane.spacing,
        hu: &slice.hu,
        brain: &slice.brain,
    };
    refine(&input, &source, options)
}
