//! Checkpoints: tensors by name, from safetensors or from a PyTorch state dict (`.pth`), under timm's names as the reference
//! implementation has them (`swin.` before the backbone, `head.` for the classifier).
//!
//! A `.pth` file is a zip archive with a pickle, which can hold any program. It is read by candle's reader, which knows the
//! few shapes that a state dict has and executes nothing.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use candle_core::pickle::PthTensors;
use safetensors::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use crate::weights::WeightsProblem;

/// Where a training script may have put the state dict.
const KEYS: [&str; 5] = ["state_dict", "model", "model_state_dict", "module", "net"];

/// What wrappers put before every name.
const WRAPPERS: [&str; 3] = ["module.", "model.", "_orig_mod."];

/// What timm keeps beside the weights and computes anew.
const COMPUTED: [&str; 2] = [".relative_position_index", ".attn_mask"];

/// The tensors of a checkpoint, under the names of [`crate::Swin`].
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) tensors: BTreeMap<String, Entry>,
}

/// One tensor of a checkpoint.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) size: Vec<i64>,
    /// As float32; or of what kind it is, if not of floating point.
    pub(crate) tensor: Result<Tensor, String>,
}

impl Checkpoint {
    /// Reads a file; `bytes` is its content.
    pub(crate) fn read(path: &Path, bytes: &[u8]) -> Result<Self, WeightsProblem> {
        let tensors = if bytes.starts_with(b"PK\x03\x04") {
            from_pickle(path, bytes.len())?
        } else if bytes.starts_with(&[0x80, 0x02, 0x8A, 0x0A]) {
            return Err(WeightsProblem::Pickle(
                "a pickle without archive, as torch before 1.6 wrote it; load and save it again with a newer one"
                    .into(),
            ));
        } else {
            from_safetensors(bytes)?
        };
        Ok(Self { tensors: renamed(tensors)? })
    }
}

fn from_safetensors(bytes: &[u8]) -> Result<BTreeMap<String, Entry>, WeightsProblem> {
    let file = SafeTensors::deserialize(bytes).map_err(WeightsProblem::Parse)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if is_computed(&name) {
            continue;
        }
        let size = view.shape().iter().map(|&side| side as i64).collect::<Vec<_>>();
        let kind = match view.dtype() {
            Dtype::F32 => Ok(Kind::Float),
            Dtype::F64 => Ok(Kind::Double),
            Dtype::F16 => Ok(Kind::Half),
            Dtype::BF16 => Ok(Kind::BFloat16),
            kind => Err(format!("{kind:?}")),
        };
        let read = |kind| Tensor::f_from_data_size(view.data(), &size, kind)?.f_to_kind(Kind::Float);
        let tensor = match kind {
            Ok(kind) => Ok(read(kind).map_err(WeightsProblem::Torch)?),
            Err(kind) => Err(kind),
        };
        tensors.insert(name, Entry { size, tensor });
    }
    Ok(tensors)
}

fn from_pickle(path: &Path, length: usize) -> Result<BTreeMap<String, Entry>, WeightsProblem> {
    let fault = |error: String| WeightsProblem::Pickle(error.lines().next().unwrap_or_default().to_owned());
    // A reader that panics over what somebody made up must not take the process along.
    let guarded = std::panic::catch_unwind(AssertUnwindSafe(|| read_pickle(path, length)));
    guarded.map_err(|_| fault("the reader of pickles gave up".to_owned()))?
}

fn read_pickle(path: &Path, length: usize) -> Result<BTreeMap<String, Entry>, WeightsProblem> {
    let fault = |error: candle_core::Error| {
        WeightsProblem::Pickle(error.to_string().lines().next().unwrap_or_default().to_owned())
    };
    let mut file = PthTensors::new(path, None).map_err(fault)?;
    for key in KEYS {
        if !file.tensor_infos().is_empty() {
            break;
        }
        // A key that is not there is no fault: the next may be.
        if let Ok(inner) = PthTensors::new(path, Some(key)) {
            file = inner;
        }
    }
    if file.tensor_infos().is_empty() {
        return Err(WeightsProblem::Pickle("it holds no state dict, at its top or under a usual key".to_owned()));
    }
    let mut tensors = BTreeMap::new();
    // In order, so that the first fault is always the same.
    let in_order: BTreeMap<_, _> = file.tensor_infos().iter().collect();
    for (name, info) in in_order.into_iter().filter(|(name, _)| !is_computed(name)) {
        let size: Vec<i64> = info.layout.dims().iter().map(|&side| side as i64).collect();
        if !info.dtype.is_float() {
            tensors.insert(name.clone(), Entry { size, tensor: Err(format!("{:?}", info.dtype)) });
            continue;
        }
        if info.layout.start_offset() != 0 {
            let why = format!("{name} is a part of a larger storage; save clones of the tensors");
            return Err(WeightsProblem::Pickle(why));
        }
        // Nothing is allocated from a size that the file only claims: storages lie in it uncompressed.
        let mut sides = info.layout.dims().iter();
        let needed = sides.try_fold(info.dtype.size_in_bytes(), |bytes, side| bytes.checked_mul(*side));
        if needed.is_none_or(|needed| needed > length) {
            let why = format!("{name} {size:?} is larger than the whole file");
            return Err(WeightsProblem::Pickle(why));
        }
        let Some(tensor) = file.get(name).map_err(fault)? else { continue };
        let values = tensor.to_dtype(candle_core::DType::F32).and_then(|tensor| tensor.flatten_all()?.to_vec1::<f32>());
        let tensor = Tensor::f_from_slice(&values.map_err(fault)?).and_then(|tensor| tensor.f_reshape(&size));
        let tensor = Ok(tensor.map_err(WeightsProblem::Torch)?);
        tensors.insert(name.clone(), Entry { size, tensor });
    }
    Ok(tensors)
}

fn is_computed(name: &str) -> bool {
    COMPUTED.iter().any(|end| name.ends_with(end))
}

/// Brings the names of other forms to ours: without what a wrapper put before all of them; of a plain timm network, whose
/// classifier is `head.fc`, or `head` before timm 0.9; of those whose patch merging stands at the end of a stage, as before
/// timm 0.9 and in the files of Swin's authors.
fn renamed(mut tensors: BTreeMap<String, Entry>) -> Result<BTreeMap<String, Entry>, WeightsProblem> {
    while let Some(wrapper) = WRAPPERS.iter().find(|wrapper| tensors.keys().all(|name| name.starts_with(**wrapper))) {
        if tensors.is_empty() {
            break;
        }
        tensors = tensors.into_iter().map(|(name, tensor)| (name[wrapper.len()..].to_owned(), tensor)).collect();
    }
    let is_plain = !tensors.keys().any(|name| name.starts_with("swin."));
    let backbone = |name: &str| match name {
        name if !is_plain => name.to_owned(),
        name if name.starts_with("head.") => name.replacen("head.fc.", "head.", 1),
        name => format!("swin.{name}"),
    };
    let merges_at_end = tensors.keys().any(|name| backbone(name).starts_with("swin.layers.0.downsample."));
    let mut named = BTreeMap::new();
    for (old, tensor) in tensors {
        let mut name = backbone(&old);
        if merges_at_end && let Some(moved) = later_downsample(&name) {
            name = moved;
        }
        if named.insert(name.clone(), tensor).is_some() {
            return Err(WeightsProblem::Twice { name: old, ours: name });
        }
    }
    Ok(named)
}

/// `swin.layers.N.downsample.…` as of the stage after it.
fn later_downsample(name: &str) -> Option<String> {
    let (stage, rest) = name.strip_prefix("swin.layers.")?.split_once('.')?;
    if !rest.starts_with("downsample.") {
        return None;
    }
    Some(format!("swin.layers.{}.{rest}", stage.parse::<usize>().ok()? + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Result<Vec<String>, WeightsProblem> {
        let entry = || Entry { size: Vec::new(), tensor: Ok(Tensor::from(1.0f32)) };
        let tensors = names.iter().map(|name| ((*name).to_owned(), entry())).collect();
        renamed(tensors).map(|tensors| tensors.into_keys().collect())
    }

    #[test]
    fn names_of_other_forms_become_ours() {
        let ours = [
            "head.bias",
            "swin.layers.0.blocks.0.norm1.weight",
            "swin.layers.1.downsample.norm.bias",
            "swin.norm.bias",
        ];
        assert_eq!(names(&ours).unwrap(), ours);
        let timm = ["head.fc.bias", "layers.0.blocks.0.norm1.weight", "layers.1.downsample.norm.bias", "norm.bias"];
        assert_eq!(names(&timm).unwrap(), ours);
        let authors = ["head.bias", "layers.0.blocks.0.norm1.weight", "layers.0.downsample.norm.bias", "norm.bias"];
        assert_eq!(names(&authors).unwrap(), ours);
        let wrapped: Vec<String> = timm.iter().map(|name| format!("_orig_mod.module.{name}")).collect();
        let wrapped: Vec<&str> = wrapped.iter().map(String::as_str).collect();
        assert_eq!(names(&wrapped).unwrap(), ours);
        assert!(names(&[]).unwrap().is_empty());
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let error = names(&["head.bias", "head.fc.bias"]).unwrap_err().to_string();
        assert!(error.contains("head.fc.bias") && error.contains("head.bias"), "{error}");
    }
}
