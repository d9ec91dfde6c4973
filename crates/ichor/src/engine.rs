//! What needs libtorch, behind a trait: the program `ichor` does everything else without it, in a moment and in little
//! memory, and becomes `ichor-torch`, which lies beside it, for the rest.

use std::future::Future;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use ichor_core::{ModelId, Priority};
use ichor_pipeline::analyse::{ModelError, ModelTraits, SliceModel};

use crate::config::ModelConfig;

/// Where the demonstration weights lie in a checkout, and beside an installed binary.
const DEMO_WEIGHTS: &str = "models/demo/demo.safetensors";

/// The program with the engine.
const PROGRAM: &str = "ichor-torch";

/// Loads and runs models.
pub trait Engine: 'static {
    /// A loaded model.
    type Model: SliceModel;

    /// Loads the weights and repeats the manifest's self-test on the device that will be used; also says which that is.
    /// `priority` is for the model's threads.
    fn load(
        config: &ModelConfig,
        priority: Priority,
    ) -> impl Future<Output = anyhow::Result<(Self::Model, String)>> + Send;

    /// Which model a configuration names, by its manifest, which is checked; the weights are not read.
    ///
    /// # Errors
    /// If there is none, or this program cannot feed it.
    fn identify(config: &ModelConfig) -> anyhow::Result<ModelId>;

    /// Runs a command that is the engine's own.
    ///
    /// # Errors
    /// What the command fails of.
    fn run(command: EngineCommand, json: bool) -> anyhow::Result<()>;
}

/// Commands of the engine.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Shows or checks a model; `ichor model` has it, beside commands that need no engine.
    #[command(skip)]
    Model(ModelCommand),

    /// Trains a model by a recipe, on slice labels alone.
    Train(TrainArgs),

    /// Evaluates weights on the recipe's held-out studies, beside the brightness rule.
    ///
    /// Prints a summary and writes `evaluation.json`, every figure, and `evaluation.html`, one page with tables, charts and
    /// pictures that needs nothing beside it.
    Evaluate(EvaluateArgs),
}

/// `model`
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Prints a model's manifest: sizes, preset, thresholds, training data, digest.
    Info(WeightsArg),
    /// Loads the weights, checks them against the manifest, and repeats the recorded self-test.
    Verify(WeightsArg),
    /// Computes logits and attribution maps for given input tensors.
    Maps(MapsArgs),
}

/// A model and a device.
#[derive(Debug, Args)]
pub struct WeightsArg {
    /// The `.safetensors` file; its manifest lies beside it. Absent: the demonstration weights.
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,

    /// Device: auto, cpu or cuda:N.
    #[arg(long, default_value = "cpu")]
    pub device: String,

    /// Precision of matrix products: f32 or bf16.
    #[arg(long, default_value = "f32")]
    pub precision: String,
}

/// `model maps`
#[derive(Debug, Args)]
pub struct MapsArgs {
    /// Sizes of the Swin (JSON).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Weights (safetensors, timm names).
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Safetensors with `input` [n, 3, S, S] and `brain_mask` [n, S, S].
    #[arg(long, value_name = "FILE")]
    pub input: PathBuf,
    /// Safetensors to write: logits, final maps, stage maps.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
}

/// `train`
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Recipe (TOML); `models/demo/recipe.toml` documents every key, `models/recipes` holds those for RSNA 2019, PhysioNet CT-ICH
    /// and a folder of DICOM studies.
    #[arg(long, value_name = "FILE")]
    pub recipe: PathBuf,
    /// Folder for weights, manifest, splits and checkpoints. A run that was stopped there goes on.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Folder for cached slices; absent: inside the output folder.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Device: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// `evaluate`
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Recipe that names the held-out seeds.
    #[arg(long, value_name = "FILE")]
    pub recipe: PathBuf,
    /// Weights to evaluate.
    #[arg(long, value_name = "FILE")]
    pub weights: PathBuf,
    /// Folder for `evaluation.json` and `evaluation.html`; made if absent.
    #[arg(long, value_name = "DIR", default_value = "evaluation")]
    pub out: PathBuf,
    /// Folder that keeps prepared studies for the next evaluation; absent: they are made anew.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// An `evaluation.json` of these weights, whose thresholds are used; absent: they are chosen anew on the recipe's
    /// validation studies.
    #[arg(long, value_name = "FILE")]
    pub thresholds: Option<PathBuf>,
    /// Device: auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
}

/// The given weights, or the demonstration weights: beside the executable, in a folder above it (a checkout), or in
/// the working folder.
///
/// # Errors
/// If they are not there.
pub fn weights_or_demo(given: Option<&Path>) -> anyhow::Result<PathBuf> {
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

/// The program with the engine, which lies beside this one.
pub(crate) fn engine_program() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe().context("own executable")?.with_file_name(PROGRAM))
}

/// Becomes the program with the engine, in the same process and with the same arguments; returns only to say why not.
pub(crate) fn become_engine() -> anyhow::Error {
    match engine_program() {
        Ok(program) => {
            let error = std::process::Command::new(&program).args(std::env::args_os().skip(1)).exec();
            anyhow::Error::new(error).context(format!("this needs {}, which cannot be started", program.display()))
        }
        Err(error) => error,
    }
}

/// The engine of a program that has none.
pub(crate) struct NoEngine;

/// A model that there cannot be.
pub(crate) enum NoModel {}

impl Engine for NoEngine {
    type Model = NoModel;

    async fn load(_config: &ModelConfig, _priority: Priority) -> anyhow::Result<(NoModel, String)> {
        Err(become_engine())
    }

    fn identify(_config: &ModelConfig) -> anyhow::Result<ModelId> {
        Err(become_engine())
    }

    fn run(_command: EngineCommand, _json: bool) -> anyhow::Result<()> {
        Err(become_engine())
    }
}

impl SliceModel for NoModel {
    fn traits(&self) -> &ModelTraits {
        match *self {}
    }

    async fn classify(&self, _inputs: Vec<f32>, _slices: usize) -> Result<Vec<f32>, ModelError> {
        match *self {}
    }

    async fn maps(&self, _inputs: Vec<f32>, _masks: Vec<u8>, _slices: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        match *self {}
    }
}
