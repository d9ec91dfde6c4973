//! Where a run stands, so that it can go on from there bit for bit.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
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
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// Steps at which the optimizer's moments were last zero.
    #[serde(default)]
    pub moments_since: u64,
    /// The epoch that was interrupted, if one was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub under_way: Option<UnderWay>,
    /// The best epoch of a phase that stops early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<Best>,
}

/// Where an interrupted epoch stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct UnderWay {
    /// Steps of it that are done.
    pub step: usize,
    /// Sum of their losses, as bits: JSON need not give the same number back.
    loss_bits: u64,
    /// Seconds that they took.
    pub seconds: f64,
    /// Seconds of these in which batches were waited for.
    pub waited: f64,
}

impl UnderWay {
    /// Sum of the losses of the steps done.
    #[must_use]
    pub fn loss(&self) -> f64 {
        f64::from_bits(self.loss_bits)
    }

    /// Counts a step with its loss.
    pub fn add(&mut self, loss: f64) {
        self.step += 1;
        self.loss_bits = (self.loss() + loss).to_bits();
    }
}

/// The epoch of a phase with the lowest validation loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// The epoch within the phase, from 0.
    pub epoch: usize,
    loss_bits: u64,
}

impl Best {
    /// An epoch and its validation loss.
    #[must_use]
    pub fn new(epoch: usize, loss: f64) -> Self {
        Self { epoch, loss_bits: loss.to_bits() }
    }

    /// Its validation loss.
    #[must_use]
    pub fn loss(&self) -> f64 {
        f64::from_bits(self.loss_bits)
    }
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
    /// Share of them in which the training waited for its batches.
    #[serde(default)]
    pub waited_share: f64,
}

const STATE: &str = "state.json";

/// The named tensors of a checkpoint and its position.
pub type Saved = (HashMap<String, Tensor>, Position);

#[derive(Serialize, Deserialize)]
struct State {
    tensors: String,
    position: Position,
}

/// Writes the named tensors and the position into `folder`. The tensors are flushed to the disk under a name of their own, the
/// state file that names them is renamed into place last: a kill or a full disk at any moment leaves the checkpoint before or
/// the one after.
///
/// # Errors
/// [`CheckpointError`]; what was written of the new checkpoint is removed.
pub fn write(folder: &Path, tensors: &[(String, Tensor)], position: &Position) -> Result<(), CheckpointError> {
    fs::create_dir_all(folder).map_err(io(folder))?;
    let name = free_name(folder, position.steps);
    let path = folder.join(STATE);
    let partial = folder.join("state.json.partial");
    let written = write_tensors(&folder.join(&name), tensors).and_then(|()| {
        let state = State { tensors: name.clone(), position: position.clone() };
        let text = serde_json::to_vec_pretty(&state)
            .map_err(|source| CheckpointError::State { path: path.clone(), source })?;
        let put = || {
            let mut file = File::create(&partial)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&partial, &path)?;
            File::open(folder)?.sync_all()
        };
        put().map_err(io(&path))
    });
    if let Err(error) = written {
        // What room there is, the next attempt needs; that it cannot be cleared is no further fault.
        let _ = fs::remove_file(folder.join(&name));
        let _ = fs::remove_file(&partial);
        return Err(error);
    }
    for entry in fs::read_dir(folder).map_err(io(folder))? {
        let stale = entry.map_err(io(folder))?;
        let stale_name = stale.file_name().to_string_lossy().into_owned();
        if stale_name.starts_with("state-") && stale_name != name {
            fs::remove_file(stale.path()).map_err(io(&stale.path()))?;
        }
    }
    Ok(())
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { path: path.clone(), source }
}

/// A tensor file's name that is not there yet: the checkpoint before may have been made at the same step.
fn free_name(folder: &Path, steps: u64) -> String {
    let named = |again: u32| match again {
        0 => format!("state-{steps:08}.safetensors"),
        again => format!("state-{steps:08}-{again}.safetensors"),
    };
    (0..).map(named).find(|name| !folder.join(name).exists()).unwrap_or_else(|| named(0))
}

/// Safetensors, one tensor after the other: the whole is not put together in memory a second time.
fn write_tensors(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), CheckpointError> {
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, tensor) in tensors {
        let length = 4 * tensor.numel();
        let entry = serde_json::json!({
            "dtype": "F32", "shape": tensor.size(), "data_offsets": [offset, offset + length],
        });
        header.insert(name.clone(), entry);
        offset += length;
    }
    let mut text = serde_json::Value::Object(header).to_string();
    // The data begin at a multiple of 8.
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut file = BufWriter::new(File::create(path).map_err(io(path))?);
    let put = |file: &mut BufWriter<File>, bytes: &[u8]| file.write_all(bytes).map_err(io(path));
    put(&mut file, &(text.len() as u64).to_le_bytes())?;
    put(&mut file, text.as_bytes())?;
    for (_, tensor) in tensors {
        let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_flatten(0, -1)?;
        let values: Vec<f32> = flat.try_into()?;
        for chunk in values.chunks(1 << 16) {
            let bytes: Vec<u8> = chunk.iter().flat_map(|value| value.to_le_bytes()).collect();
            put(&mut file, &bytes)?;
        }
    }
    let file = file.into_inner().map_err(|error| io(path)(error.into_error()))?;
    file.sync_all().map_err(io(path))
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
        Position { recipe: "abc".into(), phase: 1, epoch: 2, steps, ..Position::default() }
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
    fn a_full_disk_leaves_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let tensors = |value: f32| vec![("weight.a".to_owned(), Tensor::from_slice(&[value; 4096]))];
        write(folder.path(), &tensors(1.0), &position(10)).unwrap();
        // The second one goes to a device that is always full: once its tensors, once its state file.
        for full in ["state-00000020.safetensors", "state.json.partial"] {
            let link = folder.path().join(full);
            std::os::unix::fs::symlink("/dev/full", &link).unwrap();
            let error = match full {
                // A name that is taken is passed over, so the tensors go to the device by their own function.
                "state.json.partial" => write(folder.path(), &tensors(2.0), &position(20)).unwrap_err(),
                _ => write_tensors(&link, &tensors(2.0)).unwrap_err(),
            };
            assert!(error.to_string().contains("No space left on device"), "{error}");
            let _ = fs::remove_file(&link);
            let (tensors, found) = read(folder.path(), "abc").unwrap().unwrap();
            assert_eq!(found, position(10));
            assert_eq!(tensors["weight.a"].double_value(&[0]), 1.0);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing of the failed one stays");
        // With room again, at the same step as the one before.
        write(folder.path(), &tensors(3.0), &position(10)).unwrap();
        let (tensors, _) = read(folder.path(), "abc").unwrap().unwrap();
        assert_eq!(tensors["weight.a"].double_value(&[0]), 3.0);
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
