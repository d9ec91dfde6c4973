//! Maps from files: the whole computation on given tensors, for comparing with other implementations.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ichor_core::Precision;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tch::{Device, Kind, Tensor};
use thiserror::Error;

use crate::attribution::{Attribution, AttributionError, CamTarget, GradientSite, HgiOptions, RollBack};
use crate::config::{PlanError, SwinConfig, SwinPlan};
use crate::frozen::Frozen;
use crate::strategy::Strategy;
use crate::weights::{SaveError, Weights, WeightsError, float_bytes, is_small_model, write_whole};

/// Why there are no maps.
#[derive(Debug, Error)]
pub enum FilesError {
    /// A file cannot be read.
    #[error("{} cannot be read: {why}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The sizes make no Swin.
    #[error("{}: {error}", path.display())]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        error: PlanError,
    },
    /// No strategy has a head of this size.
    #[error("no learning strategy has {0} logits; known are 1, 2 and 6")]
    Classes(i64),
    /// The weights are not of these sizes.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The input file lacks a tensor.
    #[error("{} holds no tensor {name:?}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: &'static str,
    },
    /// The input does not fit the network.
    #[error(transparent)]
    Attribution(#[from] AttributionError),
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] SaveError),
    /// libtorch failed.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// The output cannot be put together.
    #[error("output: {0}")]
    Serialize(#[source] safetensors::SafeTensorError),
}

/// Computes logits, final maps and stage maps for given tensors on the CPU, exactly as the reference implementation
/// does (its roll of unshifted blocks included), one slice at a time.
///
/// `config`: JSON of a [`SwinConfig`]; `weights`: safetensors with timm's names; `input`: safetensors with `input`
/// `[n, channels, S, S]` and `brain_mask` `[n, S, S]`; `output`: safetensors to write, float32: `logits`
/// `[n, classes]`, `hgi_map`, `swin_sam_map`, `grad_cam_map` `[n, S, S]`, `hgi_layer_maps`, `swin_sam_layer_maps`
/// `[n, stages, S, S]`.
///
/// # Errors
/// [`FilesError`] names the file and the reason.
pub fn maps_from_files(config: &Path, weights: &Path, input: &Path, output: &Path) -> Result<(), FilesError> {
    let unreadable = |path: &Path, why: String| FilesError::Read { path: path.to_owned(), why };
    let text = std::fs::read(config).map_err(|e| unreadable(config, e.to_string()))?;
    let sizes: SwinConfig = serde_json::from_slice(&text).map_err(|e| unreadable(config, e.to_string()))?;
    let plan = SwinPlan::check(&sizes).map_err(|error| FilesError::Plan { path: config.to_owned(), error })?;
    let strategy = Strategy::of_classes(sizes.num_classes).ok_or(FilesError::Classes(sizes.num_classes))?;
    if is_small_model(weights) {
        tch::set_num_threads(1);
    }
    let frozen = Weights::read(weights)?.freeze(&plan, Device::Cpu, Precision::F32)?;
    let tensors = Tensor::read_safetensors(input).map_err(|e| unreadable(input, e.to_string()))?;
    let tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
    let get = |name| {
        let tensor = tensors.get(name).ok_or_else(|| FilesError::Missing { path: input.to_owned(), name })?;
        Ok::<_, FilesError>(tensor.f_to_kind(Kind::Float)?)
    };
    let outputs = compute(&frozen, strategy, &get("input")?, &get("brain_mask")?)?;
    write(output, &outputs)
}

type Named = (&'static str, Tensor);

fn compute(frozen: &Frozen, strategy: Strategy, input: &Tensor, brain: &Tensor) -> Result<Vec<Named>, FilesError> {
    let options = HgiOptions { site: GradientSite::SoftmaxInput, roll_back: RollBack::AsReference };
    let positive = strategy.positive_logit();
    let slices = input.size().first().copied().unwrap_or_default();
    let (mut hgi, mut sam, mut cam) = (Vec::new(), Vec::new(), Vec::new());
    for slice in 0..slices.max(1) {
        let (input, brain) = (input.f_narrow(0, slice, 1)?, brain.f_narrow(0, slice, 1)?);
        hgi.push(frozen.hgi_sam(&input, &brain, positive, options)?);
        sam.push(frozen.swin_sam(&input, &brain, RollBack::AsReference)?);
        cam.push(frozen.grad_cam(&input, &brain, CamTarget::Predicted)?);
    }
    let all = |maps: &[Attribution], part: fn(&Attribution) -> &Tensor| {
        let parts: Vec<&Tensor> = maps.iter().map(part).collect();
        Tensor::f_cat(&parts, 0)
    };
    Ok(vec![
        ("logits", all(&hgi, |maps| &maps.logits)?),
        ("hgi_map", all(&hgi, |maps| &maps.map)?),
        ("hgi_layer_maps", all(&hgi, |maps| &maps.stages)?),
        ("swin_sam_map", all(&sam, |maps| &maps.map)?),
        ("swin_sam_layer_maps", all(&sam, |maps| &maps.stages)?),
        ("grad_cam_map", all(&cam, |maps| &maps.map)?),
    ])
}

fn write(path: &Path, outputs: &[Named]) -> Result<(), FilesError> {
    let mut data = Vec::with_capacity(outputs.len());
    for (name, tensor) in outputs {
        let size: Vec<usize> = tensor.size().iter().map(|&side| side as usize).collect();
        data.push((*name, size, float_bytes(tensor)?));
    }
    let views: Result<Vec<_>, _> =
        data.iter().map(|(name, size, bytes)| Ok((*name, TensorView::new(Dtype::F32, size.clone(), bytes)?))).collect();
    let bytes = views.and_then(|views| safetensors::serialize(views, None)).map_err(FilesError::Serialize)?;
    Ok(write_whole(path, &bytes)?)
}
