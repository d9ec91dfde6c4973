//! ResNet (He et al. 2016) of basic blocks, up to its last convolution.

use tch::Tensor;
use tch::nn::{self, Module, ModuleT};

use super::CHANNELS;

/// Blocks of each stage of the 18-layer network.
const BLOCKS: [usize; 4] = [2, 2, 2, 2];

#[derive(Debug)]
struct Unit {
    conv: nn::Conv2D,
    norm: nn::BatchNorm,
}

impl Unit {
    fn new(path: &nn::Path<'_>, names: (&str, &str), from: i64, to: i64, kernel: i64, stride: i64) -> Self {
        let config = nn::ConvConfig { stride, padding: kernel / 2, bias: false, ..Default::default() };
        // libtorch's binding draws the norm's scale at random unless it is told otherwise.
        let norm = nn::BatchNormConfig { ws_init: nn::Init::Const(1.0), ..Default::default() };
        Self {
            conv: nn::conv2d(path / names.0, from, to, kernel, config),
            norm: nn::batch_norm2d(path / names.1, to, norm),
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        self.norm.forward_t(&self.conv.forward(x), train)
    }
}

/// Two 3×3 convolutions with batch norm, around which the input is added.
#[derive(Debug)]
struct BasicBlock {
    first: Unit,
    second: Unit,
    project: Option<Unit>,
}

impl BasicBlock {
    fn new(path: &nn::Path<'_>, from: i64, to: i64, stride: i64) -> Self {
        let changes = from != to || stride != 1;
        let beside = path / "downsample";
        Self {
            first: Unit::new(path, ("conv1", "bn1"), from, to, 3, stride),
            second: Unit::new(path, ("conv2", "bn2"), to, to, 3, 1),
            project: changes.then(|| Unit::new(&beside, ("0", "1"), from, to, 1, stride)),
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let inner = self.second.forward(&self.first.forward(x, train).relu(), train);
        let beside = self.project.as_ref().map_or_else(|| x.shallow_clone(), |project| project.forward(x, train));
        (inner + beside).relu()
    }
}

/// The 18-layer network without pooling and classifier, parameters named as in torchvision.
#[derive(Debug)]
pub(super) struct ResNet {
    stem: Unit,
    blocks: Vec<BasicBlock>,
}

impl ResNet {
    /// `width`: channels of the first stage, 64 as published; each further stage doubles them. `last_stride`: 2 as
    /// published, 1 for features of twice the resolution.
    pub(super) fn new(path: &nn::Path<'_>, width: i64, last_stride: i64) -> Self {
        let mut blocks = Vec::new();
        let mut from = width;
        for (stage, &count) in BLOCKS.iter().enumerate() {
            let to = width << stage;
            for at in 0..count {
                let stride = match (stage, at) {
                    (0, _) | (_, 1..) => 1,
                    (3, _) => last_stride,
                    _ => 2,
                };
                blocks.push(BasicBlock::new(&(path / format!("layer{}", stage + 1) / at), from, to, stride));
                from = to;
            }
        }
        Self { stem: Unit::new(path, ("conv1", "bn1"), CHANNELS, width, 7, 2), blocks }
    }

    /// `[batch, 3, S, S]` → `[batch, 8·width, g, g]`, g = S/32 (S/16 with a last stride of 1), rounded up.
    pub(super) fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let stem = self.stem.forward(x, train).relu().max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        self.blocks.iter().fold(stem, |x, block| block.forward(&x, train))
    }
}
