//! ResNet and LSTM over the slices of a scan, with class-activation maps: the weakly supervised rival ("Class Activation
//! Map-based Weakly supervised Hemorrhage Segmentation using Resnet-LSTM in NCCT", Ramananda and Sundaresan 2023, arXiv
//! 2309.16627), without its refinement by pseudo-masks.

use serde::{Deserialize, Serialize};
use tch::nn::{self, Module, RNN};
use tch::{Kind, Tensor};

use super::resnet::ResNet;
use super::{NetworkError, centred, in_range};

/// Slices that go through the ResNet at once when a scan is read.
const AT_ONCE: i64 = 16;

/// Sizes of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResNetLstmSizes {
    /// Channels of the ResNet's first stage; doubles with each of the four.
    pub width: i64,
    /// Stride of the ResNet's last stage: 2 as published, 1 for class-activation maps of twice the resolution.
    pub last_stride: i64,
    /// Width of the LSTM, each way.
    pub hidden: i64,
}

impl Default for ResNetLstmSizes {
    fn default() -> Self {
        Self { width: 64, last_stride: 2, hidden: 128 }
    }
}

impl ResNetLstmSizes {
    /// Checks the sizes for inputs of side `size`.
    ///
    /// # Errors
    /// [`NetworkError`] says which size cannot be.
    pub fn check(&self, size: i64) -> Result<(), NetworkError> {
        in_range("input size", size, 2048)?;
        in_range("width", self.width, 512)?;
        in_range("last_stride", self.last_stride, 2)?;
        in_range("hidden", self.hidden, 4096)
    }
}

/// The network: an 18-layer ResNet, mean over the plane, a bidirectional LSTM from slice to slice, one logit a slice.
#[derive(Debug)]
pub struct ResNetLstm {
    size: i64,
    resnet: ResNet,
    lstm: nn::LSTM,
    head: nn::Linear,
}

/// What the network saw in one scan of n slices.
#[derive(Debug)]
pub struct Scan {
    /// Output of the last convolution, `[n, channels, g, g]`.
    pub(super) features: Tensor,
    /// Logit of hemorrhage, `[n]`.
    pub logits: Tensor,
}

impl ResNetLstm {
    /// Makes the network's variables under `path`, for inputs of side `size`.
    ///
    /// # Errors
    /// [`NetworkError`] if the sizes cannot be.
    pub fn new(path: &nn::Path<'_>, sizes: &ResNetLstmSizes, size: i64) -> Result<Self, NetworkError> {
        sizes.check(size)?;
        let both_ways = nn::RNNConfig { bidirectional: true, ..Default::default() };
        Ok(Self {
            size,
            resnet: ResNet::new(&(path / "resnet"), sizes.width, sizes.last_stride),
            lstm: nn::lstm(&(path / "lstm"), 8 * sizes.width, sizes.hidden, both_ways),
            head: nn::linear(path / "head", 2 * sizes.hidden, 1, nn::LinearConfig::default()),
        })
    }

    /// Logits `[n]` of n slices, `[n, 3, S, S]`, which lie scan after scan; `lengths`: slices of each scan, in order, n in
    /// all. Batch norm takes the statistics of the batch.
    ///
    /// # Errors
    /// [`NetworkError`] if the input has another shape or number of slices.
    pub fn train_logits(&self, input: &Tensor, lengths: &[i64]) -> Result<Tensor, NetworkError> {
        let slices: i64 = lengths.iter().sum();
        if input.size().first() != Some(&slices) {
            return Err(NetworkError::Shape { got: input.size(), want: vec![slices, 3, self.size, self.size] });
        }
        let pooled = pool(&self.resnet.forward(&centred(input, self.size)?, true));
        let scans = pooled.split_with_sizes(lengths, 0);
        Ok(Tensor::cat(&scans.iter().map(|scan| self.classify(scan)).collect::<Vec<_>>(), 0))
    }

    /// Reads one scan, `[n, 3, S, S]`. Gradients are neither needed nor kept.
    ///
    /// # Errors
    /// [`NetworkError::Shape`].
    pub fn read(&self, input: &Tensor) -> Result<Scan, NetworkError> {
        let _frozen = tch::no_grad_guard();
        let centred = centred(input, self.size)?;
        let parts: Vec<Tensor> =
            centred.split(AT_ONCE, 0).iter().map(|part| self.resnet.forward(part, false)).collect();
        let features = Tensor::cat(&parts, 0);
        let logits = self.classify(&pool(&features));
        Ok(Scan { features, logits })
    }

    /// Class-activation map of one slice of a scan, `[g, g]`, not negative: the last convolution's features, weighed by what
    /// each does to the slice's logit. With a linear classifier these weights are the classifier's own (Zhou et al. 2016);
    /// here the LSTM lies between, and they are its and the classifier's gradient at this slice.
    ///
    /// # Errors
    /// The libtorch error, also if there is no such slice.
    pub fn activation(&self, scan: &Scan, slice: i64) -> Result<Tensor, tch::TchError> {
        let pooled = pool(&scan.features).detach().set_requires_grad(true);
        let logit = tch::with_grad(|| self.classify(&pooled).f_select(0, slice))?;
        let gradient = Tensor::f_run_backward(&[logit], &[&pooled], false, false)?;
        let _frozen = tch::no_grad_guard();
        let weights = gradient.first().filter(|gradient| gradient.defined());
        let weights = weights.ok_or_else(|| tch::TchError::Torch("no gradient came back".to_owned()))?;
        let weights = weights.f_select(0, slice)?.f_view([-1, 1, 1])?; // [channels, 1, 1]
        let weighed = scan.features.f_select(0, slice)?.f_mul(&weights)?;
        weighed.f_sum_dim_intlist([0i64].as_slice(), false, Kind::Float)?.f_relu()
    }

    /// `[n, channels]`, the slices of one scan in order → logits `[n]`.
    pub(super) fn classify(&self, pooled: &Tensor) -> Tensor {
        let (seen, _) = self.lstm.seq(&pooled.unsqueeze(0)); // [1, n, 2 · hidden]
        self.head.forward(&seen).view([-1])
    }
}

/// Mean over the plane: `[n, channels, g, g]` → `[n, channels]`
fn pool(features: &Tensor) -> Tensor {
    features.mean_dim([2i64, 3].as_slice(), false, None)
}
