//! The model of `ichor-model` as the pipeline's `SliceModel`.

use anyhow::Context;
use ichor::ModelConfig;
use ichor_core::{DeviceChoice, Precision, Priority, SliceReading};
use ichor_ct::input::{InputPreset, PREPROCESSING_VERSION};
use ichor_ct::refine::{REFINE_VERSION, RefineOptions};
use ichor_model::{Expected, ModelRuntime, RuntimeError, RuntimeOptions};
use ichor_pipeline::analyse::{ModelError, ModelTraits, SliceModel};

/// A loaded model.
pub(crate) struct TorchModel {
    runtime: ModelRuntime,
    traits: ModelTraits,
}

/// What this program can feed a model.
pub(crate) fn expected() -> Expected {
    let presets = [InputPreset::PhysioNet, InputPreset::Rsna];
    Expected {
        presets: presets.iter().map(|preset| preset.name().to_owned()).collect(),
        preprocessing_version: PREPROCESSING_VERSION,
        refine_version: REFINE_VERSION,
    }
}

impl TorchModel {
    /// Loads the weights and repeats the manifest's self-test on the device that will be used.
    pub(crate) async fn start(config: &ModelConfig, priority: Priority) -> anyhow::Result<Self> {
        let mut options = RuntimeOptions::new(&config.weights, expected());
        options.device = config.device.parse::<DeviceChoice>()?;
        options.precision = config.precision.parse::<Precision>()?;
        options.threads = config.threads;
        options.batch = config.batch;
        options.priority = priority;
        let runtime = ModelRuntime::start(options).await?;
        runtime.verify().await?;
        let card = &runtime.manifest().model;
        let preset = InputPreset::from_name(&card.input.preset)
            .with_context(|| format!("unknown input preset {:?}", card.input.preset))?;
        // A slice occupies one core of a CPU; a GPU is no core.
        let is_on_cpu = runtime.device() == "cpu";
        let traits = ModelTraits {
            id: runtime.model_id().clone(),
            preset,
            size: runtime.input_size(),
            batch: runtime.batch(),
            batch_on_arrival: if is_on_cpu { 1 } else { runtime.batch() },
            slice_threshold: card.slice_threshold,
            reading: SliceReading { reach_mm: card.slice_reach_mm, calibration: card.slice_calibration },
            study_calibration: card.study_calibration,
            volume: card.volume,
            refine: card.map.refine.map(|refine| RefineOptions {
                support: refine.support,
                floor: refine.floor,
                contrast_hu: refine.contrast_hu,
            }),
            study_rule: card.study_rule(),
            map: format!("{} {:?}", card.map.kind, card.map.gradient_site),
            precision: runtime.precision(),
            mask_threshold: card.map.threshold,
            priority,
            notice: card.notice.clone(),
        };
        Ok(Self { runtime, traits })
    }

    /// Device and precision in use, in words.
    pub(crate) fn device(&self) -> String {
        format!("{}, {}", self.runtime.device(), self.runtime.precision())
    }
}

fn failed(error: RuntimeError) -> ModelError {
    ModelError(error.to_string())
}

impl SliceModel for TorchModel {
    fn traits(&self) -> &ModelTraits {
        &self.traits
    }

    async fn classify(&self, inputs: Vec<f32>, slices: usize) -> Result<Vec<f32>, ModelError> {
        self.runtime.classify(inputs, slices).await.map_err(failed)
    }

    async fn maps(&self, inputs: Vec<f32>, brain_masks: Vec<u8>, slices: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        self.runtime.maps(inputs, brain_masks, slices).await.map_err(failed)
    }
}
