"""The reference computation in Python: timm's Swin with hooks, one slice at a time, as the method's authors run it.

Written from the published description (arXiv 2304.04902v2, sections 3.2 and 3.3). Softmax outputs are kept by forward
hooks, gradients at the softmax inputs by backward hooks; weights keep their gradients, as a model out of training has them.
Needs timm 0.9.12 and torch (scripts/setup_model_python.sh).
"""

from __future__ import annotations

import os

os.environ.setdefault("TIMM_FUSED_ATTN", "0")  # fused attention has no softmax to hook

import torch
import torch.nn.functional as functional
from timm.models.swin_transformer import SwinTransformer, window_reverse
from torch import nn

HGI_STAGES = 3


class Classifier(nn.Module):
    """A Swin without its own head, and one linear layer on the mean of its tokens: `swin.…`, `head.…`."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.swin = SwinTransformer(
            img_size=config["img_size"],
            patch_size=config["patch_size"],
            in_chans=config.get("in_chans", 3),
            num_classes=0,
            embed_dim=config["embed_dim"],
            depths=tuple(config["depths"]),
            num_heads=tuple(config["num_heads"]),
            window_size=config["window_size"],
        )
        self.head = nn.Linear(self.swin.num_features, config["num_classes"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.swin(x))


def seeded(config: dict, seed: int) -> Classifier:
    """A classifier with seeded weights, spread so that attention is not uniform and gradients do not vanish."""
    torch.manual_seed(seed)
    model = Classifier(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("relative_position_bias_table"):
                parameter.normal_(0.0, 0.5)
            elif name.endswith("qkv.weight"):
                parameter.normal_(0.0, 2.0 * parameter.shape[1] ** -0.5)
            elif parameter.ndim > 1:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            else:
                parameter.normal_(1.0, 0.1)
    return model


class Hooked:
    """The classifier with hooks on every softmax."""

    def __init__(self, model: Classifier) -> None:
        self.model = model
        self.attention: list[list[torch.Tensor]] = []
        self.gradient: list[list[torch.Tensor | None]] = []
        for stage, layer in enumerate(model.swin.layers):
            self.attention.append([torch.empty(0)] * len(layer.blocks))
            self.gradient.append([None] * len(layer.blocks))
            for index, block in enumerate(layer.blocks):
                block.attn.softmax.register_forward_hook(self._keep_attention(stage, index))
                block.attn.softmax.register_full_backward_hook(self._keep_gradient(stage, index))

    def _keep_attention(self, stage: int, index: int):
        def hook(_module, _inputs, output):
            self.attention[stage][index] = output.detach()

        return hook

    def _keep_gradient(self, stage: int, index: int):
        def hook(_module, grad_inputs, _grad_outputs):
            self.gradient[stage][index] = grad_inputs[0].detach()

        return hook

    def hgi_sam(self, x: torch.Tensor, brain: torch.Tensor, positive: int) -> tuple[torch.Tensor, ...]:
        """Logits, the final map and the stage maps of one slice."""
        self.model.zero_grad()
        logits = self.model(x)
        logits[:, positive].sum().backward()
        stages = []
        for stage in range(min(HGI_STAGES, len(self.attention))):
            keys = []
            for attention, gradient in zip(self.attention[stage], self.gradient[stage]):
                weight = torch.linalg.norm(gradient, dim=(-2, -1), keepdim=True)
                keys.append((weight * attention).mean(1).mean(1))
            stages.append(self._stage_map(stage, keys))
        return logits.detach(), *finish(stages, brain)

    @torch.no_grad()
    def swin_sam(self, x: torch.Tensor, brain: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, the final map and the stage maps of one slice, without gradients."""
        logits = self.model(x)
        stages = [
            self._stage_map(stage, [attention.mean(1).mean(1) for attention in blocks])
            for stage, blocks in enumerate(self.attention)
        ]
        return logits, *finish(stages, brain)

    def grad_cam(self, x: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """The map of the predicted class on the last block's first norm."""
        kept = {}
        norm = self.model.swin.layers[-1].blocks[-1].norm1
        handle = norm.register_forward_hook(lambda _m, _i, output: kept.update(features=output))
        logits = self.model(x)
        handle.remove()
        score = logits.gather(1, logits.argmax(-1, keepdim=True)).sum()
        (gradient,) = torch.autograd.grad(score, kept["features"])
        weights = gradient.mean((1, 2), keepdim=True)
        cam = (weights * kept["features"]).sum(-1).relu().detach()
        return min_max(min_max(upsample(min_max(cam), x.shape[-1])) * brain)

    def _stage_map(self, stage: int, keys: list[torch.Tensor]) -> torch.Tensor:
        layer = self.model.swin.layers[stage]
        side = self.model.swin.patch_embed.img_size[0]
        grids = []
        for index, (block, key) in enumerate(zip(layer.blocks, keys)):
            window, grid = block.window_size[0], block.input_resolution[0]
            padded = -(-grid // window) * window
            tokens = window_reverse(key.reshape(-1, window, window, 1), block.window_size, padded, padded)
            tokens = tokens[:, :grid, :grid, 0]
            if index % 2 == 1:  # the reference rolls every odd block, shifted or not
                tokens = torch.roll(tokens, (window // 2, window // 2), (1, 2))
            grids.append(tokens)
        pairs = [torch.stack(grids[at : at + 2]).prod(0) for at in range(0, len(grids), 2)]
        return upsample(min_max(torch.stack(pairs).mean(0)), side)


def finish(stages: list[torch.Tensor], brain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    layers = torch.stack(stages, 1)
    return min_max(layers.prod(1) * brain), layers


def min_max(x: torch.Tensor) -> torch.Tensor:
    least, most = x.amin((1, 2), keepdim=True), x.amax((1, 2), keepdim=True)
    return (x - least) / torch.where(most > least, most - least, torch.ones_like(most))


def upsample(x: torch.Tensor, side: int) -> torch.Tensor:
    return functional.interpolate(x.unsqueeze(1), size=(side, side), mode="bilinear", align_corners=False).squeeze(1)
