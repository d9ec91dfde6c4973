//! Weight files: what is in them is what the network has. Every tensor is accounted for in both directions.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ichor_core::Precision;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use sha2::{Digest, Sha256};
use tch::nn::VarStore;
use tch::{Device, Kind, TchError, Tensor};
use thiserror::Error;

use crate::checkpoint::Checkpoint;
use crate::config::SwinPlan;
use crate::frozen::Frozen;
use crate::manifest::{MANIFEST_FORMAT, Manifest, ManifestProblem, ModelCard};
use crate::self_test::SelfTest;
use crate::swin::Swin;

/// A weight file that cannot be used.
#[derive(Debug, Error)]
#[error("weights {}: {problem}", path.display())]
pub struct WeightsError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; its words are part of this error's.
    pub problem: WeightsProblem,
}

/// What is wrong with a weight file.
#[derive(Debug, Error)]
pub enum WeightsProblem {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It is not the file that the manifest speaks of.
    #[error("sha256 is {file}, the manifest says {manifest}")]
    Digest {
        /// Of the file.
        file: String,
        /// In the manifest.
        manifest: String,
    },
    /// It is neither safetensors nor a PyTorch archive.
    #[error("cannot be understood as safetensors: {0}")]
    Parse(#[source] SafeTensorError),
    /// It looks like a PyTorch file, and no state dict can be read from it.
    #[error("cannot be understood as a PyTorch state dict: {0}")]
    Pickle(String),
    /// Tensors that do not fit the network, all of them.
    #[error("{}", listed(.0))]
    Mismatch(Vec<TensorProblem>),
    /// Two tensors have the same place in the network.
    #[error("{name} is the network's {ours}, which is there already")]
    Twice {
        /// The second, under the file's name.
        name: String,
        /// The network's name.
        ours: String,
    },
    /// A tensor does not hold floating-point numbers.
    #[error("{name} is {kind}, only F32, F64, F16 and BF16 are read")]
    Kind {
        /// The tensor.
        name: String,
        /// Its kind.
        kind: String,
    },
    /// A tensor holds NaN or infinity.
    #[error("{0} holds values that are not finite")]
    NotFinite(String),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[source] TchError),
}

/// A tensor that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TensorProblem {
    /// A tensor of the network is not there.
    #[error("{name} {want:?} is missing")]
    Missing {
        /// The tensor.
        name: String,
        /// Its shape in the network.
        want: Vec<i64>,
    },
    /// A tensor has no place in the network.
    #[error("{name} {got:?} has no place in a model of these sizes")]
    Extra {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        got: Vec<i64>,
    },
    /// A tensor has another shape.
    #[error("{name} is {got:?}, the model wants {want:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        got: Vec<i64>,
        /// Its shape in the network.
        want: Vec<i64>,
    },
}

/// Most tensors that a message names.
const MOST_NAMED: usize = 20;

fn listed(problems: &[TensorProblem]) -> String {
    let mut words: Vec<String> = problems.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    if problems.len() > MOST_NAMED {
        words.push(format!("and {} more", problems.len() - MOST_NAMED));
    }
    words.join("; ")
}

/// Weights and manifest could not be saved.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The card is not sound.
    #[error("the model card cannot be saved: {0}")]
    Card(#[source] ManifestProblem),
    /// The variables are not those of the card's network, or not finite.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The file cannot be written.
    #[error("{} cannot be written: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// Weight files up to this size belong to models so small that libtorch's threads are a loss: they share every single
/// operation, and on a busy machine each operation waits for the slowest of them.
const SMALL_MODEL_BYTES: u64 = 64 << 20;

/// Whether the model computes best on one thread.
pub(crate) fn is_small_model(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() <= SMALL_MODEL_BYTES)
}

/// A weight file in memory.
pub(crate) struct Weights {
    path: PathBuf,
    bytes: Vec<u8>,
    sha256: String,
}

impl Weights {
    pub(crate) fn read(path: &Path) -> Result<Self, WeightsError> {
        let bytes = fs::read(path)
            .map_err(|error| WeightsError { path: path.to_owned(), problem: WeightsProblem::Read(error) })?;
        Ok(Self::new(path, bytes))
    }

    fn new(path: &Path, bytes: Vec<u8>) -> Self {
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Self { path: path.to_owned(), bytes, sha256 }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Refuses a file that is not the manifest's.
    pub(crate) fn check_digest(&self, manifest: &str) -> Result<(), WeightsError> {
        if self.sha256.eq_ignore_ascii_case(manifest) {
            return Ok(());
        }
        Err(self.error(WeightsProblem::Digest { file: self.sha256.clone(), manifest: manifest.to_owned() }))
    }

    /// Makes the network that they belong to, frozen and settled.
    pub(crate) fn build(&self, plan: &SwinPlan, device: Device) -> Result<(VarStore, Swin), WeightsError> {
        let mut store = VarStore::new(device);
        let mut swin = Swin::new(&store.root(), plan);
        store.freeze();
        self.fill(&store).map_err(|problem| self.error(problem))?;
        swin.settle();
        Ok((store, swin))
    }

    /// The same network, made for inference.
    pub(crate) fn freeze(&self, plan: &SwinPlan, device: Device, precision: Precision) -> Result<Frozen, WeightsError> {
        let (_store, swin) = self.build(plan, device)?;
        Frozen::new(&swin, precision).map_err(|error| self.error(WeightsProblem::Torch(error)))
    }

    fn fill(&self, store: &VarStore) -> Result<(), WeightsProblem> {
        let mut found = Checkpoint::read(&self.path, &self.bytes)?.tensors;
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let mut problems = Vec::new();
        for (name, variable) in &variables {
            let (name, want) = (name.clone(), variable.size());
            match found.get(&name).map(|entry| entry.size.clone()) {
                None => problems.push(TensorProblem::Missing { name, want }),
                Some(got) if got != want => problems.push(TensorProblem::Shape { name, got, want }),
                Some(_) => {}
            }
        }
        let extra = found.iter().filter(|(name, _)| !variables.contains_key(*name));
        problems
            .extend(extra.map(|(name, entry)| TensorProblem::Extra { name: name.clone(), got: entry.size.clone() }));
        if !problems.is_empty() {
            return Err(WeightsProblem::Mismatch(problems));
        }
        let _guard = tch::no_grad_guard();
        for (name, mut variable) in variables {
            let Some(entry) = found.remove(&name) else { continue };
            let tensor = match entry.tensor {
                Ok(tensor) => tensor,
                Err(kind) => return Err(WeightsProblem::Kind { name, kind }),
            };
            if tensor.isfinite().all().int64_value(&[]) == 0 {
                return Err(WeightsProblem::NotFinite(name));
            }
            variable.f_copy_(&tensor).map_err(WeightsProblem::Torch)?;
        }
        Ok(())
    }

    fn error(&self, problem: WeightsProblem) -> WeightsError {
        WeightsError { path: self.path.clone(), problem }
    }
}

/// Reads a weight file (safetensors or `.pth`) without a manifest and makes the network for inference, for comparing with
/// other implementations. What is served has a manifest: [`crate::ModelRuntime`].
///
/// # Errors
/// [`WeightsError`] names the file, and every tensor that does not fit.
pub fn load_frozen(path: &Path, plan: &SwinPlan, device: Device, precision: Precision) -> Result<Frozen, WeightsError> {
    Weights::read(path)?.freeze(plan, device, precision)
}

/// Saves a network's variables as `path` (safetensors, float32) and its card as the manifest beside it, with the
/// digest and the self-test of exactly the bytes written. Each file appears whole or not at all, the manifest last.
///
/// # Errors
/// [`SaveError`] if the card is unsound, the variables are not those of a Swin of the card's sizes, a value is not
/// finite, or a file cannot be written.
pub fn save_model(path: &Path, store: &VarStore, card: ModelCard) -> Result<Manifest, SaveError> {
    card.check().map_err(SaveError::Card)?;
    let plan = SwinPlan::check(&card.sizes).map_err(|error| SaveError::Card(ManifestProblem::Plan(error)))?;
    let failed = |problem| WeightsError { path: path.to_owned(), problem };
    let weights = Weights::new(path, serialize(store).map_err(failed)?);
    let (_store, swin) = weights.build(&plan, Device::Cpu)?;
    let forward = |input: &Tensor| Ok(swin.forward(input));
    let self_test = SelfTest::run(&card.sizes, card.strategy, Device::Cpu, forward)
        .map_err(|e| failed(WeightsProblem::Torch(e)))?;
    let manifest = Manifest { format: MANIFEST_FORMAT, model: card, sha256: weights.sha256.clone(), self_test };
    manifest.id().map_err(|error| SaveError::Card(ManifestProblem::Id(error)))?;
    let text = serde_json::to_vec_pretty(&manifest);
    let text = text.map_err(|error| SaveError::Card(ManifestProblem::Parse(error)))?;
    write_whole(path, &weights.bytes)?;
    write_whole(&Manifest::path_for(path), &text)?;
    Ok(manifest)
}

fn serialize(store: &VarStore) -> Result<Vec<u8>, WeightsProblem> {
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    let mut data = Vec::with_capacity(variables.len());
    for (name, variable) in &variables {
        data.push((name, float_bytes(variable).map_err(WeightsProblem::Torch)?, variable.size()));
    }
    let views: Result<Vec<_>, SafeTensorError> = data
        .iter()
        .map(|(name, bytes, size)| {
            let size = size.iter().map(|&side| side as usize).collect();
            Ok((name.as_str(), TensorView::new(Dtype::F32, size, bytes)?))
        })
        .collect();
    // The entry that other readers of PyTorch weights look for.
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    views.and_then(|views| safetensors::serialize(views, Some(metadata))).map_err(WeightsProblem::Parse)
}

/// Row-major little-endian float32.
pub(crate) fn float_bytes(tensor: &Tensor) -> Result<Vec<u8>, TchError> {
    let flat = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_flatten(0, -1)?;
    let values: Vec<f32> = flat.try_into()?;
    Ok(values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// Writes beside, flushes to the disk, renames into place.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), SaveError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let write = || {
        let mut file = File::create(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(|error| SaveError::Write { path: path.to_owned(), error })
}
