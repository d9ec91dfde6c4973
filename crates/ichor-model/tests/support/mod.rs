//! Shared by the crate's tests.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::path::{Path, PathBuf};

use ichor_core::{Calibration, StudyRule};
use ichor_model::attribution::GradientSite;
use ichor_model::{Expected, InputCard, MapCard, MapKind, ModelCard, Strategy, Swin, SwinConfig, SwinPlan};
use rand::distr::StandardUniform;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// The folder of shared test data, or a printed reason why the test is skipped.
pub(crate) fn data(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ICHOR_TEST_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {} is not there (set ICHOR_TEST_DATA)", path.display());
    None
}

/// Sizes small enough for a test; the last stage is one window.
pub(crate) fn small() -> SwinConfig {
    SwinConfig {
        img_size: 64,
        patch_size: 4,
        window_size: 4,
        embed_dim: 12,
        depths: vec![2, 2, 2],
        num_heads: vec![2, 2, 4],
        num_classes: 2,
        in_chans: 3,
    }
}

/// What the pretended program can do.
pub(crate) fn expected() -> Expected {
    Expected { presets: vec!["physionet".into(), "rsna".into()], preprocessing_version: 1, refine_version: 1 }
}

/// A sound card of a categorical demonstration model.
pub(crate) fn card(sizes: SwinConfig) -> ModelCard {
    ModelCard {
        name: "small".into(),
        version: "1.0.0".into(),
        sizes,
        strategy: Strategy::Categorical,
        input: InputCard { preset: "physionet".into(), preprocessing_version: 1 },
        map: MapCard { kind: MapKind::HgiSam, gradient_site: GradientSite::SoftmaxInput, threshold: 0.3, refine: None },
        slice_threshold: 0.5,
        map_choice: None,
        slice_calibration: Calibration::NONE,
        study_calibration: Calibration::NONE,
        volume: None,
        slice_reach_mm: 0.0,
        study_rule: Some(StudyRule::Strongest { slices: 2, reach_mm: 2.5, threshold: 0.305_1 }),
        min_positive_slices: None,
        training_data: "none: random weights".into(),
        demonstration: true,
        notice: Some("random weights, for tests".into()),
    }
}

/// Seeded numbers of a distribution. Not libtorch's generator: all threads share it, and every network that a test beside
/// this one makes draws from it.
fn drawn(seed: u64, distribution: impl Distribution<f32>, size: &[i64]) -> Tensor {
    let count = usize::try_from(size.iter().product::<i64>()).unwrap();
    let numbers: Vec<f32> = ChaCha8Rng::seed_from_u64(seed).sample_iter(distribution).take(count).collect();
    Tensor::from_slice(&numbers).reshape(size)
}

/// A network with seeded weights, spread wide enough that attention is not uniform.
pub(crate) fn random_swin(config: &SwinConfig, seed: i64) -> (VarStore, Swin) {
    // Tests run side by side already; waiting threads of libtorch would only take the cores from one another.
    tch::set_num_threads(1);
    let store = VarStore::new(Device::Cpu);
    let swin = Swin::new(&store.root(), &SwinPlan::check(config).unwrap());
    let _guard = tch::no_grad_guard();
    let mut variables: Vec<(String, Tensor)> = store.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    for (index, (name, mut variable)) in variables.into_iter().enumerate() {
        let seed = 1000 * seed.unsigned_abs() + index as u64;
        if name.ends_with("weight") && !name.contains("norm") {
            let fan_in = variable.size()[1..].iter().product::<i64>() as f64;
            variable.copy_(&(drawn(seed, StandardNormal, &variable.size()) / fan_in.sqrt()));
        } else if name.ends_with("table") {
            variable.copy_(&(drawn(seed, StandardNormal, &variable.size()) * 0.5));
        }
    }
    (store, swin)
}

/// `[n, 3, S, S]` in 0..1 and brain masks `[n, S, S]`: a disc that grows with the slice.
pub(crate) fn random_input(config: &SwinConfig, n: i64, seed: i64) -> (Tensor, Tensor) {
    let side = config.img_size;
    let input = drawn(seed.unsigned_abs(), StandardUniform, &[n, config.in_chans, side, side]);
    let at = Tensor::arange(side, (Kind::Float, Device::Cpu)) - side as f64 / 2.0;
    let distance = (at.square().unsqueeze(0) + at.square().unsqueeze(1)).sqrt();
    let discs: Vec<Tensor> = (0..n).map(|i| distance.lt((side / 3 + i) as f64).to_kind(Kind::Float)).collect();
    (input, Tensor::stack(&discs, 0))
}

/// Largest absolute difference.
pub(crate) fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}
