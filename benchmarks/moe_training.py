"""Forward and backward of the mixture by each expert backend: CPU time of one thread, in turn.

    python benchmarks/moe_training.py [--shapes 128,64,16 512,512,8] [--tokens 1024 4096]
                                      [--dtypes float32 bfloat16] [--rounds 9] [--json results.json]

A shape is D, F, E; top 1, without a shared expert, uneven random routing. Every backend gets the
same tokens and weights and runs once per round, in one process; a figure is the median over rounds
of its time. What ``auto`` takes is divided into every other: above 1, ``auto`` is faster. Compared
with the loop, outputs and gradients agree to the rounding of the dtype, which is checked first.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from _measure import probes, seconds, write
from torch import Tensor

from llama4_core.protocols.problems import ExpertProblem
from llama4_moe import MoE, MoEConfig, support
from llama4_moe.plugin import EXPERT_BACKENDS

SHAPES = ["128,64,16", "512,512,8", "512,512,32", "1024,1024,16"]
# Of the largest value: one rounding of the dtype for each of a few steps.
AGREE = {"float32": 1e-4, "bfloat16": 6e-2}


def step(model: MoE, name: str, x: Tensor, change: Tensor) -> list[Tensor]:
    """Output and gradients."""
    model.backend = name
    x.grad = None
    model.zero_grad(set_to_none=True)
    y = model(x)
    y.backward(change)
    return [y.detach(), x.grad, *(one.grad for one in model.parameters())]


def compare(shape: str, tokens: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Median seconds of each backend that can run, and their ratios to the one of ``auto``."""
    D, F, E = (int(number) for number in shape.split(","))
    torch.manual_seed(0)
    model = MoE(MoEConfig(D, E, 1, F)).to(getattr(torch, dtype))
    problem = ExpertProblem(E, 1, D, F, dtype=dtype, grad=True, tokens=tokens)
    chosen = support.preferred(problem)
    refused = {one.name: one.refusal(problem) for one in EXPERT_BACKENDS}
    # The definition computes every expert on every token: only where that takes no minutes.
    names = [
        name
        for name, reason in refused.items()
        if reason is None and (name != "dense" or D * F * E * tokens <= 1 << 33)
    ]
    inputs = []
    for _ in range(rounds + 1):
        x = torch.randn(tokens, D).to(model.router.weight.dtype).requires_grad_()
        inputs.append((x, torch.randn(tokens, D).to(x.dtype)))
    want = step(model, "loop", *inputs[-1])
    for name in names:
        for mine, theirs in zip(step(model, name, *inputs[-1]), want, strict=True):
            error = (mine - theirs).abs().max() / theirs.abs().max().clamp(min=1e-6)
            assert error <= AGREE[dtype], (name, float(error))
    spent: dict[str, list[float]] = {name: [] for name in names}
    for x, change in inputs[:rounds]:
        for name in names:
            spent[name].append(seconds(lambda n=name, x=x, c=change: step(model, n, x, c)))
    medians = {name: statistics.median(times) for name, times in spent.items()}
    return {
        "shape": shape,
        "tokens": tokens,
        "dtype": dtype,
        "auto": chosen,
        "ms": {name: value * 1e3 for name, value in medians.items()},
        "ratio to auto": {name: value / medians[chosen] for name, value in medians.items()},
    }


def main() -> None:
    """Prints one line per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    roof, rows = probes(), []
    print("probes:", {name: round(value, 1) for name, value in roof.items()}, flush=True)
    for dtype in arguments.dtypes:
        for shape in arguments.shapes:
            for tokens in arguments.tokens:
                row = compare(shape, tokens, dtype, arguments.rounds)
                rows.append(row)
                shown = "  ".join(
                    f"{name} {row['ms'][name]:.1f} ms ({ratio:.2f}x)"
                    for name, ratio in row["ratio to auto"].items()
                )
                line = f"{dtype:8} D,F,E {shape:12} {tokens:5} tokens: auto {row['auto']}: {shown}"
                print(line, flush=True)
    write(arguments.json, vars(arguments), roof, rows)


if __name__ == "__main__":
    main()
