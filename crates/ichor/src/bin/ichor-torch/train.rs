//! `ichor train` and `ichor evaluate`.

use anyhow::Context;
use ichor::engine::{EvaluateArgs, TrainArgs};
use ichor_core::DeviceChoice;
use ichor_model::resolve;
use ichor_train::progress::PrintProgress;
use ichor_train::publish::{evaluate as evaluate_weights, train_and_publish};
use ichor_train::recipe::Recipe;
use ichor_train::report::{EvaluationFile, Report, write_evaluation};
use ichor_train::trainer::TrainOptions;

/// Name of the weight file that a training writes.
const NAME: &str = "demo";

/// `ichor train`: an interrupted training goes on from its last checkpoint.
pub(crate) fn train(args: &TrainArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let options = TrainOptions {
        cache: args.cache.clone().unwrap_or_else(|| args.out.join("cache")),
        checkpoint: args.out.join("checkpoint"),
        device: resolve(args.device.parse::<DeviceChoice>()?)?,
        stop_after: None,
    };
    let published = train_and_publish(&recipe, &args.out, NAME, &options, &mut PrintProgress)?;
    print(&published.report, json)
}

/// `ichor evaluate`: the summary on standard output, the report as files.
pub(crate) fn evaluate(args: &EvaluateArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    let device = resolve(args.device.parse::<DeviceChoice>()?)?;
    let cache = args.cache.as_deref();
    let (report, evaluation) = evaluate_weights(&recipe, &args.weights, device, cache, &mut PrintProgress)?;
    let page = write_evaluation(&args.out, &EvaluationFile { summary: Some(report.clone()), evaluation })?;
    print(&report, json)?;
    eprintln!("the whole report is in {}", page.display());
    Ok(())
}

fn print(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
    } else {
        println!("{}", report.text());
    }
    Ok(())
}
