//! Weights and manifests that must be refused, and what is saved can be read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use ichor_core::{DeviceChoice, StudyRule};
use ichor_model::attribution::GradientSite;
use ichor_model::{
    Expected, Manifest, ModelCard, ModelRuntime, RuntimeError, RuntimeOptions, Strategy, SwinConfig, save_model,
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{card, expected, random_swin, small};
use tch::Tensor;
use tempfile::TempDir;

fn saved() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.safetensors");
    let (store, _) = random_swin(&small(), 1);
    save_model(&path, &store, card(small())).unwrap();
    (folder, path)
}

/// What loading answers, as the operator sees it.
fn refusal(path: &Path) -> String {
    let options = RuntimeOptions { device: DeviceChoice::Cpu, ..RuntimeOptions::new(path, expected()) };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(ModelRuntime::start(options)).map(drop).unwrap_err().to_string()
}

fn edit_manifest(path: &Path, edit: impl FnOnce(&mut Value)) {
    let file = Manifest::path_for(path);
    let mut manifest: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    edit(&mut manifest);
    fs::write(&file, manifest.to_string()).unwrap();
}

/// Takes a field out of the model's card.
fn forget(manifest: &mut Value, field: &str) {
    manifest["model"].as_object_mut().unwrap().remove(field);
}

/// Rewrites the weight file, digest in the manifest included, so that only the tensors are wrong.
fn edit_tensors(path: &Path, edit: impl FnOnce(&mut Vec<(String, Dtype, Vec<usize>, Vec<u8>)>)) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> = file
        .tensors()
        .into_iter()
        .map(|(name, view)| (name, view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        .collect();
    edit(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, kind, shape, data)| (name.as_str(), TensorView::new(*kind, shape.clone(), data).unwrap()));
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(path, &bytes).unwrap();
    edit_manifest(path, |manifest| manifest["sha256"] = json!(hex::encode(Sha256::digest(&bytes))));
}

#[test]
fn what_is_saved_is_read_back_whole() {
    let (_folder, path) = saved();
    let manifest = Manifest::load(&path, &expected()).unwrap();
    assert_eq!(manifest.model, card(small()));
    assert_eq!(manifest.sha256, hex::encode(Sha256::digest(fs::read(&path).unwrap())));
    assert_eq!(manifest.id().unwrap().as_str(), format!("small@1.0.0+{}", &manifest.sha256[..12]));
    assert_eq!((manifest.self_test.logits.len(), manifest.self_test.probabilities.len()), (4, 2));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2, "nothing partial is left");
    let (store, _) = random_swin(&small(), 1);
    for (name, tensor) in Tensor::read_safetensors(&path).unwrap() {
        assert_eq!(tensor, store.variables()[&name], "{name}");
    }
    let bytes = fs::read(&path).unwrap();
    save_model(&path, &store, card(small())).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes, "the same weights give the same file");
}

#[test]
fn manifests_that_do_not_fit_are_refused() {
    type Edit = fn(&mut Value);
    let cases: &[(Edit, &str)] = &[
        (|m| m["format"] = json!(2), "has format 2, this program reads format 1"),
        (
            |m| m["model"]["input"]["preset"] = json!("mri"),
            "input preset \"mri\" is unknown; known are physionet, rsna",
        ),
        (
            |m| m["model"]["input"]["preprocessing_version"] = json!(7),
            "preprocessing version is 7, this program has 1: the weights must be trained anew",
        ),
        (
            |m| m["model"]["sizes"]["num_classes"] = json!(1),
            "num_classes is 1, but the Categorical strategy has 2 logits",
        ),
        (|m| m["model"]["sizes"]["window_size"] = json!(65), "sizes: window_size is 65, which is not between 1 and 64"),
        (|m| m["model"]["strategy"] = json!("guess"), "unknown variant `guess`"),
        (|m| m["model"]["slice_threshold"] = json!(0.0), "slice_threshold is 0, which is not above 0 and at most 1"),
        (|m| m["model"]["map"]["threshold"] = json!(1.5), "map.threshold is 1.5, which is not above 0"),
        (|m| m["model"]["min_positive_slices"] = json!(2), "exactly one of study_rule and min_positive_slices"),
        (|m| forget(m, "study_rule"), "exactly one of study_rule and min_positive_slices"),
        (
            |m| {
                forget(m, "study_rule");
                m["model"]["min_positive_slices"] = json!(0);
            },
            "min_positive_slices is 0",
        ),
        (|m| m["model"]["study_rule"]["slices"] = json!(0), "study_rule cannot be meant"),
        (|m| m["model"]["study_rule"]["reach_mm"] = json!(-1.0), "study_rule cannot be meant"),
        (|m| m["model"]["study_rule"]["kind"] = json!("oracle"), "unknown variant `oracle`"),
        (|m| m["model"]["slice_reach_mm"] = json!(-1.0), "slice_reach_mm is -1"),
        (
            |m| m["model"]["slice_calibration"] = json!({ "slope": -1.0, "offset": 0.0 }),
            "slice_calibration cannot be meant",
        ),
        (|m| m["model"]["volume"] = json!({ "floor_ml": 0.0, "share": 0.2 }), "volume cannot be meant"),
        (
            |m| m["model"]["map"]["refine"] = json!({ "version": 9, "support": 0.1, "floor": 0.1, "contrast_hu": 9.0 }),
            "refinement version is 9, this program has 1",
        ),
        (
            |m| m["model"]["map"]["refine"] = json!({ "version": 1, "support": 2.0, "floor": 0.1, "contrast_hu": 9.0 }),
            "map.refine cannot be meant",
        ),
        (|m| m["model"]["notice"] = Value::Null, "a demonstration model carries no notice"),
        (|m| m["model"]["name"] = json!("a b"), "names no model"),
        (|m| m["model"]["learning_rate"] = json!(1), "unknown field `learning_rate`"),
        (|m| m["sha256"] = json!("beef"), "sha256 \"beef\" is not 64 hexadecimal digits"),
        (|m| m["sha256"] = json!("0".repeat(64)), "the manifest says 0000"),
        (|m| m["self_test"]["logits"] = json!([1.0]), "self_test holds 1 logits, 4 are needed"),
        (|m| *m = json!([]), "cannot be understood"),
    ];
    for (edit, want) in cases {
        let (_folder, path) = saved();
        edit_manifest(&path, edit);
        let got = refusal(&path);
        assert!(got.contains(want), "wanted {want:?}, got {got:?}");
        assert!(got.contains("small."), "names the file: {got:?}");
    }
    let (_folder, path) = saved();
    fs::remove_file(Manifest::path_for(&path)).unwrap();
    assert!(refusal(&path).contains("cannot be read"), "weights without a manifest");
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    type Edit = fn(&mut Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);
    const HEAD: &str = "head.weight";
    let cases: &[(Edit, &str)] = &[
        (|t| t.retain(|t| t.0 != HEAD), "head.weight [2, 48] is missing"),
        (
            |t| t.push(("tail".into(), Dtype::F32, vec![1], vec![0; 4])),
            "tail [1] has no place in a model of these sizes",
        ),
        (
            |t| t.iter_mut().filter(|t| t.0 == HEAD).for_each(|t| t.2 = vec![48, 2]),
            "head.weight is [48, 2], the model wants [2, 48]",
        ),
        (
            |t| t.iter_mut().filter(|t| t.0 == HEAD).for_each(|t| t.3[..4].copy_from_slice(&f32::NAN.to_le_bytes())),
            "head.weight holds values that are not finite",
        ),
        (
            |t| t.iter_mut().filter(|t| t.0 == HEAD).for_each(|t| t.1 = Dtype::I32),
            "head.weight is I32, only F32, F64, F16 and BF16 are read",
        ),
    ];
    for (edit, want) in cases {
        let (_folder, path) = saved();
        edit_tensors(&path, edit);
        let got = refusal(&path);
        assert!(got.ends_with(want), "wanted {want:?}, got {got:?}");
    }
    let (_folder, path) = saved();
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert!(refusal(&path).contains("sha256 is"), "one flipped bit");
    let digest = hex::encode(Sha256::digest(&bytes[..100]));
    fs::write(&path, &bytes[..100]).unwrap();
    edit_manifest(&path, |manifest| manifest["sha256"] = json!(digest));
    assert!(refusal(&path).contains("cannot be understood as safetensors"));
    fs::remove_file(&path).unwrap();
    assert!(refusal(&path).contains("cannot be read"));
}

#[test]
fn unsound_models_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.safetensors");
    let (store, _) = random_swin(&small(), 1);
    let refused = |card: ModelCard| save_model(&path, &store, card).unwrap_err().to_string();
    assert!(refused(ModelCard { strategy: Strategy::Binary, ..card(small()) }).contains("num_classes is 2"));
    assert!(refused(ModelCard { name: "a/b".into(), ..card(small()) }).contains("names no model"));
    let wider = SwinConfig { embed_dim: 24, ..small() };
    assert!(refused(card(wider)).contains("the model wants"), "variables of another network");
    let _bias = store.variables()["head.bias"].data().fill_(f64::NAN);
    assert!(refused(card(small())).contains("head.bias holds values that are not finite"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written");
}

/// Manifests made before there were rules say how many neighbouring slices make a study positive.
#[test]
fn older_manifests_keep_their_meaning() {
    let (_folder, path) = saved();
    edit_manifest(&path, |m| {
        forget(m, "study_rule");
        m["model"]["min_positive_slices"] = json!(3);
    });
    let card = Manifest::load(&path, &expected()).unwrap().model;
    assert_eq!(card.study_rule(), StudyRule::Neighbours { slices: 3, threshold: card.slice_threshold });
}

#[test]
fn the_manifest_is_as_documented() {
    let (_folder, path) = saved();
    let manifest: Value = serde_json::from_slice(&fs::read(Manifest::path_for(&path)).unwrap()).unwrap();
    assert_eq!(manifest["model"]["strategy"], "categorical");
    assert_eq!(manifest["model"]["map"]["kind"], "hgi-sam");
    assert_eq!(manifest["model"]["map"]["gradient_site"], "softmax-input");
    assert_eq!(manifest["model"]["sizes"]["img_size"], 64);
    edit_manifest(&path, |m| {
        m["model"]["map"].as_object_mut().unwrap().remove("gradient_site");
    });
    let manifest = Manifest::load(&path, &expected()).unwrap();
    assert_eq!(manifest.model.map.gradient_site, GradientSite::SoftmaxInput, "the default");
    let unknown = Expected { presets: vec![], ..expected() };
    let error = RuntimeError::from(Manifest::load(&path, &unknown).unwrap_err());
    assert!(error.to_string().contains("\"physionet\" is unknown"), "{error}");
}
