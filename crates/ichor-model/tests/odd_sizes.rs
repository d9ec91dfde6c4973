//! Odd Swin sizes against values of timm with hooks, made by `tests/reference/make.py`: the whole way from files to files,
//! as `ichor model maps` goes it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ichor_model::{FilesError, maps_from_files};
use support::difference;
use tch::{Kind, Tensor};

const NAMES: [&str; 6] = ["odd-depths", "large-window", "one-stage", "odd-heads", "padded", "four-stages"];

type Tensors = HashMap<String, Tensor>;

fn reference(name: &str) -> (PathBuf, Tensors) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    (folder.join(format!("{name}.json")), read(&folder.join(format!("{name}.safetensors"))))
}

fn read(path: &Path) -> Tensors {
    Tensor::read_safetensors(path).unwrap().into_iter().collect()
}

/// Weights and input as files of their own.
fn write(tensors: &Tensors, folder: &Path) -> (PathBuf, PathBuf) {
    let (weights, input) = (folder.join("weights.safetensors"), folder.join("input.safetensors"));
    let named: Vec<(&str, &Tensor)> =
        tensors.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("weight.")?, tensor))).collect();
    Tensor::write_safetensors(&named, &weights).unwrap();
    Tensor::write_safetensors(&[("input", &tensors["input"]), ("brain_mask", &tensors["brain_mask"])], &input).unwrap();
    (weights, input)
}

fn maps(config: &Path, tensors: &Tensors) -> Result<Tensors, FilesError> {
    let folder = tempfile::tempdir().unwrap();
    let (weights, input) = write(tensors, folder.path());
    let output = folder.path().join("output.safetensors");
    maps_from_files(config, &weights, &input, &output)?;
    Ok(read(&output))
}

#[test]
fn logits_maps_and_mask_are_the_references() {
    for name in NAMES {
        let (config, want) = reference(name);
        let got = maps(&config, &want).unwrap();
        for (part, tolerance) in [
            ("logits", 1e-4),
            ("hgi_map", 1e-3),
            ("hgi_layer_maps", 1e-3),
            ("swin_sam_map", 1e-3),
            ("swin_sam_layer_maps", 1e-3),
            ("grad_cam_map", 1e-3),
        ] {
            assert_eq!(got[part].size(), want[part].size(), "{name}: {part}");
            let off = difference(&got[part], &want[part]);
            println!("{name}: {part} off by {off:.1e}");
            assert!(off <= tolerance, "{name}: {part} is off by {off}");
        }
        let unequal = got["hgi_map"].ge(0.05).ne_tensor(&want["hgi_map"].ge(0.05)).sum(Kind::Int64).int64_value(&[]);
        let pixels = want["hgi_map"].numel();
        assert!(unequal * 1000 <= pixels as i64, "{name}: {unequal} of {pixels} pixels of the mask differ");
    }
}

#[test]
fn a_weight_that_is_not_finite_is_named() {
    for value in [f64::NAN, f64::INFINITY] {
        let (config, mut tensors) = reference("padded");
        let name = "weight.swin.layers.1.blocks.0.mlp.fc1.weight".to_owned();
        let spoilt = tensors[&name].copy();
        let _in_place = spoilt.get(3).get(1).fill_(value);
        tensors.insert(name, spoilt);
        let error = maps(&config, &tensors).unwrap_err().to_string();
        let said = "swin.layers.1.blocks.0.mlp.fc1.weight holds values that are not finite";
        assert!(error.ends_with(said), "{error}");
    }
}

#[test]
fn a_class_count_without_a_strategy_and_weights_of_another_count_are_named() {
    let (config, tensors) = reference("padded");
    let text = std::fs::read_to_string(&config).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.json");
    std::fs::write(&other, text.replace("\"num_classes\": 2", "\"num_classes\": 3")).unwrap();
    let error = maps(&other, &tensors).unwrap_err().to_string();
    assert_eq!(error, "no learning strategy has 3 logits; known are 1, 2 and 6");
    std::fs::write(&other, text.replace("\"num_classes\": 2", "\"num_classes\": 6")).unwrap();
    let error = maps(&other, &tensors).unwrap_err().to_string();
    assert!(error.contains("head.weight is [2, 12], the model wants [6, 12]"), "{error}");
}
