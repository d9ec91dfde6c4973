#!/usr/bin/env python3
"""Measures ichor's model beside the same network in Python (timm 0.9.12 with hooks), and writes docs/performance.md.

Both sides have the same random weights, input and number of threads, and compute in turn within one run, since the speed of a
machine drifts. The study has 32 slices, 8 of them positive. The reference goes slice by slice, as its authors do: a forward
pass for each, and for positive ones the forward and backward pass with hooks that its maps are made of. ichor classifies every
slice and computes maps of the positive ones, as it does when it serves.

    bench_model.py --speed target/release/examples/model_speed [--write docs/performance.md]

Run it with the interpreter that `scripts/setup_model_python.sh --path` names (`make bench-model` does).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- model: begin -->", "<!-- model: end -->"
SWIN_B = {
    "img_size": 384,
    "patch_size": 4,
    "window_size": 12,
    "embed_dim": 128,
    "depths": [2, 2, 18, 2],
    "num_heads": [4, 8, 16, 32],
    "num_classes": 2,
    "in_chans": 3,
}
SLICES, POSITIVE, GEMM_SIDE = 32, 8, 4096
BARS = {"f32": 1.7, "bf16": 3.0}


def make_files(folder: Path) -> None:
    """Weights and input, seeded; each slice another pattern, so that no two are alike."""
    import torch
    from hgi_reference import seeded
    from safetensors.torch import save_file

    model = seeded(SWIN_B, 1)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "weights.safetensors")
    generator = torch.Generator().manual_seed(2)
    side = SWIN_B["img_size"]
    noise = torch.rand((POSITIVE, 3, side, side), generator=generator)
    at = torch.linspace(-1, 1, side)
    radius = (at[:, None] ** 2 + at[None, :] ** 2).sqrt()
    brain = (radius < 0.8).float().expand(POSITIVE, side, side).contiguous()
    save_file({"input": 0.5 * noise + 0.5 * brain[:, None], "brain_mask": brain}, folder / "input.safetensors")
    (folder / "config.json").write_text(json.dumps(SWIN_B))


class Side:
    """A process that computes what it is told, one line a task."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self.answer()

    def answer(self) -> str:
        line = self.process.stdout.readline().strip()
        if not line:
            sys.exit(f"bench_model: {self.process.args[0]} ended early")
        return line

    def ask(self, task: str) -> str:
        print(task, file=self.process.stdin, flush=True)
        return self.answer()

    def time(self, task: str) -> float:
        return float(self.ask(task))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def python_side(folder: Path, threads: int) -> None:
    """The reference, told what to do on standard input, as examples/model_speed.rs is."""
    warnings.simplefilter("ignore")
    import torch
    from hgi_reference import Classifier, Hooked
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(threads)
    model = Classifier(SWIN_B).eval()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    tensors = load_file(folder / "input.safetensors")
    hooked = Hooked(model)
    positive = SWIN_B["num_classes"] - 1

    def maps(at: int) -> tuple:
        return hooked.hgi_sam(tensors["input"][at : at + 1], tensors["brain_mask"][at : at + 1], positive)

    print("ready f32", flush=True)
    for line in sys.stdin:
        task, *rest = line.split()
        begun = time.perf_counter()
        if task == "forward":
            with torch.no_grad():
                model(tensors["input"][int(rest[0]) : int(rest[0]) + 1])
        elif task == "maps":
            maps(int(rest[0]))
        elif task == "save":
            found = [maps(at) for at in range(POSITIVE)]
            save_file({"logits": torch.cat([f[0] for f in found]), "hgi_map": torch.cat([f[1] for f in found])}, rest[0])
        elif task == "memory":
            status = Path("/proc/self/status").read_text().splitlines()
            print(next(int(row.split()[1]) // 1024 for row in status if row.startswith("VmHWM:")), flush=True)
            continue
        print(f"{(time.perf_counter() - begun) * 1e3:.3f}", flush=True)


def flops(config: dict) -> float:
    """Floating-point operations of one forward pass, matrix products alone."""
    grid, dim = config["img_size"] // config["patch_size"], config["embed_dim"]
    total = grid**2 * dim * config["in_chans"] * config["patch_size"] ** 2
    for stage, depth in enumerate(config["depths"]):
        if stage:
            grid, dim = grid // 2, dim * 2
            total += grid**2 * (2 * dim) * dim
        window = min(config["window_size"], grid)
        total += depth * grid**2 * (12 * dim**2 + 2 * window**2 * dim)
    return 2.0 * total


def measure(sides: dict[str, Side], rounds: int) -> dict[str, dict[str, list[float]]]:
    """In turn: of each kind one of each side, then the next."""
    times = {name: {"forward": [], "maps": []} for name in sides}
    for name, side in sides.items():
        side.time("forward 0 1"), side.time("maps 0 1")
    for at in range(rounds):
        for task in ("forward", "maps"):
            for name, side in sides.items():
                times[name][task].append(side.time(f"{task} {at % POSITIVE} 1"))
    return times


def whole_study(side: Side) -> float:
    """Seconds of the whole study: every slice classified, then maps of the positive ones."""
    forward = sum(side.time(f"forward {at % POSITIVE} 1") for at in range(SLICES))
    return (forward + sum(side.time(f"maps {at} 1") for at in range(POSITIVE))) / 1e3


def agreement(folder: Path, names: list[str]) -> list[str]:
    from safetensors.torch import load_file

    saved = {name: load_file(folder / f"{name}.out") for name in names}
    rows = ["| compared | logits | probability | map, largest | map, mean | mask at 0.05, unequal |", "|---|---:|---:|---:|---:|---:|"]
    for one, other in (("f32", "python"), ("bf16", "f32")):
        if one not in saved:
            continue
        a, b = saved[one], saved[other]
        logits = (a["logits"] - b["logits"]).abs().max().item()
        odds = (a["logits"].softmax(-1) - b["logits"].softmax(-1)).abs().max().item()
        off = (a["hgi_map"] - b["hgi_map"]).abs()
        unequal = ((a["hgi_map"] >= 0.05) != (b["hgi_map"] >= 0.05)).float().mean().item()
        label = {"python": "Python", "f32": "ichor f32", "bf16": "ichor bf16"}
        rows.append(
            f"| {label[one]} to {label[other]} | {logits:.1e} | {odds:.1e} | {off.max():.1e} | {off.mean():.1e} | {unequal:.3%} |"
        )
    return rows


def report(folder: Path, speed: str, threads: int, rounds: int, studies: int) -> str:
    ours = [speed, *(str(folder / name) for name in ("config.json", "weights.safetensors", "input.safetensors"))]
    sides = {"python": Side([sys.executable, __file__, "--side", str(folder), "--threads", str(threads)])}
    for precision in ("f32", "bf16"):
        side = Side([*ours, precision, str(threads), "cpu"])
        if side.ready.split()[-1] == precision:
            sides[precision] = side
    times = measure(sides, rounds)
    totals: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(studies):
        for name, side in sides.items():
            totals[name].append(whole_study(side))
    rates = {name: side.time(f"gemm {GEMM_SIDE}") for name, side in sides.items() if name != "python"}
    rates["python"] = rates["f32"]
    memory = {}
    for name, side in sides.items():
        memory[name] = side.ask("memory")
        side.ask(f"save {folder / name}.out")
        side.close()
    median = {name: {task: statistics.median(values) for task, values in of.items()} for name, of in times.items()}
    lines = [heading(threads, rounds, studies), "", "| | forward, ms | forward and maps, ms | study, s | against Python | bar | "
             "share of the matrix rate, forward | most resident, MiB |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, of in median.items():  # no study asked for: from the slices
        totals[name] = totals[name] or [(SLICES * of["forward"] + POSITIVE * of["maps"]) / 1e3]
    reference = statistics.median(totals["python"])
    for name, label in (("python", "Python, timm with hooks"), ("f32", "ichor, f32"), ("bf16", "ichor, bf16")):
        if name not in sides:
            continue
        total, bar = statistics.median(totals[name]), BARS.get(name)
        share = flops(SWIN_B) / (median[name]["forward"] * 1e6) / rates[name]
        spread = {task: f"{median[name][task]:.0f} ({min(times[name][task]):.0f})" for task in times[name]}
        ratio = "" if bar is None else f"{reference / total:.2f} ×"
        lines.append(
            f"| {label} | {spread['forward']} | {spread['maps']} | {total:.1f} | {ratio} | {bar or ''} | {share:.0%} | {memory[name]} |"
        )
    rate = ", ".join(f"{name} {rates[name]:.0f} GFLOP/s" for name in ("f32", "bf16") if name in rates)
    lines += ["", f"Matrix rate of this machine ({GEMM_SIDE} × {GEMM_SIDE} × {GEMM_SIDE}, best of five, the same threads): {rate}. "
              f"A forward pass is {flops(SWIN_B) / 1e9:.0f} GFLOP.", "", f"Agreement, {POSITIVE} slices:", "", *agreement(folder, list(sides))]
    return "\n".join(lines)


def heading(threads: int, rounds: int, studies: int) -> str:
    model = next((row.split(":")[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines() if row.startswith("model name")), "")
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return (
        f"{date.today()}, revision {revision}, {os.cpu_count()} × {model}, {platform.system()} {platform.machine()}, {threads} threads. "
        f"Swin-B, window 12, 384 × 384, one slice at a time; median (and least) of {rounds} slices in turn; median of {studies} "
        f"studies of {SLICES} slices, {POSITIVE} positive{'' if studies else ' (added up from the slices)'}:"
    )


def write(path: Path, text: str) -> None:
    whole = path.read_text()
    before, rest = whole.split(BEGIN)
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", default=str(ROOT / "target/release/examples/model_speed"))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--studies", type=int, default=3)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--side", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT / "crates/ichor-model/tests/reference"))
    if arguments.side:
        python_side(arguments.side, arguments.threads)
        return
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        text = report(Path(folder), arguments.speed, arguments.threads, arguments.rounds, arguments.studies)
    print(text)
    if arguments.write:
        write(arguments.write, text)


if __name__ == "__main__":
    main()
