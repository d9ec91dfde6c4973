//! Swin-UNETR (Hatamizadeh et al. 2022, arXiv 2201.01266) in two dimensions: a Swin encoder, residual units on each of its
//! levels, and a decoder with skip connections.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{self, Module};

use super::swin_blocks::{Stage, StageSizes};
use super::units::{ResidualUnit, UpUnit};
use super::{CHANNELS, CLASSES, NetworkError, Segmenter, centred, divides, in_range};

/// Side of a patch.
const PATCH: i64 = 2;
/// Stages of the encoder.
const STAGES: usize = 4;

/// Sizes of a Swin-UNETR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwinUnetrSizes {
    /// Channels of the finest level; doubles with each stage.
    pub feature_size: i64,
    /// Blocks of each stage.
    pub depths: Vec<i64>,
    /// Heads of each stage.
    pub num_heads: Vec<i64>,
    /// Side of an attention window, in tokens.
    pub window_size: i64,
}

impl Default for SwinUnetrSizes {
    fn default() -> Self {
        Self { feature_size: 12, depths: vec![2; STAGES], num_heads: vec![2, 4, 8, 16], window_size: 7 }
    }
}

impl SwinUnetrSizes {
    /// Checks the sizes for inputs of side `size`.
    ///
    /// # Errors
    /// [`NetworkError`] says which size cannot be.
    pub fn check(&self, size: i64) -> Result<(), NetworkError> {
        in_range("input size", size, 2048)?;
        divides("input size", size, PATCH << STAGES, "patches of 2 and four stages halve it five times")?;
        in_range("feature_size", self.feature_size, 512)?;
        in_range("window_size", self.window_size, 64)?;
        for (name, list) in [("depths", &self.depths), ("num_heads", &self.num_heads)] {
            if list.len() != STAGES {
                return Err(NetworkError::Length(name, list.len(), "4"));
            }
        }
        for (stage, (&depth, &heads)) in self.depths.iter().zip(&self.num_heads).enumerate() {
            in_range("depth", depth, 64)?;
            in_range("num_heads", heads, 128)?;
            divides("channels of a stage", self.feature_size << stage, heads, "its heads share them evenly")?;
        }
        Ok(())
    }
}

/// The network.
#[derive(Debug)]
pub struct SwinUnetr {
    size: i64,
    patch_embed: nn::Conv2D,
    stages: Vec<Stage>,
    /// On the input, after the patches, after the first two stages, and after the last one.
    encoders: Vec<ResidualUnit>,
    /// From the coarsest level to the finest.
    decoders: Vec<UpUnit>,
    out: nn::Conv2D,
}

impl SwinUnetr {
    /// Makes the network's variables under `path`, for inputs of side `size`.
    ///
    /// # Errors
    /// [`NetworkError`] if the sizes cannot be.
    pub fn new(path: &nn::Path<'_>, sizes: &SwinUnetrSizes, size: i64) -> Result<Self, NetworkError> {
        sizes.check(size)?;
        let (feature, swin) = (sizes.feature_size, path / "swinViT");
        let stride = nn::ConvConfig { stride: PATCH, ..Default::default() };
        let stages = sizes.depths.iter().zip(&sizes.num_heads).enumerate().map(|(at, (&depth, &heads))| {
            let (dim, grid) = (feature << at, (size / PATCH) >> at);
            Stage::new(&(&swin / "layers" / at), StageSizes { dim, heads, depth, grid, window: sizes.window_size })
        });
        let encoder = |name: &str, from, to| ResidualUnit::new(&(path / name), from, to);
        let decoder = |name: &str, from, to| UpUnit::new(&(path / name), from, to);
        Ok(Self {
            size,
            patch_embed: nn::conv2d(&swin / "patch_embed" / "proj", CHANNELS, feature, PATCH, stride),
            stages: stages.collect(),
            encoders: vec![
                encoder("encoder1", CHANNELS, feature),
                encoder("encoder2", feature, feature),
                encoder("encoder3", 2 * feature, 2 * feature),
                encoder("encoder4", 4 * feature, 4 * feature),
                encoder("encoder10", 16 * feature, 16 * feature),
            ],
            decoders: vec![
                decoder("decoder5", 16 * feature, 8 * feature),
                decoder("decoder4", 8 * feature, 4 * feature),
                decoder("decoder3", 4 * feature, 2 * feature),
                decoder("decoder2", 2 * feature, feature),
                decoder("decoder1", feature, feature),
            ],
            out: nn::conv2d(path / "out", feature, CLASSES, 1, Default::default()),
        })
    }
}

impl Segmenter for SwinUnetr {
    fn logits(&self, input: &Tensor) -> Result<Tensor, NetworkError> {
        let input = centred(input, self.size)?;
        let mut tokens = self.patch_embed.forward(&input).permute([0, 2, 3, 1]); // [batch, S/2, S/2, feature]
        let mut levels = vec![planes(&tokens)];
        for stage in &self.stages {
            tokens = stage.forward(&tokens.contiguous()); // halves the grid, doubles the channels
            levels.push(planes(&tokens));
        }
        let skips = [
            self.encoders[0].forward(&input),     // [batch, f, S, S]
            self.encoders[1].forward(&levels[0]), // [batch, f, S/2, S/2]
            self.encoders[2].forward(&levels[1]), // [batch, 2f, S/4, S/4]
            self.encoders[3].forward(&levels[2]), // [batch, 4f, S/8, S/8]
            levels[3].shallow_clone(),            // [batch, 8f, S/16, S/16]
        ];
        let bottom = self.encoders[4].forward(&levels[4]); // [batch, 16f, S/32, S/32]
        let ways = self.decoders.iter().zip(skips.iter().rev());
        let top = ways.fold(bottom, |x, (decoder, skip)| decoder.forward(&x, skip));
        Ok(self.out.forward(&top))
    }
}

/// `[batch, g, g, dim]` → `[batch, dim, g, g]`, each token brought to mean 0 and variance 1.
fn planes(tokens: &Tensor) -> Tensor {
    let dim = tokens.size()[3];
    tokens.layer_norm::<Tensor>([dim], None, None, 1e-5, false).permute([0, 3, 1, 2])
}
