use std::cell::Cell;

use ichor_core::HemorrhageSubtype;
use rand::{Rng, SeedableRng};
use tch::Tensor;

use super::examples::Examples;
use super::*;
use crate::augment::AugmentOptions;
use crate::labels::SliceLabel;
use crate::metrics::{auc, dice};
use crate::slices::SliceSet;

const TINY: &str = r#"
    name = "tiny"
    version = "0"
    seed = 3
    strategy = "categorical"
    input_preset = "physionet"
    phases = []
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
    [validation]
    seeds = { first = 20, studies = 1 }
    phantoms = { positive_share = 0.5, matrices = [64], min_spacing_mm = 5.0 }
    [test]
    seeds = { first = 30, studies = 4 }
    phantoms = { positive_share = 1.0, matrices = [64], min_spacing_mm = 12.0, bleeds = { volume_ml = [40.0, 80.0], faint_share = 0.0 } }
    [[rival]]
    kind = "unet"
    unet = { widths = [8, 16] }
    seeds = { first = 1, studies = 4 }
    phantoms = { positive_share = 1.0, matrices = [64], min_spacing_mm = 12.0, bleeds = { volume_ml = [40.0, 80.0], faint_share = 0.0 } }
    epochs = 2
    batch = 4
    validation_share = 0.25
    [[rival]]
    kind = "resnet-lstm"
    resnet_lstm = { width = 4, last_stride = 1, hidden = 8 }
    seeds = { first = 1, studies = 4 }
    phantoms = { positive_share = 1.0, matrices = [64], min_spacing_mm = 12.0, bleeds = { volume_ml = [40.0, 80.0], faint_share = 0.0 } }
    epochs = 2
    batch = 2
    validation_share = 0.25
    binarisation = { rule = "grid-search", folds = 2 }
"#;

const STILL: AugmentOptions = AugmentOptions {
    flip: 0.0,
    affine: 0.0,
    rotation_degrees: 0.0,
    scale: 0.0,
    shift: 0.0,
    noise: 0.0,
    noise_sigma: 0.0,
    gain: 0.0,
    gain_change: 0.0,
};

fn tiny() -> Recipe {
    // The recipe's own check wants phases; rivals are trained without.
    toml::from_str(TINY).unwrap()
}

/// Scans of grey noise, half of whose slices carry a bright square.
struct Squares {
    size: usize,
    scans: usize,
    slices: usize,
    asked: Cell<usize>,
}

impl Squares {
    fn new(size: usize, scans: usize, slices: usize) -> Self {
        Self { size, scans, slices, asked: Cell::new(0) }
    }

    fn draw(&self) -> Examples {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        let mut examples = Examples::with_masks(self.size);
        let edge = self.size / 4;
        for scan in 0..self.scans {
            for slice in 0..self.slices {
                let mut plane: Vec<f32> = (0..self.size * self.size).map(|_| rng.random_range(0.3..0.5)).collect();
                let mut mask = vec![0; plane.len()];
                let bright = (scan + slice) % 2 == 0;
                if bright {
                    let at = [rng.random_range(1..self.size - edge - 1), rng.random_range(1..self.size - edge - 1)];
                    for row in at[0]..at[0] + edge {
                        let line = row * self.size + at[1]..row * self.size + at[1] + edge;
                        plane[line.clone()].fill(0.8);
                        mask[line].fill(1);
                    }
                }
                let label = if bright { SliceLabel::of([HemorrhageSubtype::Subdural]) } else { SliceLabel::NONE };
                examples.push(&plane.repeat(3), label, &mask, scan as u64).unwrap();
            }
        }
        examples
    }
}

impl ExampleSource for Squares {
    fn examples(&self, masks: bool, _: &mut dyn Progress) -> Result<Examples, ExamplesError> {
        self.asked.set(self.asked.get() + 1);
        let drawn = self.draw();
        Ok(if masks { drawn } else { Examples::labelled(drawn.slices().clone()) })
    }
}

fn run(recipe: &Recipe, rival: &RivalRecipe, source: &dyn ExampleSource, out: &Path) -> Result<Trained, RivalError> {
    let place = RivalPlace { device: Device::Cpu, cache: out, out };
    train(recipe, rival, &place, source, &mut ()).map(|(trained, _)| trained)
}

fn mean_dice(network: &dyn Segmenter, examples: &Examples) -> f64 {
    let all: Vec<usize> = (0..examples.slices().len()).collect();
    let _frozen = tch::no_grad_guard();
    let predicted = network.logits(&examples.inputs(&all).unwrap()).unwrap().argmax(1, false);
    let truth = examples.masks(&all).unwrap().unwrap();
    let sum = |x: Tensor| usize::try_from(x.sum(tch::Kind::Int64).int64_value(&[])).unwrap();
    let bleeding: Vec<usize> = all.iter().copied().filter(|&i| examples.bleeding(&[i])[0]).collect();
    let values = bleeding.iter().map(|&i| {
        let (mask, truth) = (predicted.get(i as i64), truth.get(i as i64).to_kind(tch::Kind::Int64));
        dice(sum(&mask * &truth), sum(mask), sum(truth))
    });
    values.sum::<f64>() / bleeding.len() as f64
}

fn overfits_to_masks(rival: RivalRecipe) {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let (folder, squares) = (tempfile::tempdir().unwrap(), Squares::new(32, 2, 6));
    let rival = RivalRecipe { batch: 4, learning_rate: 5e-3, validation_share: 0.0, augment: STILL, ..rival };
    let Trained::Masks(network) = run(&tiny(), &rival, &squares, folder.path()).unwrap() else {
        panic!("a supervised rival learns from masks")
    };
    let found = mean_dice(network.as_ref(), &squares.draw());
    assert!(found > 0.8, "{found}");
}

#[test]
fn a_unet_overfits_to_squares() {
    overfits_to_masks(RivalRecipe { epochs: 30, ..tiny().rivals[0].clone() });
}

#[test]
fn a_swin_unetr_overfits_to_squares() {
    let rival = tiny().rivals[0].clone();
    overfits_to_masks(RivalRecipe { kind: RivalKind::SwinUnetr, unet: None, epochs: 20, ..rival });
}

#[test]
fn a_resnet_lstm_overfits_to_squares_and_points_at_them() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let (folder, squares) = (tempfile::tempdir().unwrap(), Squares::new(64, 6, 6));
    let recipe = Recipe { model: ichor_model::SwinConfig { img_size: 64, ..tiny().model }, ..tiny() };
    let rival = RivalRecipe {
        epochs: 25,
        learning_rate: 3e-3,
        validation_share: 0.0,
        augment: STILL,
        sequence: 5,
        resnet_lstm: Some(networks::ResNetLstmSizes { width: 8, last_stride: 1, hidden: 16 }),
        ..recipe.rivals[1].clone()
    };
    let Trained::Scans(network) = run(&recipe, &rival, &squares, folder.path()).unwrap() else {
        panic!("a weakly supervised rival learns from scans")
    };
    let examples = squares.draw();
    let all: Vec<usize> = (0..36).collect();
    let (mut right, mut pointed) = (0, Vec::new());
    for scan in examples.scans(&all) {
        let read = network.read(&examples.inputs(&scan).unwrap()).unwrap();
        let masks = examples.masks(&scan).unwrap().unwrap();
        for (at, bleeds) in examples.bleeding(&scan).into_iter().enumerate() {
            right += usize::from((read.logits.double_value(&[at as i64]) > 0.0) == bleeds);
            if bleeds {
                let map = network.activation(&read, at as i64).unwrap();
                let map = map.view([1, 1, 4, 4]).upsample_bilinear2d([64, 64], false, None, None).flatten(0, -1);
                let mask: Vec<f32> = Vec::try_from(&masks.get(at as i64).flatten(0, -1)).unwrap();
                let inside: Vec<bool> = mask.iter().map(|m| *m > 0.0).collect();
                pointed.extend(auc(&Vec::<f32>::try_from(&map).unwrap(), &inside));
            }
        }
    }
    assert!(right as f64 / 36.0 > 0.95, "{right} of 36");
    // The map is coarse (16 pixels a cell), but it is brighter in the square than elsewhere.
    let mean = pointed.iter().sum::<f64>() / pointed.len() as f64;
    assert!(mean > 0.75, "{mean}");
}

#[test]
fn a_training_goes_on_where_it_was_cut_and_is_not_done_twice() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let recipe = tiny();
    for index in [0, 1] {
        let rival = RivalRecipe { epochs: 3, validation_share: 0.25, ..recipe.rivals[index].clone() };
        let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let place = |out| RivalPlace { device: Device::Cpu, cache: out, out };
        let squares = Squares::new(32, 4, 4);
        let (_, straight) = train(&recipe, &rival, &place(whole.path()), &squares, &mut ()).unwrap();
        // Killed in the second epoch: the folder holds the first one.
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            train(&recipe, &rival, &place(parts.path()), &squares, &mut Killer(1))
        }));
        assert!(panicked.is_err());
        let (_, resumed) = train(&recipe, &rival, &place(parts.path()), &squares, &mut ()).unwrap();
        let losses = |history: &[EpochRecord]| -> Vec<(u64, u64)> {
            history.iter().map(|record| (record.training_loss.to_bits(), record.validation_loss.to_bits())).collect()
        };
        assert_eq!(losses(&resumed), losses(&straight), "{}", rival.name());
        let asked = squares.asked.get();
        train(&recipe, &rival, &place(parts.path()), &squares, &mut ()).unwrap();
        assert_eq!(squares.asked.get(), asked, "a training at its end asks for no slices");
        let other = RivalRecipe { learning_rate: 1e-4, ..rival };
        let refused = run(&recipe, &other, &squares, parts.path()).err().unwrap().to_string();
        assert!(refused.contains("another recipe"), "{refused}");
    }
}

/// Panics at the first step of the epoch after so many epochs.
struct Killer(usize);

impl Progress for Killer {
    fn step(&mut self, _: usize, _: usize, _: f64) {
        assert!(self.0 > 0, "killed");
    }

    fn epoch(&mut self, _: &EpochRecord) {
        self.0 -= 1;
    }
}

#[test]
fn every_rival_is_measured_on_the_test_studies() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny();
    let place = RivalPlace { device: Device::Cpu, cache: &folder.path().join("cache"), out: folder.path() };
    let outcomes = measure_all(&recipe, &place, &|_, _| Some(1.5), &mut ()).unwrap();
    assert_eq!(outcomes.iter().map(|outcome| outcome.id.as_str()).collect::<Vec<_>>(), ["unet", "resnet-lstm"]);
    let supervision: Vec<Supervision> = outcomes.iter().map(|outcome| outcome.supervision).collect();
    assert_eq!(supervision, [Supervision::Masks, Supervision::Slices]);
    assert!(outcomes[1].binarisation.starts_with("grid search on the other 1 of 2 folds: 0."));
    for outcome in &outcomes {
        assert_eq!(outcome.studies.len(), 4);
        for (at, slices) in outcome.studies.iter().enumerate() {
            let mix = recipe.test.phantoms.as_ref().unwrap();
            let study = crate::prepared::prepare(30 + at as u64, mix, recipe.input_preset, 32, None).unwrap();
            assert_eq!(slices.len(), study.slices.len());
            for (slice, truth) in slices.iter().zip(&study.slices) {
                assert_eq!(slice.mask.is_some(), slice.called || truth.label.any());
                if let Some(mask) = slice.mask {
                    assert_eq!(mask.truth, truth.mask.iter().filter(|m| **m != 0).count());
                    assert!(mask.intersection <= mask.truth.min(mask.predicted));
                    assert_eq!(mask.hausdorff95_mm, Some(1.5));
                }
            }
        }
    }
    // Another rule needs no other training, and gives other masks of the same scores.
    let mut otsu = recipe.clone();
    otsu.rivals.remove(0);
    otsu.rivals[0].binarisation = Some(Binarisation::Otsu { kernel: 5 });
    let again = measure_all(&otsu, &place, &|_, _| None, &mut Killer(0)).unwrap();
    let scores = |outcome: &MethodOutcome| outcome.studies.iter().flatten().map(|s| s.score).collect::<Vec<f32>>();
    assert_eq!(scores(&again[0]), scores(&outcomes[1]));
    assert_eq!(again[0].binarisation, "Otsu on a Gaussian-blurred (5×5) map");
    let areas = |outcome: &MethodOutcome| {
        outcome.studies.iter().flatten().filter_map(|s| s.mask).map(|m| m.predicted).collect::<Vec<usize>>()
    };
    assert_ne!(areas(&again[0]), areas(&outcomes[1]));
}

/// A source that gives what it is told to.
struct Fixed(Examples);

impl ExampleSource for Fixed {
    fn examples(&self, _: bool, _: &mut dyn Progress) -> Result<Examples, ExamplesError> {
        Ok(self.0.clone())
    }
}

#[test]
fn slices_that_teach_nothing_are_named() {
    let _drawing = crate::draw_alone();
    tch::set_num_threads(1);
    let (folder, recipe) = (tempfile::tempdir().unwrap(), tiny());
    let drawn = Squares::new(32, 4, 4).draw();
    let message = |rival: usize, share: f64, examples: Examples| {
        let rival = RivalRecipe { validation_share: share, ..recipe.rivals[rival].clone() };
        run(&recipe, &rival, &Fixed(examples), folder.path()).err().unwrap().to_string()
    };
    let unmasked = message(0, 0.25, Examples::labelled(drawn.slices().clone()));
    assert!(unmasked.contains("no masks"), "{unmasked}");
    let mut dark = SliceSet::new(32);
    (0..6).for_each(|study| dark.push(&[0.4; 3 * 32 * 32], SliceLabel::NONE, study));
    let mut bleeding = SliceSet::new(32);
    let epidural = SliceLabel::of([HemorrhageSubtype::Epidural]);
    (0..6).for_each(|study| bleeding.push(&[0.4; 3 * 32 * 32], epidural, study));
    assert!(message(1, 0.25, Examples::labelled(dark.clone())).contains("0 of 6 studies bleed"));
    assert!(message(1, 0.0, Examples::labelled(dark)).contains("no positive slice among the 6"));
    assert!(message(1, 0.0, Examples::labelled(bleeding)).contains("no negative slice among the 6"));
    let mut negative = Examples::with_masks(32);
    (0..6).for_each(|study| negative.push(&[0.4; 3 * 32 * 32], SliceLabel::NONE, &[0; 32 * 32], study).unwrap());
    assert!(message(0, 0.0, negative).contains("no positive slice among the 6"));
    let wild = RivalRecipe { learning_rate: 1e30, validation_share: 0.0, ..recipe.rivals[0].clone() };
    let diverged = run(&recipe, &wild, &Fixed(drawn), folder.path()).err().unwrap().to_string();
    assert!(diverged.contains("lower the learning rate"), "{diverged}");
    let place = RivalPlace { device: Device::Cpu, cache: folder.path(), out: folder.path() };
    let mut split = tiny();
    split.rivals[1].binarisation = None;
    let named = measure_all(&split, &place, &|_, _| None, &mut ()).unwrap_err().to_string();
    assert!(named.contains("rival \"resnet-lstm\": binarisation: 4 studies cannot be split into 5 folds"), "{named}");
    let odd = Recipe { model: ichor_model::SwinConfig { img_size: 33, ..tiny().model }, ..tiny() };
    let named = measure_all(&odd, &place, &|_, _| None, &mut ()).unwrap_err().to_string();
    assert!(named.contains("rival \"unet\": input size 33 is not a multiple of 2"), "{named}");
}
