//! U-Net (Ronneberger et al. 2015), as the fully supervised baseline of arXiv 2304.04902 has it.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{self, Module};

use super::{CHANNELS, CLASSES, NetworkError, Segmenter, centred, divides, in_range};

/// Sizes of a U-Net.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UNetSizes {
    /// Channels of each level, from the finest to the coarsest.
    pub widths: Vec<i64>,
}

impl Default for UNetSizes {
    fn default() -> Self {
        Self { widths: vec![24, 48, 96, 192] }
    }
}

impl UNetSizes {
    /// Checks the sizes for inputs of side `size`.
    ///
    /// # Errors
    /// [`NetworkError`] says which size cannot be.
    pub fn check(&self, size: i64) -> Result<(), NetworkError> {
        if !(1..=8).contains(&self.widths.len()) {
            return Err(NetworkError::Length("widths", self.widths.len(), "1 to 8"));
        }
        self.widths.iter().try_for_each(|&width| in_range("width", width, 2048))?;
        in_range("input size", size, 2048)?;
        divides("input size", size, 1 << (self.widths.len() - 1), "each level but the last halves it")
    }
}

/// Two 3×3 convolutions with ReLU.
#[derive(Debug)]
struct Pair {
    first: nn::Conv2D,
    second: nn::Conv2D,
}

impl Pair {
    fn new(path: &nn::Path<'_>, from: i64, to: i64) -> Self {
        Self { first: conv3(&(path / "conv1"), from, to), second: conv3(&(path / "conv2"), to, to) }
    }

    /// `[batch, from, h, w]` → `[batch, to, h, w]`
    fn forward(&self, x: &Tensor) -> Tensor {
        self.second.forward(&self.first.forward(x).relu()).relu()
    }
}

/// One level of the way up: transposed convolution, skip connection, two convolutions.
#[derive(Debug)]
struct Up {
    up: nn::ConvTranspose2D,
    pair: Pair,
}

/// The network: two 3×3 convolutions and ReLU a level, max-pool down, transposed convolution up, 3×3 head.
#[derive(Debug)]
pub struct UNet {
    size: i64,
    down: Vec<Pair>,
    /// From the coarsest level to the finest.
    up: Vec<Up>,
    head: nn::Conv2D,
}

impl UNet {
    /// Makes the network's variables under `path`, for inputs of side `size`.
    ///
    /// # Errors
    /// [`NetworkError`] if the sizes cannot be.
    pub fn new(path: &nn::Path<'_>, sizes: &UNetSizes, size: i64) -> Result<Self, NetworkError> {
        sizes.check(size)?;
        let widths = &sizes.widths;
        let from = std::iter::once(CHANNELS).chain(widths.iter().copied());
        let down =
            from.zip(widths).enumerate().map(|(level, (from, &to))| Pair::new(&(path / "down" / level), from, to));
        let down = down.collect();
        let up = (0..widths.len() - 1).rev().map(|level| {
            let (path, coarse, fine) = (path / "up" / level, widths[level + 1], widths[level]);
            let twice = nn::ConvTransposeConfig { stride: 2, ..Default::default() };
            Up {
                up: nn::conv_transpose2d(&path / "up", coarse, fine, 2, twice),
                pair: Pair::new(&path, 2 * fine, fine),
            }
        });
        Ok(Self { size, down, up: up.collect(), head: conv3(&(path / "head"), widths[0], CLASSES) })
    }
}

impl Segmenter for UNet {
    fn logits(&self, input: &Tensor) -> Result<Tensor, NetworkError> {
        let mut x = centred(input, self.size)?;
        let mut skips = Vec::with_capacity(self.down.len());
        for (level, pair) in self.down.iter().enumerate() {
            if level > 0 {
                x = x.max_pool2d_default(2);
            }
            x = pair.forward(&x); // [batch, widths[level], S / 2^level, S / 2^level]
            skips.push(x.shallow_clone());
        }
        skips.pop();
        for (up, skip) in self.up.iter().zip(skips.iter().rev()) {
            x = up.pair.forward(&Tensor::cat(&[skip, &up.up.forward(&x)], 1));
        }
        Ok(self.head.forward(&x))
    }
}

fn conv3(path: &nn::Path<'_>, from: i64, to: i64) -> nn::Conv2D {
    nn::conv2d(path, from, to, 3, nn::ConvConfig { padding: 1, ..Default::default() })
}
