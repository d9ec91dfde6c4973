//! From quantised slices to what the network sees in training, and back to weights that see plain inputs.

use std::collections::HashMap;

use tch::{Kind, Tensor};

use super::TrainError;
use crate::checkpoint;

/// Inputs are centred for training, (x − 0.4) / 0.25; the shipped first convolution takes this in (see [`fold`]).
const INPUT_MEAN: f64 = 0.4;
const INPUT_SD: f64 = 0.25;

/// `count` quantised slices as count×3×S×S values 0..1.
pub(super) fn stack(bytes: &[u8], count: usize, size: usize) -> Result<Tensor, tch::TchError> {
    let (count, size) = (count as i64, size as i64);
    let tensor = Tensor::f_from_slice(bytes)?.f_reshape([count, 3, size, size])?;
    tensor.f_to_kind(Kind::Float)?.f_mul_scalar(1.0 / 255.0)
}

pub(super) fn centre(input: &Tensor) -> Result<Tensor, tch::TchError> {
    input.f_sub_scalar(INPUT_MEAN)?.f_mul_scalar(1.0 / INPUT_SD)
}

/// The variables with the centring of the input taken into the first convolution: W/σ and b − Σ W·μ/σ. The convolution
/// has no padding, so this is exact, and whoever loads the weights needs to know nothing of it.
pub(super) fn fold(variables: &HashMap<String, Tensor>) -> Result<Vec<(String, Tensor)>, TrainError> {
    let _frozen = tch::no_grad_guard();
    let mut weights: HashMap<String, Tensor> =
        variables.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
    let (weight_name, bias_name) = stem(variables)?;
    let weight = weights[&weight_name].f_mul_scalar(1.0 / INPUT_SD)?;
    let bias = weights[&bias_name].f_sub(&shift(&weight)?)?;
    weights.insert(bias_name, bias);
    weights.insert(weight_name, weight);
    let mut sorted = checkpoint::named(&weights, "")?;
    for (name, _) in &mut sorted {
        name.remove(0);
    }
    Ok(sorted)
}

/// Changes weights that see plain inputs into ones that see centred inputs, in place: the reverse of [`fold`].
pub(super) fn unfold(variables: &HashMap<String, Tensor>) -> Result<(), TrainError> {
    let _frozen = tch::no_grad_guard();
    let (weight_name, bias_name) = stem(variables)?;
    let (mut weight, mut bias) = (variables[&weight_name].shallow_clone(), variables[&bias_name].shallow_clone());
    let _ = bias.f_add_(&shift(&weight)?)?;
    let _ = weight.f_mul_scalar_(INPUT_SD)?;
    Ok(())
}

/// Names of the first convolution's weight and bias, both of which are there.
fn stem(variables: &HashMap<String, Tensor>) -> Result<(String, String), TrainError> {
    let stem = variables.keys().find_map(|name| name.strip_suffix("patch_embed.proj.weight"));
    let stem = stem.ok_or_else(|| TrainError::Plan("the network has no patch_embed.proj.weight".to_owned()))?;
    let (weight, bias) = (format!("{stem}patch_embed.proj.weight"), format!("{stem}patch_embed.proj.bias"));
    if !variables.contains_key(&bias) {
        return Err(TrainError::Plan(format!("the network has no {bias}")));
    }
    Ok((weight, bias))
}

/// Σ W·μ for each output channel.
fn shift(weight: &Tensor) -> Result<Tensor, tch::TchError> {
    weight.f_sum_dim_intlist([1i64, 2, 3].as_slice(), false, Kind::Float)?.f_mul_scalar(INPUT_MEAN)
}
