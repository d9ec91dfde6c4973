//! Training on grey noise with bright squares.

use std::collections::HashMap;
use std::path::Path;

use ichor_core::HemorrhageSubtype;
use ichor_model::{Strategy, Swin, SwinPlan};
use rand::{Rng, SeedableRng};

use super::input::{centre, fold, stack};
use super::*;
use crate::data::{DataForm, DataRecipe, Part, SplitRecipe};
use crate::labels::SliceLabel;
use crate::loss::loss;
use crate::progress::Timing;
use crate::publish::{DATA_NOTICE, EvaluateOptions, evaluate, train_and_publish};
use crate::recipe::{HeadFirst, HeldOut};

const TINY: &str = r#"
    name = "tiny"
    version = "0"
    seed = 3
    strategy = "categorical"
    input_preset = "physionet"
    [model]
    img_size = 32
    patch_size = 4
    window_size = 4
    embed_dim = 8
    depths = [2, 2]
    num_heads = [2, 4]
    num_classes = 2
    [optimizer]
    batch = 8
    weight_decay = 0.01
    beta2 = 0.99
    max_gradient_norm = 1.0
    average_decay = 0.9
    [[phases]]
    name = "first"
    seeds = { first = 1, studies = 1 }
    phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
    epochs = 2
    learning_rate = 2e-3
    final_rate = 0.8
    warm_up_steps = 10
    [[phases]]
    name = "second"
    seeds = { first = 10, studies = 1 }
    phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
    epochs = 2
    learning_rate = 2e-3
    final_rate = 0.1
    warm_up_steps = 5
    [validation]
    seeds = { first = 20, studies = 1 }
    phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
    [test]
    seeds = { first = 30, studies = 1 }
    phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
"#;

/// Grey noise; half of the slices carry a bright square somewhere.
fn squares(count: usize, seed: u64) -> SliceSet {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut set = SliceSet::new(32);
    for index in 0..count {
        let mut plane: Vec<f32> = (0..32 * 32).map(|_| rng.random_range(0.3..0.5)).collect();
        let bright = index % 2 == 0;
        if bright {
            let (row, column) = (rng.random_range(2..20), rng.random_range(2..20));
            for line in row..row + 9 {
                plane[line * 32 + column..line * 32 + column + 9].fill(0.8);
            }
        }
        let label = if bright { SliceLabel::of([HemorrhageSubtype::Subdural]) } else { SliceLabel::NONE };
        set.push(&[plane.clone(), plane.clone(), plane].concat(), label, index as u64);
    }
    set
}

/// Somebody who asks the run to stop after so many steps, and keeps what it says.
#[derive(Default)]
struct Watcher {
    stop_after: Option<usize>,
    flag: Arc<AtomicBool>,
    steps: usize,
    notes: Vec<String>,
    waited: Vec<f64>,
}

impl Progress for Watcher {
    fn step(&mut self, _: usize, _: usize, _: f64) {
        self.steps += 1;
        if self.stop_after == Some(self.steps) {
            self.flag.store(true, Ordering::Relaxed);
        }
    }

    fn timing(&mut self, timing: &Timing) {
        assert!(timing.slices_per_second > 0.0 && timing.phase_left_s >= 0.0);
        self.waited.push(timing.waited_share);
    }

    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
}

fn options(folder: &Path) -> TrainOptions {
    TrainOptions {
        cache: folder.join("cache"),
        checkpoint: folder.join("checkpoint"),
        device: Device::Cpu,
        stop_after: None,
        interrupt: None,
    }
}

fn material(phase: &Phase, _: &mut dyn Progress) -> Result<Material, TrainError> {
    Ok(Material::new(Box::new(squares(160, phase.seeds.unwrap().first))))
}

fn run_with(recipe: &Recipe, options: &TrainOptions, watcher: &mut Watcher) -> Result<Trained, TrainError> {
    train_on(recipe, options, &squares(40, 99), material, watcher)
}

fn run(recipe: &Recipe, folder: &Path, stop_after: Option<usize>) -> Trained {
    run_with(recipe, &TrainOptions { stop_after, ..options(folder) }, &mut Watcher::default()).unwrap()
}

fn assert_same(resumed: &Trained, straight: &Trained) {
    assert_eq!(resumed.history.len(), straight.history.len());
    for (ours, theirs) in resumed.history.iter().zip(&straight.history) {
        // The record went through JSON, which may change the last bit; the weights did not.
        let apart = (ours.training_loss - theirs.training_loss).abs();
        assert!(apart <= 1e-15 * theirs.training_loss.abs(), "{ours:?} {theirs:?}");
    }
    for ((name, a), (_, b)) in resumed.weights.iter().zip(&straight.weights) {
        assert!(a.equal(b), "{name} differs after resuming");
    }
}

/// All slices of a set, 0..1.
fn batch(set: &SliceSet) -> Tensor {
    let bytes: Vec<u8> = (0..set.len()).flat_map(|index| set.input(index)).copied().collect();
    stack(&bytes, set.len(), set.size()).unwrap()
}

fn tiny() -> Recipe {
    Recipe::parse(TINY, "tiny.toml".as_ref()).unwrap()
}

#[test]
fn learns_from_labels_and_resumes_to_the_bit() {
    let _drawing = crate::draw_alone();
    // One thread: sums in another order would differ in the last bit.
    tch::set_num_threads(1);
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recipe = tiny();
    let straight = run(&recipe, whole.path(), None);
    let (first, last) = (&straight.history[0], &straight.history[3]);
    assert!(last.training_loss < 0.7 * first.training_loss, "{first:?} {last:?}");
    assert!(last.validation_auc > 0.9, "{last:?}");
    // Stopped in the first phase, between the phases, and in the second.
    for stop in [1, 2, 3] {
        assert_eq!(run(&recipe, parts.path(), Some(stop)).history.len(), stop);
    }
    let resumed = run(&recipe, parts.path(), None);
    assert_same(&resumed, &straight);
}

/// Everything that a run can be in the middle of: the head alone, all of the network, a phase that stops early.
#[test]
fn an_interrupted_run_goes_on_to_the_bit() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let mut recipe = tiny();
    recipe.phases[0].head_first = Some(HeadFirst { epochs: 1, learning_rate: 1e-2 });
    recipe.phases[1].early_stop = Some(1);
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let straight = run(&recipe, whole.path(), None);
    // In the head's epoch (20 steps), at its end, after it, and in the second phase.
    let mut stops = 0;
    for stop_after in [7, 13, 5, 16, 21, 5] {
        let mut watcher = Watcher { stop_after: Some(stop_after), ..Watcher::default() };
        let interrupt = Some(Arc::clone(&watcher.flag));
        match run_with(&recipe, &TrainOptions { interrupt, ..options(parts.path()) }, &mut watcher) {
            Err(TrainError::Interrupted { checkpoint, .. }) => assert!(checkpoint.join("state.json").exists()),
            other => panic!("{other:?}"),
        }
        assert_eq!(watcher.steps, stop_after, "the step is finished, and no other begun");
        stops += stop_after;
    }
    assert!(stops > 60, "the second phase was reached");
    assert_same(&run(&recipe, parts.path(), None), &straight);
}

#[test]
fn the_head_learns_alone_first() {
    let _drawing = crate::draw_alone();
    let mut recipe = tiny();
    recipe.optimizer.average_decay = 0.0;
    recipe.phases[0].head_first = Some(HeadFirst { epochs: 1, learning_rate: 1e-2 });
    let folder = tempfile::tempdir().unwrap();
    let (options, mut watcher) = (options(folder.path()), Watcher::default());
    let mut run = Run::start(&recipe, &options, &mut watcher).unwrap();
    let values = |run: &Run<'_>| -> HashMap<String, Tensor> {
        run.averages().0.variables().into_iter().map(|(name, tensor)| (name, tensor.copy())).collect()
    };
    let phase = &recipe.phases[0];
    let material = material(phase, &mut ()).unwrap();
    for head_only in [true, false] {
        let before = values(&run);
        run.epoch(0, phase, &material, &squares(40, 99), &mut watcher).unwrap();
        for (name, after) in values(&run) {
            let moved = !after.equal(&before[&name]);
            assert_eq!(moved, name.starts_with("head.") || !head_only, "{name}");
        }
    }
    assert!(watcher.waited.iter().all(|share| (0.0..=1.0).contains(share)) && watcher.waited.len() == watcher.steps);
}

#[test]
fn a_phase_stops_early_with_its_best_weights() {
    let _drawing = crate::draw_alone();
    let mut recipe = tiny();
    recipe.phases.truncate(1);
    recipe.phases[0].epochs = 30;
    // Far too high a rate: validation gets worse before long.
    recipe.phases[0].learning_rate = 0.05;
    recipe.phases[0].final_rate = 1.0;
    recipe.phases[0].early_stop = Some(2);
    let folder = tempfile::tempdir().unwrap();
    let trained = run(&recipe, folder.path(), None);
    let losses: Vec<f64> = trained.history.iter().map(|record| record.validation_loss).collect();
    let best = losses.iter().copied().fold(f64::INFINITY, f64::min);
    let at = losses.iter().position(|loss| *loss == best).unwrap();
    assert_eq!(at + 3, losses.len(), "two epochs after the best one: {losses:?}");
    // The weights that come out have the best epoch's loss.
    let store = nn::VarStore::new(Device::Cpu);
    let network = Swin::new(&store.root(), &SwinPlan::check(&recipe.model).unwrap());
    trained.fill(&store).unwrap();
    let set = squares(40, 99);
    let loss = loss(recipe.strategy, &network.forward(&batch(&set)), set.labels(), &recipe.loss).unwrap();
    assert!((loss.double_value(&[]) - best).abs() < 1e-4, "{loss:?} {best}");
    // And a run that is over stays over.
    assert_same(&run(&recipe, folder.path(), None), &trained);
}

#[test]
fn a_batch_in_parts_makes_the_same_step() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    for strategy in [Strategy::Categorical, Strategy::Binary, Strategy::Multilabel] {
        let mut recipe = tiny();
        (recipe.strategy, recipe.model.num_classes) = (strategy, strategy.classes());
        recipe.phases.truncate(1);
        recipe.phases[0].epochs = 1;
        let weights = [None, Some(3)].map(|most| {
            let folder = tempfile::tempdir().unwrap();
            let options = options(folder.path());
            let mut run = Run::start(&recipe, &options, &mut ()).unwrap();
            most.into_iter().for_each(|most| run.allow(most));
            let material = material(&recipe.phases[0], &mut ()).unwrap();
            run.epoch(0, &recipe.phases[0], &material, &squares(40, 99), &mut ()).unwrap();
            run.finish().unwrap()
        });
        let [whole, parts] = &weights;
        assert!((whole.history[0].training_loss - parts.history[0].training_loss).abs() < 1e-4);
        for ((name, a), (_, b)) in whole.weights.iter().zip(&parts.weights) {
            let apart = (a - b).abs().max().double_value(&[]);
            assert!(apart < 5e-3, "{strategy:?} {name}: {apart}");
        }
    }
}

#[test]
fn every_strategy_learns() {
    let _drawing = crate::draw_alone();
    for strategy in [Strategy::Categorical, Strategy::Binary, Strategy::Multilabel] {
        let mut recipe = tiny();
        (recipe.strategy, recipe.model.num_classes) = (strategy, strategy.classes());
        let folder = tempfile::tempdir().unwrap();
        let trained = run(&recipe, folder.path(), None);
        let last = trained.history.last().unwrap();
        assert!(last.validation_auc > 0.9, "{strategy:?} {last:?}");
        assert!(last.training_loss < 0.7 * trained.history[0].training_loss, "{strategy:?} {last:?}");
    }
}

#[test]
fn training_starts_from_a_file() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("start.safetensors");
    let trained = run(&tiny(), folder.path(), None);
    Tensor::write_safetensors(&trained.weights, &path).unwrap();
    let start = |recipe: &Recipe, at: &str| {
        let (options, mut watcher) = (options(&folder.path().join(at)), Watcher::default());
        let run = Run::start(recipe, &options, &mut watcher).unwrap();
        (run.finish().unwrap().weights, watcher.notes)
    };
    let same = Recipe { start_from: Some(path.clone()), ..tiny() };
    let (weights, notes) = start(&same, "same");
    assert!(notes[0].contains("head included"), "{notes:?}");
    for ((name, ours), (_, theirs)) in weights.iter().zip(&trained.weights) {
        assert!((ours - theirs).abs().max().double_value(&[]) < 1e-5, "{name}");
    }
    let mut other = same.clone();
    (other.strategy, other.model.num_classes) = (Strategy::Multilabel, 6);
    let (weights, notes) = start(&other, "other");
    assert!(notes[0].contains("the head starts anew: head.bias is [2], the model wants [6]"), "{notes:?}");
    let head = weights.iter().find(|(name, _)| name == "head.weight").unwrap();
    assert_eq!(head.1.size()[0], 6);
    let mut smaller = same;
    smaller.model.embed_dim = 4;
    let error = Run::start(&smaller, &options(&folder.path().join("smaller")), &mut ()).err().unwrap().to_string();
    assert!(
        error.contains("start_from")
            && error.contains("swin.layers.0.blocks.0.attn.proj.bias is [8], the model wants [4]"),
        "{error}"
    );
}

#[test]
fn validation_of_one_class_is_refused() {
    let recipe = tiny();
    let folder = tempfile::tempdir().unwrap();
    let mut clean = SliceSet::new(32);
    clean.push(&[0.5; 3 * 32 * 32], SliceLabel::NONE, 1);
    let error = train_on(&recipe, &options(folder.path()), &clean, material, &mut ()).unwrap_err();
    assert!(matches!(error, TrainError::OneClass { bleeding: 0, clean: 1 }), "{error}");
}

/// A whole run on data in PhysioNet's form: labels, split, files of slices, loader, training, checkpoint.
#[test]
fn trains_on_data_that_somebody_brings() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("ct-ich");
    crate::data::published_physionet(&data, 24);
    let mut recipe = tiny();
    recipe.phases.truncate(1);
    let brought = DataRecipe {
        form: DataForm::PhysioNet,
        folder: data,
        labels: None,
        brain_masks: None,
        split: SplitRecipe { folds: 4, validation_share: 0.25, ..SplitRecipe::default() },
    };
    recipe.data.insert("ich".to_owned(), brought);
    let phase = &mut recipe.phases[0];
    (phase.seeds, phase.phantoms, phase.data) = (None, None, Some("ich".to_owned()));
    phase.epochs = 20;
    recipe.validation = HeldOut { seeds: None, phantoms: None, data: Some("ich".to_owned()), part: None };
    recipe.test = recipe.validation.clone();
    recipe.validation.part = Some(Part::Validation);
    let (options, mut watcher) = (options(folder.path()), Watcher::default());
    let trained = train(&recipe, &options, &mut watcher).unwrap();
    assert!(
        watcher.notes[0].contains("24 patients, 24 scans, 96 labelled slices, 24 of them bleeding"),
        "{:?}",
        watcher.notes
    );
    assert!(folder.path().join("split-ich.json").exists() && folder.path().join("data-ich.txt").exists());
    let last = trained.history.last().unwrap();
    assert!(last.validation_auc > 0.9, "{last:?}");
    let files = std::fs::read_dir(folder.path().join("cache")).unwrap().count();
    assert_eq!(files, 2, "24 scans, 16 in a file");
    // Everything is taken up again: labels, split, slices, checkpoint.
    assert_same(&train(&recipe, &options, &mut Watcher::default()).unwrap(), &trained);
    // And comes out as weights with a manifest, measured on the test part; evaluated again, on the same split.
    let published = train_and_publish(&recipe, folder.path(), "ich", &options, &mut Watcher::default()).unwrap();
    assert_eq!(published.manifest.model.training_data, "PhysioNet CT-ICH, slice labels only");
    assert_eq!(published.manifest.model.notice.as_deref(), Some(DATA_NOTICE));
    let file = folder.path().join("evaluation.json");
    let evaluate = |recipe: &Recipe, thresholds| {
        let options = EvaluateOptions { device: Device::Cpu, cache: None, thresholds };
        let tested = evaluate(recipe, &published.weights, options, &mut Watcher::default());
        tested.map(|tested| serde_json::to_value(&tested.report).unwrap())
    };
    let report = serde_json::to_value(&published.report).unwrap();
    assert_eq!(evaluate(&recipe, None).unwrap(), report);
    // With the thresholds that were found, no validation data are wanted.
    let test_only =
        Recipe { validation: HeldOut { data: Some("gone".to_owned()), ..recipe.validation.clone() }, ..recipe.clone() };
    assert_eq!(evaluate(&test_only, Some(&file)).unwrap(), report);
    assert!(evaluate(&test_only, None).is_err());
    let other = std::fs::read_to_string(&file).unwrap().replacen(&published.report.model, "other@1+0", 1);
    std::fs::write(&file, other).unwrap();
    let error = evaluate(&recipe, Some(&file)).unwrap_err().to_string();
    assert!(error.contains("has thresholds of other@1+0, the weights are"), "{error}");
    std::fs::write(&file, "{}").unwrap();
    let error = evaluate(&recipe, Some(&file)).unwrap_err().to_string();
    assert!(error.contains("is no evaluation.json with thresholds: missing field `model`"), "{error}");
}

#[test]
fn shipped_weights_take_plain_input() {
    let _drawing = crate::draw_alone();
    let recipe = tiny();
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let run = Run::start(&recipe, &options, &mut ()).unwrap();
    let (averages, average) = run.averages();
    let input = batch(&squares(4, 5));
    // The head starts at zero, so a feature of it is compared.
    let head = averages.variables()["head.weight"].shallow_clone();
    let _ = tch::no_grad(|| head.shallow_clone().normal_(0.0, 1.0));
    let centred = average.forward(&centre(&input).unwrap());
    let store = nn::VarStore::new(Device::Cpu);
    let shipped = Swin::new(&store.root(), average.plan());
    let weights: HashMap<String, Tensor> = fold(&averages.variables()).unwrap().into_iter().collect();
    tch::no_grad(|| store.variables().iter_mut().for_each(|(name, variable)| variable.copy_(&weights[name])));
    let difference = (centred - shipped.forward(&input)).abs().max().double_value(&[]);
    assert!(difference < 1e-4, "{difference}");
}
