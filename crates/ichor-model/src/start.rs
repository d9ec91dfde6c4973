//! Weights that a training starts from: a backbone that must fit, and a head that need not.

use std::path::Path;

use tch::nn::VarStore;

use crate::checkpoint::Checkpoint;
use crate::weights::{TensorProblem, Weights, WeightsError, WeightsProblem};

/// What became of the head when weights were taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartHead {
    /// It is the file's.
    Taken,
    /// The file has none, or one of another size; the network keeps its own.
    Kept {
        /// Why, with both shapes.
        why: String,
    },
}

/// Fills a network's variables from a file, safetensors or a PyTorch state dict, under timm's names or the reference's. All
/// but the head must fit.
///
/// # Errors
/// [`WeightsError`] names every tensor of the backbone that is missing, has no place or another shape, and values that are not
/// finite. Then no variable has changed.
pub fn start_from(path: &Path, store: &VarStore) -> Result<StartHead, WeightsError> {
    let weights = Weights::read(path)?;
    fill(path, weights.bytes(), store).map_err(|problem| WeightsError { path: path.to_owned(), problem })
}

fn fill(path: &Path, bytes: &[u8], store: &VarStore) -> Result<StartHead, WeightsProblem> {
    let mut found = Checkpoint::read(path, bytes)?.tensors;
    let variables = store.variables();
    let mut names: Vec<&String> = variables.keys().collect();
    names.sort();
    let (mut problems, mut head) = (Vec::new(), StartHead::Taken);
    for name in &names {
        let (want, name) = (variables[*name].size(), (*name).clone());
        let problem = match found.get(&name).map(|entry| entry.size.clone()) {
            None => TensorProblem::Missing { name: name.clone(), want },
            Some(got) if got != want => TensorProblem::Shape { name: name.clone(), got, want },
            Some(_) => continue,
        };
        if !is_head(&name) {
            problems.push(problem);
        } else if head == StartHead::Taken {
            head = StartHead::Kept { why: problem.to_string() };
        }
    }
    let extra = found.iter().filter(|(name, _)| !variables.contains_key(*name) && !is_head(name));
    problems.extend(extra.map(|(name, entry)| TensorProblem::Extra { name: name.clone(), got: entry.size.clone() }));
    if !problems.is_empty() {
        return Err(WeightsProblem::Mismatch(problems));
    }
    let mut taken = Vec::new();
    for name in names.into_iter().filter(|name| head == StartHead::Taken || !is_head(name)) {
        let Some(entry) = found.remove(name) else { continue };
        let tensor = entry.tensor.map_err(|kind| WeightsProblem::Kind { name: name.clone(), kind })?;
        let finite = tensor.f_isfinite().and_then(|finite| finite.f_all()?.f_int64_value(&[]));
        if finite.map_err(WeightsProblem::Torch)? == 0 {
            return Err(WeightsProblem::NotFinite(name.clone()));
        }
        taken.push((variables[name].shallow_clone(), tensor));
    }
    let _guard = tch::no_grad_guard();
    for (mut variable, tensor) in taken {
        variable.f_copy_(&tensor).map_err(WeightsProblem::Torch)?;
    }
    Ok(head)
}

fn is_head(name: &str) -> bool {
    name.starts_with("head.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Swin, SwinConfig, SwinPlan};
    use tch::{Device, Tensor};

    fn network(classes: i64) -> VarStore {
        let config = SwinConfig {
            img_size: 32,
            patch_size: 4,
            window_size: 4,
            embed_dim: 8,
            depths: vec![2, 2],
            num_heads: vec![2, 4],
            num_classes: classes,
            in_chans: 3,
        };
        let store = VarStore::new(Device::Cpu);
        let _swin = Swin::new(&store.root(), &SwinPlan::check(&config).unwrap());
        store
    }

    /// The network's variables as a file with plain timm names.
    fn write(store: &VarStore, path: &Path, change: impl Fn(&mut Vec<(String, Tensor)>)) {
        let plain = |name: String| name.replacen("head.", "head.fc.", 1).trim_start_matches("swin.").to_owned();
        let mut named: Vec<_> = store.variables().into_iter().map(|(name, t)| (plain(name), t.detach())).collect();
        change(&mut named);
        Tensor::write_safetensors(&named, path).unwrap();
    }

    #[test]
    fn a_head_of_other_size_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let (from, same, other) = (network(2), network(2), network(6));
        write(&from, &path, |_| ());
        assert_eq!(start_from(&path, &same).unwrap(), StartHead::Taken);
        for (name, variable) in same.variables() {
            assert!(variable.equal(&from.variables()[&name]), "{name}");
        }
        let before = other.variables()["head.weight"].copy();
        let StartHead::Kept { why } = start_from(&path, &other).unwrap() else { panic!("the head has another size") };
        assert!(why.contains('2') && why.contains('6'), "{why}");
        assert!(other.variables()["head.weight"].equal(&before));
        let name = "swin.layers.0.blocks.0.attn.qkv.weight";
        assert!(other.variables()[name].equal(&from.variables()[name]));
    }

    #[test]
    fn a_backbone_that_does_not_fit_is_refused_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let (from, to) = (network(2), network(2));
        let before = to.variables()["swin.norm.weight"].copy();
        write(&from, &path, |named| {
            named.retain(|(name, _)| name != "norm.bias");
            named.push(("surplus".to_owned(), Tensor::from_slice(&[1.0f32])));
        });
        let error = start_from(&path, &to).unwrap_err().to_string();
        assert!(error.contains("swin.norm.bias") && error.contains("surplus"), "{error}");
        write(&from, &path, |named| {
            let norm = named.iter_mut().find(|(name, _)| name == "norm.bias").unwrap();
            norm.1 = norm.1.full_like(f64::NAN);
        });
        assert!(start_from(&path, &to).unwrap_err().to_string().contains("finite"));
        assert!(to.variables()["swin.norm.weight"].equal(&before));
    }
}
