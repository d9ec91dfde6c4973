//! The model's thread, from outside.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use ichor_core::DeviceChoice;
use ichor_model::attribution::{CamTarget, GradientSite, HgiOptions, RollBack, grad_cam, hgi_sam, swin_sam};
use ichor_model::{
    Expected, Manifest, MapCard, MapKind, ModelCard, ModelRuntime, RuntimeError, RuntimeOptions, Strategy, Swin,
    SwinConfig, maps_from_files, save_model,
};
use support::{card, data, difference, expected, random_input, random_swin, small};
use tch::nn::VarStore;
use tch::{Kind, Tensor};
use tempfile::TempDir;

fn options(path: &Path) -> RuntimeOptions {
    RuntimeOptions { device: DeviceChoice::Cpu, batch: 2, threads: 2, ..RuntimeOptions::new(path, expected()) }
}

/// Two copies, jobs of up to two slices.
async fn start(card: ModelCard) -> (TempDir, VarStore, Swin, ModelRuntime) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.safetensors");
    let (store, swin) = random_swin(&card.sizes, 4);
    save_model(&path, &store, card).unwrap();
    let runtime = ModelRuntime::start(options(&path)).await.unwrap();
    (folder, store, swin, runtime)
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten(0, -1).try_into().unwrap()
}

fn bytes(tensor: &Tensor) -> Vec<u8> {
    tensor.to_kind(Kind::Uint8).flatten(0, -1).try_into().unwrap()
}

fn assert_close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() < 1e-4, "value {at}: {got} instead of {want}");
    }
}

#[tokio::test]
async fn answers_are_the_networks() {
    let (_folder, _store, swin, runtime) = start(card(small())).await;
    let (input, brain) = random_input(&small(), 5, 2);
    let want = Strategy::Categorical.probability(&swin.forward(&input));
    assert_close(&runtime.classify(flat(&input), 5).await.unwrap(), &flat(&want));
    let want = hgi_sam(&swin, &input, &brain, 1, HgiOptions::default()).unwrap().map;
    let maps = runtime.maps(flat(&input), bytes(&brain), 5).await.unwrap();
    assert_eq!(maps.len(), 5);
    assert_close(&maps.concat(), &flat(&want));
    let masks = runtime.masks(flat(&input), bytes(&brain), 5).await.unwrap().concat();
    for (mask, value) in masks.iter().zip(maps.concat()) {
        assert_eq!(*mask == 1, value >= 0.3);
    }
    assert_eq!((runtime.device().as_str(), runtime.input_size(), runtime.batch()), ("cpu", 64, 2));
    assert_eq!(runtime.model_id().name(), "small");
    assert!(runtime.classify(Vec::new(), 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn every_strategy_and_kind_of_map() {
    for (strategy, kind) in [(Strategy::Binary, MapKind::SwinSam), (Strategy::Multilabel, MapKind::GradCam)] {
        let sizes = SwinConfig { num_classes: strategy.classes(), ..small() };
        let map = MapCard { kind, gradient_site: GradientSite::SoftmaxOutput, threshold: 0.5, refine: None };
        let (_folder, _store, swin, runtime) = start(ModelCard { strategy, map, ..card(sizes.clone()) }).await;
        let (input, brain) = random_input(&sizes, 3, 2);
        let want = strategy.probability(&swin.forward(&input));
        assert_close(&runtime.classify(flat(&input), 3).await.unwrap(), &flat(&want));
        let want = match kind {
            MapKind::SwinSam => swin_sam(&swin, &input, &brain, RollBack::AsShifted).unwrap().map,
            _ => grad_cam(&swin, &input, &brain, CamTarget::Logit(strategy.positive_logit())).unwrap().map,
        };
        assert_close(&runtime.maps(flat(&input), bytes(&brain), 3).await.unwrap().concat(), &flat(&want));
        runtime.verify().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_get_their_own_answers() {
    let (_folder, _store, swin, runtime) = start(card(small())).await;
    let mut callers = Vec::new();
    for seed in 0..20 {
        let (input, _) = random_input(&small(), 1, seed);
        let want = flat(&Strategy::Categorical.probability(&swin.forward(&input)));
        let runtime = runtime.clone();
        callers.push(tokio::spawn(async move {
            assert_close(&runtime.classify(flat(&input), 1).await.unwrap(), &want);
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn bad_requests_are_errors_and_the_thread_lives_on() {
    let (_folder, _store, _swin, runtime) = start(card(small())).await;
    let each = 3 * 64 * 64;
    let error = runtime.classify(vec![0.0; each], 2).await.unwrap_err();
    assert_eq!(error.to_string(), format!("input of 2 slices holds {each} values, {} are needed", 2 * each));
    let error = runtime.maps(vec![0.0; each], vec![1; 7], 1).await.unwrap_err();
    assert!(error.to_string().starts_with("brain mask of 1 slices holds 7 values"), "{error}");
    let mut input = vec![0.5; 3 * each];
    input[each * 2 + 5] = f32::NAN;
    let error = runtime.classify(input.clone(), 3).await.unwrap_err();
    assert!(matches!(error, RuntimeError::NotFinite { what: "probability", slice: 2 }), "{error}");
    let error = runtime.maps(input, vec![1; 3 * 64 * 64], 3).await.unwrap_err();
    assert!(matches!(error, RuntimeError::NotFinite { what: "map", slice: 2 }), "{error}");
    assert_eq!(runtime.classify(vec![0.5; each], 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn abandoned_work_does_not_hold_up_the_next() {
    let (_folder, _store, _swin, runtime) = start(card(small())).await;
    let each = 3 * 64 * 64;
    let long = runtime.classify(vec![0.5; 4000 * each], 4000);
    assert!(tokio::time::timeout(Duration::from_millis(50), long).await.is_err(), "not finished, and dropped");
    let next = tokio::time::timeout(Duration::from_secs(20), runtime.classify(vec![0.5; each], 1)).await;
    assert_eq!(next.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn the_self_test_finds_weights_that_say_something_else() {
    let (folder, _store, _swin, runtime) = start(card(small())).await;
    let report = runtime.verify().await.unwrap();
    assert_eq!(report.device, "cpu");
    assert!(report.logit_difference <= 1e-5 && report.probability_difference <= 1e-5, "{report:?}");
    let path = folder.path().join("small.safetensors");
    let mut manifest = Manifest::read(&path).unwrap();
    manifest.self_test.probabilities[1] += 0.01;
    fs::write(Manifest::path_for(&path), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let changed = ModelRuntime::start(options(&path)).await.unwrap();
    let error = changed.verify().await.unwrap_err();
    assert!(error.to_string().contains("probabilities by 1.00e-2"), "{error}");
}

#[test]
fn golden_maps_from_files() {
    let Some(golden) = data("golden") else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("maps.safetensors");
    let expected = golden.join("mini.expected.safetensors");
    let (config, weights) = (golden.join("mini.config.json"), golden.join("mini.weights.safetensors"));
    maps_from_files(&config, &weights, &expected, &output).unwrap();
    let got: HashMap<String, Tensor> = Tensor::read_safetensors(&output).unwrap().into_iter().collect();
    let want: HashMap<String, Tensor> = Tensor::read_safetensors(&expected).unwrap().into_iter().collect();
    assert_eq!(got.len(), 6);
    for (name, tensor) in &got {
        let tolerance = if name == "logits" { 1e-4 } else { 1e-3 };
        let off = difference(tensor, &want[name]);
        assert!(off <= tolerance, "{name} is off by {off}");
    }
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = || maps_from_files(&at("config.json"), &at("weights"), &at("input"), &at("output"));
    assert!(run().unwrap_err().to_string().contains("config.json cannot be read"));
    fs::write(at("config.json"), serde_json::to_vec(&small()).unwrap()).unwrap();
    let (store, _) = random_swin(&small(), 1);
    store.save(at("weights.safetensors")).unwrap();
    fs::rename(at("weights.safetensors"), at("weights")).unwrap();
    let (input, brain) = random_input(&small(), 2, 1);
    Tensor::write_safetensors(&[("input", &input)], at("input")).unwrap();
    assert!(run().unwrap_err().to_string().ends_with("holds no tensor \"brain_mask\""));
    Tensor::write_safetensors(&[("input", &input), ("brain_mask", &brain.narrow(2, 0, 32).contiguous())], at("input"))
        .unwrap();
    assert!(run().unwrap_err().to_string().starts_with("brain mask is [1, 64, 32]"));
    Tensor::write_safetensors(&[("input", &input), ("brain_mask", &brain)], at("input")).unwrap();
    run().unwrap();
    let got: HashMap<String, Tensor> = Tensor::read_safetensors(at("output")).unwrap().into_iter().collect();
    assert_eq!(got["swin_sam_layer_maps"].size(), [2, 3, 64, 64]);
    let bad = SwinConfig { num_classes: 3, ..small() };
    fs::write(at("config.json"), serde_json::to_vec(&bad).unwrap()).unwrap();
    assert!(run().unwrap_err().to_string().starts_with("no learning strategy has 3 logits"));
}

#[tokio::test]
async fn the_shipped_weights_pass_their_self_test() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/demo.safetensors");
    let manifest = Manifest::read(&path).unwrap();
    assert!(manifest.model.demonstration && manifest.model.notice.is_some());
    let presets = vec![manifest.model.input.preset.clone()];
    let of_the_weights =
        Expected { presets, preprocessing_version: manifest.model.input.preprocessing_version, refine_version: 1 };
    let options = RuntimeOptions { expected: of_the_weights, ..options(&path) };
    let report = ModelRuntime::start(options).await.unwrap().verify().await.unwrap();
    println!("{report:?}");
    assert!(path.metadata().unwrap().len() < 30 << 20, "small enough to ship");
}
