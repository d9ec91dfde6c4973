//! `ichor-torch`: the program with libtorch. `ichor` becomes it for what needs a model.

mod commands;
mod model;
mod train;

use std::process::ExitCode;

use ichor::engine::{Engine, EngineCommand, ModelCommand};
use ichor::{ModelConfig, in_runtime};
use ichor_core::{ModelId, Priority};
use ichor_model::Manifest;

use crate::model::TorchModel;

/// libtorch.
struct Torch;

impl Engine for Torch {
    type Model = TorchModel;

    async fn load(config: &ModelConfig, priority: Priority) -> anyhow::Result<(TorchModel, String)> {
        let model = TorchModel::start(config, priority).await?;
        let device = model.device();
        Ok((model, device))
    }

    fn identify(config: &ModelConfig) -> anyhow::Result<ModelId> {
        Ok(Manifest::load(&config.weights, &model::expected())?.id()?)
    }

    fn run(command: EngineCommand, json: bool) -> anyhow::Result<()> {
        match command {
            EngineCommand::Model(ModelCommand::Info(args)) => commands::info(&args, json),
            EngineCommand::Model(ModelCommand::Verify(args)) => in_runtime(commands::verify(args, json)),
            EngineCommand::Model(ModelCommand::Maps(args)) => commands::maps(&args),
            EngineCommand::Train(args) => train::train(&args, json),
            EngineCommand::Evaluate(args) => train::evaluate(&args, json),
        }
    }
}

fn main() -> ExitCode {
    ichor::main_with::<Torch>()
}
