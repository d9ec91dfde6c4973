//! Trains and evaluates a recipe without the rest of ichor:
//! `run_recipe RECIPE OUT CACHE CHECKPOINT [EPOCHS]`, or `run_recipe --series WEIGHTS FILE…` for the probability of each
//! slice of a real series.

use std::path::{Path, PathBuf};

use ichor_ct::input::InputPreset;
use ichor_ct::volume::read_slice;
use ichor_model::Manifest;
use ichor_train::evaluate::Subject;
use ichor_train::prepared::ready;
use ichor_train::progress::PrintProgress;
use ichor_train::publish::{load, train_and_publish};
use ichor_train::recipe::Recipe;
use ichor_train::trainer::TrainOptions;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Ok(threads) = std::env::var("TORCH_THREADS") {
        tch::set_num_threads(threads.parse()?);
    }
    match arguments.as_slice() {
        [flag, weights, files @ ..] if flag == "--series" => series(weights.as_ref(), files),
        [recipe, out, cache, checkpoint, rest @ ..] => {
            let options = TrainOptions {
                cache: PathBuf::from(cache),
                checkpoint: PathBuf::from(checkpoint),
                device: tch::Device::Cpu,
                stop_after: rest.first().map(|epochs| epochs.parse()).transpose()?,
                interrupt: None,
            };
            let recipe = Recipe::load(recipe.as_ref())?;
            let published = train_and_publish(&recipe, out.as_ref(), "demo", &options, &mut PrintProgress)?;
            println!("{}", published.report.text());
            Ok(())
        }
        _ => Err("usage: run_recipe RECIPE OUT CACHE CHECKPOINT [EPOCHS]".into()),
    }
}

fn series(weights: &Path, files: &[String]) -> Result<(), Failure> {
    let manifest = Manifest::read(weights)?;
    let device = tch::Device::Cpu;
    let (_store, network) = load(&manifest, weights, device)?;
    let preset = InputPreset::from_name(&manifest.model.input.preset).ok_or("unknown preset")?;
    let size = usize::try_from(manifest.model.sizes.img_size)?;
    let subject = Subject { network: &network, strategy: manifest.model.strategy, preset, device };
    let mut slices = Vec::new();
    for file in files {
        let slice = read_slice(file.as_ref())?;
        slices.push((slice.plane.position[2], ready(&slice.hu, &slice.plane, slice.window, preset, size)));
    }
    slices.sort_by(|a, b| a.0.total_cmp(&b.0));
    let slices: Vec<_> = slices.iter().map(|(_, slice)| slice).collect();
    let probabilities = subject.probabilities(&slices)?;
    let called = probabilities.iter().filter(|p| **p >= manifest.model.slice_threshold).count();
    let study = ichor_core::study_probability(&probabilities, manifest.model.min_positive_slices);
    println!("{probabilities:.2?}");
    println!(
        "{called} of {} slices positive at {}; study {study:.3}",
        probabilities.len(),
        manifest.model.slice_threshold
    );
    Ok(())
}
