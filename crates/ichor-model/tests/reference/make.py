"""Makes the reference values of odd Swin sizes, `NAME.json` and `NAME.safetensors` beside this file, for `tests/odd_sizes.rs`.

    make.py             makes them anew
    make.py --check     recomputes them and compares (1e-5)

Run it with the interpreter that `scripts/setup_model_python.sh --path` names. The tensors of a file: `weight.…` under the
checkpoint's names, `input`, `brain_mask`, and what `ichor model maps` writes.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from hgi_reference import Hooked, seeded
from safetensors.torch import load_file, save_file

warnings.simplefilter("ignore")
HERE = Path(__file__).resolve().parent
BASE = {"patch_size": 4, "in_chans": 3, "num_classes": 2}
SIZES = {
    # A last block without a partner in two stages.
    "odd-depths": BASE | {"img_size": 32, "window_size": 2, "embed_dim": 8, "depths": [3, 1], "num_heads": [2, 4]},
    # The window is the grid in the first stage and larger than it in the second; six classes.
    "large-window": BASE
    | {"img_size": 32, "window_size": 8, "embed_dim": 6, "depths": [2, 2], "num_heads": [2, 3], "num_classes": 6},
    # One stage, one channel, one class.
    "one-stage": BASE
    | {
        "img_size": 30,
        "patch_size": 2,
        "window_size": 5,
        "embed_dim": 8,
        "depths": [4],
        "num_heads": [2],
        "in_chans": 1,
        "num_classes": 1,
    },
    # Heads that do not divide the channels: some of them take no part in attention.
    "odd-heads": BASE | {"img_size": 24, "window_size": 3, "embed_dim": 10, "depths": [2, 3], "num_heads": [4, 3]},
    # Windows that leave a rest of the grid: padding.
    "padded": BASE | {"img_size": 40, "window_size": 4, "embed_dim": 6, "depths": [2, 2], "num_heads": [2, 2]},
    # Four stages, the third one odd and one window, the last one token.
    "four-stages": BASE
    | {
        "img_size": 16,
        "patch_size": 2,
        "window_size": 2,
        "embed_dim": 4,
        "depths": [2, 1, 3, 2],
        "num_heads": [1, 2, 2, 4],
    },
}


def values(config: dict, seed: int) -> dict[str, torch.Tensor]:
    model = seeded(config, seed)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    side = config["img_size"]
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand((2, config["in_chans"], side, side), generator=generator)
    at = torch.arange(side) - (side - 1) / 2
    disc = ((at[:, None] ** 2 + at[None, :] ** 2) < (0.42 * side) ** 2).float()
    brain = torch.stack([disc, torch.ones_like(disc)])
    hooked = Hooked(model)
    found: dict[str, list[torch.Tensor]] = {}
    for slice_input, slice_brain in zip(inputs.split(1), brain.split(1)):
        logits, hgi, hgi_layers = hooked.hgi_sam(slice_input, slice_brain, config["num_classes"] - 1)
        _, sam, sam_layers = hooked.swin_sam(slice_input, slice_brain)
        parts = {
            "logits": logits,
            "hgi_map": hgi,
            "hgi_layer_maps": hgi_layers,
            "swin_sam_map": sam,
            "swin_sam_layer_maps": sam_layers,
            "grad_cam_map": hooked.grad_cam(slice_input, slice_brain),
        }
        for name, tensor in parts.items():
            found.setdefault(name, []).append(tensor.detach())
    tensors = {f"weight.{name}": tensor.contiguous() for name, tensor in weights.items()}
    tensors |= {name: torch.cat(parts).contiguous() for name, parts in found.items()}
    return tensors | {"input": inputs, "brain_mask": brain}


def main() -> None:
    torch.set_num_threads(1)
    for seed, (name, config) in enumerate(SIZES.items(), start=1):
        path = HERE / f"{name}.safetensors"
        tensors = values(config, seed)
        if "--check" in sys.argv:
            kept = load_file(path)
            assert kept.keys() == tensors.keys(), name
            worst = max((kept[key] - tensors[key]).abs().max().item() for key in kept)
            assert worst < 1e-5, f"{name} is off by {worst}"
            continue
        save_file(tensors, path)
        (HERE / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n")
        mask = (tensors["hgi_map"] >= 0.05).float().mean().item()
        print(f"{name}: {path.stat().st_size // 1024} KiB, {mask:.2f} of the pixels in the mask", tensors["logits"].tolist())


if __name__ == "__main__":
    main()
