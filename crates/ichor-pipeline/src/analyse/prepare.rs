//! Files → model input: decoding, brain mask and windows, on as many cores as there are.

use std::panic::{AssertUnwindSafe, catch_unwind};

use ichor_core::{Priority, Reason};
use ichor_ct::brain::brain_mask;
use ichor_ct::input::{HuImage, InputGrid, InputPreset, model_input};
use ichor_ct::volume::PlacedSlice;
use ichor_decode::{DecodeError, Decoder, Unavailable};
use tracing::debug;

/// One slice, ready for the model.
pub(crate) struct PreparedSlice {
    pub(crate) placed: PlacedSlice,
    /// `3 × S × S` values.
    pub(crate) input: Vec<f32>,
    /// The way back to the source grid.
    pub(crate) grid: InputGrid,
    /// Brain mask on the source grid, `rows × columns`; empty if it was not asked for.
    pub(crate) brain: Vec<u8>,
    /// The slice in HU, `rows × columns`; empty if no brain mask was asked for.
    pub(crate) hu: Vec<i16>,
}

impl PreparedSlice {
    /// The brain mask on the input's grid, `S × S`.
    pub(crate) fn brain_on_input(&self) -> Vec<u8> {
        self.grid.mask_to_input(&self.brain)
    }
}

/// What slices are prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// The input alone.
    Classify,
    /// The input and the brain mask.
    Mask,
}

/// A batch, in order.
pub(crate) struct Batch {
    pub(crate) slices: Vec<PreparedSlice>,
    /// Slices that cannot be decoded, by their labels, with the reason.
    pub(crate) broken: Vec<(String, Reason)>,
}

/// How slices are prepared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// Windows of the input.
    pub(crate) preset: InputPreset,
    /// Side of the input, in pixels.
    pub(crate) size: usize,
    /// What for.
    pub(crate) purpose: Purpose,
    /// Priority of the threads that do it.
    pub(crate) priority: Priority,
}

/// Why a slice is not prepared.
enum Fault {
    /// It cannot be decoded.
    Broken(String, Reason),
    /// No slice can be decoded now.
    Unavailable(Unavailable),
}

/// Prepares a batch.
///
/// # Errors
/// If no decoder can be started: nothing is known about the slices then.
pub(crate) fn prepare(slices: Vec<PlacedSlice>, decoder: &Decoder, recipe: Recipe) -> Result<Batch, Unavailable> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(slices.len()).max(1);
    let share = slices.len().div_ceil(threads).max(1);
    let prepared: Vec<Result<PreparedSlice, Fault>> = std::thread::scope(|scope| {
        let workers: Vec<_> = slices
            .chunks(share)
            .map(|chunk| {
                scope.spawn(move || {
                    stand_back(recipe.priority);
                    chunk.iter().map(|slice| caught(slice, decoder, recipe)).collect::<Vec<_>>()
                })
            })
            .collect();
        workers
            .into_iter()
            .zip(slices.chunks(share))
            .flat_map(|(worker, chunk)| {
                worker.join().unwrap_or_else(|_| {
                    let crashed = || Reason::new("decoder-crashed", "the thread that prepared this slice crashed");
                    let broken = |slice: &PlacedSlice| Fault::Broken(slice.header.label(), crashed());
                    chunk.iter().map(|slice| Err(broken(slice))).collect()
                })
            })
            .collect()
    });
    let mut batch = Batch { slices: Vec::with_capacity(prepared.len()), broken: Vec::new() };
    for result in prepared {
        match result {
            Ok(slice) => batch.slices.push(slice),
            Err(Fault::Broken(label, reason)) => batch.broken.push((label, reason)),
            Err(Fault::Unavailable(error)) => return Err(error),
        }
    }
    Ok(batch)
}

/// Lowers the priority of this thread, which ends with its batch.
fn stand_back(priority: Priority) {
    if let Err(error) = priority.apply_to_this_thread() {
        debug!(%error, wanted = ?priority, "the priority of a decoding thread stays as it is");
    }
}

/// Code that panics on one slice takes no other with it.
fn caught(placed: &PlacedSlice, decoder: &Decoder, recipe: Recipe) -> Result<PreparedSlice, Fault> {
    let crashed = |_| {
        let reason = Reason::new("decoder-crashed", "reading this slice crashed");
        Err(Fault::Broken(placed.header.label(), reason))
    };
    catch_unwind(AssertUnwindSafe(|| one(placed, decoder, recipe))).unwrap_or_else(crashed)
}

fn one(placed: &PlacedSlice, decoder: &Decoder, recipe: Recipe) -> Result<PreparedSlice, Fault> {
    let slice = decoder.read_slice(placed).map_err(|error| match error {
        DecodeError::Slice(reason) => Fault::Broken(placed.header.label(), reason),
        DecodeError::Unavailable(error) => Fault::Unavailable(error),
    })?;
    let (rows, columns) = (slice.plane.rows as usize, slice.plane.columns as usize);
    let brain = match recipe.purpose {
        Purpose::Classify => Vec::new(),
        Purpose::Mask => brain_mask(&slice.hu, rows, columns, slice.plane.spacing),
    };
    let image = HuImage { rows, columns, spacing: slice.plane.spacing, hu: &slice.hu, window: slice.window };
    let input = model_input(image, recipe.preset, recipe.size);
    let hu = if recipe.purpose == Purpose::Mask { slice.hu } else { Vec::new() };
    Ok(PreparedSlice { placed: placed.clone(), input: input.channels, grid: input.grid, brain, hu })
}
