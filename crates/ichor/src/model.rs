//! The model of `ichor-model` as the pipeline's `SliceModel`, and where the demonstration weights lie.

use std::path::{Path, PathBuf};

use anyhow::Context;
use ichor_ct::input::{InputPreset, PREPROCESSING_VERSION};
use ichor_model::{DeviceChoice, Expected, ModelRuntime, RuntimeError, RuntimeOptions};
use ichor_pipeline::analyse::{ModelError, ModelTraits, SliceModel};

use crate::config::ModelConfig;

/// Where the demonstration weights lie in a checkout, and beside an installed binary.
const DEMO_WEIGHTS: &str = "models/demo/demo.safetensors";

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
    }
}

/// The given weights, or the demonstration weights: beside the executable, in a folder above it (a checkout), or in
/// the working folder.
pub(crate) fn weights_or_demo(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        return path.canonicalize().with_context(|| path.display().to_string());
    }
    let executable = std::env::current_exe().context("own executable")?;
    let above = executable.ancestors().skip(1).map(Path::to_owned);
    let candidates = above.chain([PathBuf::from(".")]).map(|folder| folder.join(DEMO_WEIGHTS));
    candidates
        .filter(|path| path.is_file())
        .find_map(|path| path.canonicalize().ok())
        .with_context(|| format!("the demonstration weights ({DEMO_WEIGHTS}) are not here; give --weights"))
}

impl TorchModel {
    /// Loads the weights and repeats the manifest's self-test on the device that will be used.
    pub(crate) async fn start(config: &ModelConfig, nice: i32) -> anyhow::Result<Self> {
        let mut options = RuntimeOptions::new(&config.weights, expected());
        options.device = config.device.parse::<DeviceChoice>()?;
        options.threads = config.threads;
        options.batch = config.batch;
        options.nice = nice;
        let runtime = ModelRuntime::start(options).await?;
        runtime.verify().await?;
        let card = &runtime.manifest().model;
        let preset = InputPreset::from_name(&card.input.preset)
            .with_context(|| format!("unknown input preset {:?}", card.input.preset))?;
        let traits = ModelTraits {
            id: runtime.model_id().clone(),
            preset,
            size: runtime.input_size(),
            batch: runtime.batch(),
            slice_threshold: card.slice_threshold,
            slice_reach_mm: card.slice_reach_mm,
            min_positive_slices: card.min_positive_slices,
            map: format!("{} {:?}", card.map.kind, card.map.gradient_site),
            mask_threshold: card.map.threshold,
            nice,
            notice: card.notice.clone(),
        };
        Ok(Self { runtime, traits })
    }

    /// The device in use, in words.
    pub(crate) fn device(&self) -> String {
        self.runtime.device()
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
