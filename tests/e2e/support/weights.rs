//! Further weights, made of the demonstration weights.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::daemon::repository;

/// The demonstration weights under another name, with another manifest; how `ichor` names them.
pub(crate) fn renamed(folder: &Path, name: &str, change: impl FnOnce(&mut Value)) -> (PathBuf, String) {
    write(folder, name, &std::fs::read(repository("models/demo/demo.safetensors")).unwrap(), change)
}

/// The demonstration weights with each value of the last quarter a little larger: other weights than the self-test was made
/// with, under a digest of their own.
pub(crate) fn perturbed(folder: &Path, name: &str) -> (PathBuf, String) {
    let mut bytes = std::fs::read(repository("models/demo/demo.safetensors")).unwrap();
    let from = bytes.len() / 4 * 3;
    let aligned = from - (from % 4);
    for value in bytes[aligned..].chunks_exact_mut(4) {
        let number = f32::from_le_bytes([value[0], value[1], value[2], value[3]]);
        value.copy_from_slice(&(number * 1.2).to_le_bytes());
    }
    write(folder, name, &bytes, |_| {})
}

fn write(folder: &Path, name: &str, bytes: &[u8], change: impl FnOnce(&mut Value)) -> (PathBuf, String) {
    let manifest = std::fs::read(repository("models/demo/demo.manifest.json")).unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let digest = hex::encode(Sha256::digest(bytes));
    manifest["model"]["name"] = name.into();
    manifest["sha256"] = digest.clone().into();
    change(&mut manifest);
    let weights = folder.join(format!("{name}.safetensors"));
    std::fs::write(&weights, bytes).unwrap();
    std::fs::write(folder.join(format!("{name}.manifest.json")), serde_json::to_vec(&manifest).unwrap()).unwrap();
    let id = format!("{name}@{}+{}", manifest["model"]["version"].as_str().unwrap(), &digest[..12]);
    (weights, id)
}
