//! Starting weights for a network that starts from nothing.

use std::collections::HashMap;

use tch::{Device, Kind, TchError, Tensor};

/// Sets every variable to its starting value, from the seed alone: matrices Xavier-uniform by their own fan (the 0.02 of
/// the published Swin fits widths of 128 and up; at 32 it starves the attention scores and training does not take off),
/// layers that write to the residual stream divided by √(2 · blocks), norms 1, biases 0, position tables N(0, 0.02²).
///
/// # Errors
/// The libtorch error.
pub(crate) fn initialise(variables: &HashMap<String, Tensor>, blocks: i64, seed: u64) -> Result<(), TchError> {
    let _frozen = tch::no_grad_guard();
    tch::manual_seed(seed.cast_signed());
    let mut names: Vec<&String> = variables.keys().collect();
    names.sort();
    for name in names {
        let mut tensor = variables[name].shallow_clone();
        if !tensor.requires_grad() {
            continue;
        }
        let shape = tensor.size();
        if name.ends_with("patch_embed.proj.bias") {
            // Patches of even tissue are nearly zero once centred, and the norm behind the convolution would blow up
            // their noise (and the gradient) without limit; a bias of some size keeps it close to linear.
            let _ = tensor.f_normal_(0.0, 0.5)?;
        } else if name.ends_with("relative_position_bias_table") {
            let _ = tensor.f_normal_(0.0, 0.02)?;
        } else if shape.len() >= 2 {
            let receptive: i64 = shape[2..].iter().product();
            let bound = (6.0 / as_f64((shape[0] + shape[1]) * receptive)).sqrt();
            let residual = name.ends_with("attn.proj.weight") || name.ends_with("mlp.fc2.weight");
            let shrink = if residual { (2.0 * as_f64(blocks.max(1))).sqrt() } else { 1.0 };
            // The head starts at zero: the first steps then fit the label's mean without noise from random features.
            let bound =
                if name.ends_with("head.weight") || name.ends_with("head.fc.weight") { 0.0 } else { bound / shrink };
            let drawn = Tensor::f_rand(&shape, (Kind::Float, Device::Cpu))?.f_mul_scalar(2.0 * bound)?;
            tensor.f_copy_(&drawn.f_sub_scalar(bound)?)?;
        } else if name.ends_with("weight") {
            let _ = tensor.f_fill_(1.0)?;
        } else {
            let _ = tensor.f_zero_()?;
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "layer widths are far below 2^52")]
fn as_f64(n: i64) -> f64 {
    n as f64
}
