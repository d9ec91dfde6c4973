//! Linear layers with what stands around them folded in.

use ichor_core::Precision;
use tch::nn;
use tch::{Kind, TchError, Tensor};

use crate::precision::kind;
use crate::swin::NORM_EPSILON;

/// `x · weightᵀ + bias`, in the precision of the weight.
#[derive(Debug)]
pub(super) struct Linear {
    /// `[out, in]`
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn plain(layer: &nn::Linear, precision: Precision) -> Result<Self, TchError> {
        Self::new(&layer.ws, layer.bs.as_ref(), precision)
    }

    pub(super) fn new(weight: &Tensor, bias: Option<&Tensor>, precision: Precision) -> Result<Self, TchError> {
        let cast = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(kind(precision))?.f_contiguous();
        Ok(Self { weight: cast(weight)?, bias: bias.map(cast).transpose()? })
    }

    /// Takes the affine part of the layer norm before it in, and centres its rows: what comes out of a norm has mean 0, so
    /// that nothing changes forward, and backward the gradient's mean is gone already, as the norm wants it.
    ///
    /// `rows`: factor of each row, such as the scale of queries.
    pub(super) fn after_norm(
        norm: &nn::LayerNorm,
        layer: &nn::Linear,
        rows: Option<&Tensor>,
        precision: Precision,
    ) -> Result<Self, TchError> {
        let double = |tensor: &Tensor| tensor.f_detach()?.f_to_kind(Kind::Double);
        let mut weight = double(&layer.ws)?;
        let mut bias = layer.bs.as_ref().map(double).transpose()?;
        if let Some(shift) = &norm.bs {
            let shifted = weight.f_matmul(&double(shift)?)?;
            bias = Some(match bias {
                Some(bias) => bias.f_add(&shifted)?,
                None => shifted,
            });
        }
        if let Some(scale) = &norm.ws {
            weight = weight.f_mul(&double(scale)?)?;
        }
        weight = weight.f_sub(&weight.f_mean_dim([1i64].as_slice(), true, None)?)?;
        if let Some(rows) = rows {
            let rows = double(rows)?;
            weight = weight.f_mul(&rows.f_unsqueeze(1)?)?;
            bias = bias.map(|bias| bias.f_mul(&rows)).transpose()?;
        }
        Self::new(&weight, bias.as_ref(), precision)
    }

    /// `[n, in]` → `[n, out]`
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        x.f_to_kind(self.weight.kind())?.f_linear(&self.weight, self.bias.as_ref())
    }

    /// Some rows of the weight, float32: `[n]` → `[n, in]`
    pub(super) fn rows(&self, which: &Tensor) -> Result<Tensor, TchError> {
        self.weight.f_index_select(0, which)?.f_to_kind(Kind::Float)
    }

    /// Gradients: `[n, out]` → `[n, in]`
    pub(super) fn backward(&self, gradient: &Tensor) -> Result<Tensor, TchError> {
        gradient.f_to_kind(self.weight.kind())?.f_mm(&self.weight)
    }
}

/// A layer norm without its affine part, which the layer behind it has taken in, and what its gradient needs.
#[derive(Debug)]
pub(super) struct Normed {
    /// Mean 0 and variance 1 in each row, in the precision of the products, `[n, dim]`.
    pub(super) x: Tensor,
    /// Reciprocal of the standard deviation, float32, `[n, 1]`.
    inverse: Tensor,
}

impl Normed {
    /// `x`: float32, `[n, dim]`.
    pub(super) fn of(x: &Tensor, precision: Precision) -> Result<Self, TchError> {
        let (x, _mean, inverse) = x.f_native_layer_norm(x.size()[1..].to_vec(), NONE, NONE, NORM_EPSILON)?;
        Ok(Self { x: x.f_to_kind(kind(precision))?, inverse })
    }

    /// Adds to `sum` what `gradient` becomes through the norm. `gradient`: `[n, dim]`, each row's mean 0.
    pub(super) fn backward_into(&self, gradient: Tensor, sum: &mut Tensor) -> Result<(), TchError> {
        let mut gradient = gradient.f_to_kind(Kind::Float)?;
        let x = self.x.f_to_kind(Kind::Float)?;
        let along = (&x * &gradient).f_mean_dim([-1i64].as_slice(), true, None)?;
        gradient = gradient.f_addcmul_(&x, &along.f_neg()?)?;
        let _in_place = sum.f_addcmul_(&gradient, &self.inverse)?;
        Ok(())
    }
}

/// No tensor, for generic arguments.
const NONE: Option<Tensor> = None;
