//! What the stage asks of a model. The binary implements it with libtorch; tests implement it without.

use std::future::Future;

use ichor_core::{Calibration, ModelId, Precision, Priority, SliceReading, StudyRule, VolumeUncertainty};
use ichor_ct::input::{InputPreset, PREPROCESSING_VERSION};
use ichor_ct::refine::RefineOptions;
use thiserror::Error;

/// Everything about a model that the stage must know.
#[derive(Clone, Debug)]
pub struct ModelTraits {
    /// Name, version and digest of the weights.
    pub id: ModelId,
    /// Windows of the input.
    pub preset: InputPreset,
    /// Side of the square input, in pixels.
    pub size: usize,
    /// Slices to hand over at once.
    pub batch: usize,
    /// The same while slices still arrive: on a CPU as few as keep cores free for receiving.
    pub batch_on_arrival: usize,
    /// A slice is positive from this probability on, read as `reading` says.
    pub slice_threshold: f32,
    /// How the probabilities of a study's slices are read together.
    pub reading: SliceReading,
    /// What makes the study's probability honest.
    pub study_calibration: Calibration,
    /// How far a study's volume may be off.
    pub volume: Option<VolumeUncertainty>,
    /// How a study's verdict comes from its slices.
    pub study_rule: StudyRule,
    /// Which map, and how it is made, in words: the same words are the same map.
    pub map: String,
    /// Precision of its matrix products.
    pub precision: Precision,
    /// A pixel belongs to the mask from this map value on.
    pub mask_threshold: f32,
    /// How masks are refined by what the pixels say; `None`: not at all.
    pub refine: Option<RefineOptions>,
    /// Priority of the threads that prepare its input.
    pub priority: Priority,
    /// What must stand in every object made with these weights, such as "demonstration only".
    pub notice: Option<String>,
}

impl ModelTraits {
    /// The model and how it is fed, in words: the same words are the same probability of the same slice.
    #[must_use]
    pub fn fed(&self) -> String {
        format!("{} {} input {PREPROCESSING_VERSION} {}", self.id, self.preset.name(), self.precision)
    }
}

/// The model could not answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("model: {0}")]
pub struct ModelError(pub String);

/// A slice classifier whose verdicts can be turned into maps.
pub trait SliceModel: Send + Sync + 'static {
    /// What the stage must know.
    fn traits(&self) -> &ModelTraits;

    /// Probability of hemorrhage of each slice. `inputs` holds `slices` × 3 × S × S values.
    fn classify(&self, inputs: Vec<f32>, slices: usize) -> impl Future<Output = Result<Vec<f32>, ModelError>> + Send;

    /// Attribution map of each slice, S × S values from 0 to 1 after the brain mask (`slices` × S × S, 0 or 1) was
    /// applied.
    fn maps(
        &self,
        inputs: Vec<f32>,
        brain_masks: Vec<u8>,
        slices: usize,
    ) -> impl Future<Output = Result<Vec<Vec<f32>>, ModelError>> + Send;
}
