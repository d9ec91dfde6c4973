//! Convolutional units of the Swin-UNETR decoder: residual units with instance norm, and the step up.

use tch::Tensor;
use tch::nn::{self, Module};

/// Slope of the leaky ReLU below zero.
const SLOPE: f64 = 0.01;

/// Two 3×3 convolutions with instance norm (no learned scale) and leaky ReLU, around which the input is added; where the
/// number of channels changes, it passes a 1×1 convolution and a norm first.
#[derive(Debug)]
pub(super) struct ResidualUnit {
    first: nn::Conv2D,
    second: nn::Conv2D,
    project: Option<nn::Conv2D>,
}

impl ResidualUnit {
    pub(super) fn new(path: &nn::Path<'_>, from: i64, to: i64) -> Self {
        let conv = |name: &str, from, kernel| {
            let config = nn::ConvConfig { padding: kernel / 2, bias: false, ..Default::default() };
            nn::conv2d(path / name, from, to, kernel, config)
        };
        Self {
            first: conv("conv1", from, 3),
            second: conv("conv2", to, 3),
            project: (from != to).then(|| conv("conv3", from, 1)),
        }
    }

    /// `[batch, from, h, w]` → `[batch, to, h, w]`
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let inner = leaky(&instance_norm(&self.first.forward(x)));
        let inner = instance_norm(&self.second.forward(&inner));
        let beside = match &self.project {
            Some(project) => instance_norm(&project.forward(x)),
            None => x.shallow_clone(),
        };
        leaky(&(inner + beside))
    }
}

/// One step up: transposed 2×2 convolution, skip connection, residual unit.
#[derive(Debug)]
pub(super) struct UpUnit {
    up: nn::ConvTranspose2D,
    unit: ResidualUnit,
}

impl UpUnit {
    pub(super) fn new(path: &nn::Path<'_>, from: i64, to: i64) -> Self {
        let twice = nn::ConvTransposeConfig { stride: 2, bias: false, ..Default::default() };
        Self {
            up: nn::conv_transpose2d(path / "transp_conv", from, to, 2, twice),
            unit: ResidualUnit::new(&(path / "conv_block"), 2 * to, to),
        }
    }

    /// `x`: `[batch, from, h, w]`; `skip`: `[batch, to, 2h, 2w]` → `[batch, to, 2h, 2w]`
    pub(super) fn forward(&self, x: &Tensor, skip: &Tensor) -> Tensor {
        self.unit.forward(&Tensor::cat(&[&self.up.forward(x), skip], 1))
    }
}

fn leaky(x: &Tensor) -> Tensor {
    x.maximum(&(x * SLOPE))
}

/// Mean 0 and variance 1 in each plane of each slice.
fn instance_norm(x: &Tensor) -> Tensor {
    let plane = [2i64, 3];
    let centred = x - x.mean_dim(plane.as_slice(), true, None);
    let variance = centred.square().mean_dim(plane.as_slice(), true, None);
    centred * (variance + 1e-5).rsqrt()
}
