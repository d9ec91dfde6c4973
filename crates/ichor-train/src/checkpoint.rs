//! Where a run stands, so that it can go on from there bit for bit.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use thiserror::Error;

/// A checkpoint cannot be written or taken up.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("checkpoint {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
    /// The tensors cannot be written or read.
    #[error("checkpoint tensors: {0}")]
    Torch(#[from] tch::TchError),
    /// The state file cannot be read.
    #[error("checkpoint {path}: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// The checkpoint belongs to another recipe.
    #[error("checkpoint {0} was made by another recipe; remove the folder or give another one")]
    OtherRecipe(PathBuf),
    /// A tensor of the network is missing in the checkpoint, or has another shape.
    #[error("checkpoint lacks a fitting tensor {0}")]
    Missing(String),
}

/// Position of a run and what it has found so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// SHA-256 of the recipe that made it.
    pub recipe: String,
    /// Index of the phase.
    pub phase: usize,
    /// Epochs of this phase that are done.
    pub epoch: usize,
    /// Optimizer steps over the whole run.
    pub steps: u64,
    /// One record for each epoch done.
    pub history: Vec<EpochRecord>,
}

/// What one epoch came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Name of the phase.
    pub phase: String,
    /// Epoch within the phase, from 0.
    pub epoch: usize,
    /// Slices shown.
    pub slices: usize,
    /// Mean training loss.
    pub training_loss: f64,
    /// Mean validation loss of the averaged weights.
    pub validation_loss: f64,
    /// Slice AUC on the validation studies.
    pub validation_auc: f64,
    /// Wall-clock seconds of the training part.
    pub seconds: f64,
}

const STATE: &str = "state.json";

/// The named tensors of a checkpoint and its position.
pub type Saved = (HashMap<String, Tensor>, Position);

#[derive(Serialize, Deserialize)]
struct State {
    tensors: String,
    position: Position,
}

/// Writes the named tensors and the position into `folder`. The state file is renamed into place last and names its
/// tensor file, so a kill at any moment leaves the checkpoint before or the one after.
///
/// # Errors
/// [`CheckpointError`].
pub fn write(folder: &Path, tensors: &[(String, Tensor)], position: &Position) -> Result<(), CheckpointError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { path, source }
    };
    fs::create_dir_all(folder).map_err(io(folder))?;
    let name = format!("state-{:08}.safetensors", position.steps);
    Tensor::write_safetensors(tensors, folder.join(&name))?;
    let state = State { tensors: name.clone(), position: position.clone() };
    let path = folder.join(STATE);
    let partial = folder.join("state.json.partial");
    let text =
        serde_json::to_vec_pretty(&state).map_err(|source| CheckpointError::State { path: path.clone(), source })?;
    fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).map_err(io(&path))?;
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let stale = entry.map_err(io(folder))?;
        let stale_name = stale.file_name().to_string_lossy().into_owned();
        if stale_name.starts_with("state-") && stale_name != name {
            fs::remove_file(stale.path()).map_err(io(&stale.path()))?;
        }
    }
    Ok(())
}

/// Reads the checkpoint in `folder`; `None` if there is none.
///
/// # Errors
/// [`CheckpointError`], [`CheckpointError::OtherRecipe`] if it was not made by the recipe with this digest.
pub fn read(folder: &Path, recipe: &str) -> Result<Option<Saved>, CheckpointError> {
    let path = folder.join(STATE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CheckpointError::Io { path, source }),
    };
    let saved: State =
        serde_json::from_slice(&text).map_err(|source| CheckpointError::State { path: path.clone(), source })?;
    if saved.position.recipe != recipe {
        return Err(CheckpointError::OtherRecipe(folder.to_owned()));
    }
    let tensors = Tensor::read_safetensors(folder.join(&saved.tensors))?;
    Ok(Some((tensors.into_iter().collect(), saved.position)))
}

/// Copies tensors named `prefix.<name>` into the variables of that name.
///
/// # Errors
/// [`CheckpointError::Missing`] if one is absent or of another shape.
pub fn restore(
    variables: &HashMap<String, Tensor>,
    tensors: &HashMap<String, Tensor>,
    prefix: &str,
) -> Result<(), CheckpointError> {
    let _frozen = tch::no_grad_guard();
    for (name, variable) in variables {
        let key = format!("{prefix}.{name}");
        let saved = tensors.get(&key).filter(|saved| saved.size() == variable.size());
        let saved = saved.ok_or(CheckpointError::Missing(key))?;
        variable.shallow_clone().f_copy_(saved)?;
    }
    Ok(())
}

/// The variables, named `prefix.<name>`, on the CPU and in the order of their names.
///
/// # Errors
/// The libtorch error.
pub fn named(variables: &HashMap<String, Tensor>, prefix: &str) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    let mut named = variables
        .iter()
        .map(|(name, tensor)| {
            Ok((format!("{prefix}.{name}"), tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?))
        })
        .collect::<Result<Vec<_>, CheckpointError>>()?;
    named.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(steps: u64) -> Position {
        Position { recipe: "abc".into(), phase: 1, epoch: 2, steps, history: Vec::new() }
    }

    #[test]
    fn the_last_one_wins_and_others_go() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path(), "abc").unwrap().is_none());
        for steps in [10, 20] {
            let tensors = vec![("weight.a".to_owned(), Tensor::from_slice(&[steps as f32, 1.0]))];
            write(folder.path(), &tensors, &position(steps)).unwrap();
        }
        let (tensors, found) = read(folder.path(), "abc").unwrap().unwrap();
        assert_eq!(found, position(20));
        let target = HashMap::from([("a".to_owned(), Tensor::from_slice(&[0.0f32, 0.0]))]);
        restore(&target, &tensors, "weight").unwrap();
        assert_eq!(Vec::<f32>::try_from(&target["a"]).unwrap(), [20.0, 1.0]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_foreign_checkpoint_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[("weight.a".to_owned(), Tensor::from_slice(&[1.0f32]))], &position(1)).unwrap();
        assert!(matches!(read(folder.path(), "other"), Err(CheckpointError::OtherRecipe(_))));
        let (tensors, _) = read(folder.path(), "abc").unwrap().unwrap();
        let larger = HashMap::from([("a".to_owned(), Tensor::from_slice(&[0.0f32, 0.0]))]);
        assert!(matches!(restore(&larger, &tensors, "weight"), Err(CheckpointError::Missing(_))));
    }
}
