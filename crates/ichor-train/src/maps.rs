//! All maps that are compared, for a batch of slices.

use ichor_model::attribution::{
    AttributionError, CamTarget, GradientSite, HgiOptions, RollBack, grad_cam, hgi_sam, swin_sam,
};
use ichor_model::{Strategy, Swin};
use tch::{Device, Tensor};
use thiserror::Error;

use crate::measure::Method;

/// No map can be made.
#[derive(Debug, Error)]
pub enum MapsError {
    /// libtorch refused an operation.
    #[error("model: {0}")]
    Torch(#[from] tch::TchError),
    /// The attribution failed.
    #[error("map: {0}")]
    Attribution(#[from] AttributionError),
}

/// Maps (S × S, 0..1, zero outside the brain) of each slice, in the order of [`Method::ALL`].
///
/// `inputs`: B×3×S×S as preprocessing makes them; `brains`: B×S×S, 0 or 1.
///
/// # Errors
/// [`MapsError`].
pub fn all_maps(
    network: &Swin,
    strategy: Strategy,
    inputs: &Tensor,
    brains: &Tensor,
) -> Result<Vec<Vec<Vec<f32>>>, MapsError> {
    let batch = usize::try_from(inputs.size4()?.0).unwrap_or_default();
    let mut maps = vec![Vec::with_capacity(Method::ALL.len()); batch];
    for method in Method::ALL {
        let tensor = map(network, strategy, inputs, brains, method)?.f_to_device(Device::Cpu)?;
        for (index, maps) in maps.iter_mut().enumerate() {
            let slice = tensor.f_select(0, i64::try_from(index).unwrap_or_default())?.f_reshape([-1])?;
            maps.push(Vec::<f32>::try_from(&slice)?);
        }
    }
    Ok(maps)
}

fn map(
    network: &Swin,
    strategy: Strategy,
    inputs: &Tensor,
    brains: &Tensor,
    method: Method,
) -> Result<Tensor, AttributionError> {
    let hgi = |site| {
        let options = HgiOptions { site, roll_back: RollBack::AsShifted };
        hgi_sam(network, inputs, brains, strategy.positive_logit(), options)
    };
    let attribution = match method {
        Method::HgiSamScores => hgi(GradientSite::SoftmaxInput)?,
        Method::HgiSamSoftmax => hgi(GradientSite::SoftmaxOutput)?,
        Method::SwinSam => swin_sam(network, inputs, brains, RollBack::AsShifted)?,
        Method::GradCam => grad_cam(network, inputs, brains, CamTarget::Logit(strategy.positive_logit()))?,
    };
    Ok(attribution.map)
}
