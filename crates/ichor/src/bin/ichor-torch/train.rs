//! `ichor train` and `ichor evaluate`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use ichor::engine::{EvaluateArgs, TrainArgs};
use ichor_core::DeviceChoice;
use ichor_model::resolve;
use ichor_train::progress::PrintProgress;
use ichor_train::publish::{EvaluateOptions, evaluate as evaluate_weights, train_and_publish};
use ichor_train::recipe::Recipe;
use ichor_train::report::{Report, write_evaluation};
use ichor_train::trainer::TrainOptions;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// `ichor train`: an interrupted training goes on from its last checkpoint.
pub(crate) fn train(args: &TrainArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let options = TrainOptions {
        cache: args.cache.clone().unwrap_or_else(|| args.out.join("cache")),
        checkpoint: args.out.join("checkpoint"),
        device: resolve(args.device.parse::<DeviceChoice>()?)?,
        stop_after: None,
        interrupt: Some(stop_signals()?),
    };
    // The demonstration weights lie as `demo` in `models/demo`.
    let stem = recipe.name.strip_prefix("ichor-").unwrap_or(&recipe.name);
    let published = train_and_publish(&recipe, &args.out, stem, &options, &mut PrintProgress)?;
    print(&published.report, &published.also, json)
}

/// A flag that the first SIGINT or SIGTERM raises; the second one ends the process at once.
fn stop_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Registered before training begins: a signal in its first moment counts.
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            for ends in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => (),
                    _ = terminate.recv() => (),
                }
                if ends {
                    std::process::exit(130);
                }
                eprintln!("stopping: the step is finished and a checkpoint written; a second signal ends at once");
                raised.store(true, Ordering::Relaxed);
            }
        });
    })?;
    Ok(flag)
}

/// `ichor evaluate`: the summary on standard output, the report as files.
pub(crate) fn evaluate(args: &EvaluateArgs, json: bool) -> anyhow::Result<()> {
    let recipe = Recipe::load(&args.recipe)?;
    let device = resolve(args.device.parse::<DeviceChoice>()?)?;
    let options = EvaluateOptions { device, cache: args.cache.as_deref(), thresholds: args.thresholds.as_deref() };
    let tested = evaluate_weights(&recipe, &args.weights, options, &mut PrintProgress)?;
    let page = write_evaluation(&args.out, &tested.file)?;
    print(&tested.report, &tested.also, json)?;
    eprintln!("the whole report is in {}", page.display());
    Ok(())
}

fn print(report: &Report, also: &[(String, Report)], json: bool) -> anyhow::Result<()> {
    if json {
        let also: Vec<_> = also.iter().map(|(name, report)| json!({ "name": name, "report": report })).collect();
        let mut whole = serde_json::to_value(report)?;
        whole["also"] = also.into();
        println!("{whole}");
        return Ok(());
    }
    println!("{}", report.text());
    for (name, report) in also {
        println!("{name}\n{}", report.text());
    }
    Ok(())
}
