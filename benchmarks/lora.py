"""Adapters on stacked experts: by rows against merged weights, CPU time and memory.

    python benchmarks/lora.py [--tokens 512 64 1] [--rounds 5] [--json results.json]

One layer of experts, forward and backward (with one token: forward alone, as in decoding). "rows"
is what runs: low-rank products of each expert's tokens. "merged" writes ``W + s B A`` out for the
whole bank and runs the model's backend on it; it is what a parametrisation of the weight does.
"frozen" is the bank without adapters, "full" with every weight trained.

All ways run in turn in one process on the same numbers; a ratio is the median over the rounds of
the other's time over that of rows. Memory is the peak of the resident set during one step (VmHWM,
reset before) less the resident set before it, each way in a process of its own.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from _measure import paired, probes, seconds, write
from torch import Tensor

from llama4_moe import MoE, MoEConfig
from llama4_train.lora import apply_lora
from llama4_train.lora.attach import places

MIB = 2**20
WAYS = ("rows", "merged", "frozen", "full")


class Unknown:
    """A backend that does not say its activation, so that adapters are merged for it."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend

    def __call__(self, *given: Any, **named: Any) -> Tensor:
        return self.backend(*given, **named)


def built(way: str, options: argparse.Namespace, dtype: torch.dtype) -> MoE:
    """A layer of experts as one of the ways has it."""
    torch.manual_seed(0)
    config = MoEConfig(hidden=options.width, width=options.inner, experts=options.experts, top_k=1)
    layer = MoE(config, backend="loop").to(dtype)
    layer.requires_grad_(way == "full")
    if way == "merged":
        layer.backend = Unknown(layer._backends["loop"])
    if way in ("rows", "merged"):
        apply_lora(layer, options.rank, 2 * options.rank, ["experts"])
        for place in places(layer):
            torch.nn.init.normal_(place.adapter.B, std=0.02)
    return layer


def step(layer: MoE, x: Tensor) -> None:
    """Forward and backward; forward alone of one token."""
    if x.shape[0] == 1:
        with torch.inference_mode():
            layer(x)
        return
    layer.zero_grad(set_to_none=True)
    x.grad = None
    layer(x).square().mean().backward()


def status(name: str) -> float:
    """A figure of this process in MiB."""
    text = Path("/proc/self/status").read_text()
    line = next(line for line in text.splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def memory(options: argparse.Namespace) -> None:
    """Prints the extra memory of one step."""
    layer = built(options.memory, options, getattr(torch, options.dtypes[0]))
    few = torch.randn(8, options.width, dtype=next(layer.parameters()).dtype)
    with torch.no_grad():
        layer(few)
    x = torch.randn(options.tokens[0], options.width, dtype=few.dtype, requires_grad=True)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step(layer, x)
    print(status("VmHWM") - before)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[512, 64, 1])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--inner", type=int, default=1024)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        memory(options)
        return
    rows = []
    roof = probes()
    for dtype in options.dtypes:
        layers = {way: built(way, options, getattr(torch, dtype)) for way in WAYS}
        bank = sum(p.nbytes for p in layers["frozen"].experts.parameters()) / MIB
        for tokens in options.tokens:
            x = torch.randn(tokens, options.width, dtype=getattr(torch, dtype), requires_grad=True)
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for round_ in range(options.rounds + 1):
                for way, layer in layers.items():
                    taken = seconds(lambda layer=layer, x=x: step(layer, x))
                    if round_:
                        times[way].append(taken)
            for way in WAYS:
                row = {"dtype": dtype, "tokens": tokens, "way": way, "bank MiB": bank}
                row |= paired(times["rows"], times[way])
                if tokens > 1:
                    command = [sys.executable, __file__, "--memory", way, "--tokens", str(tokens)]
                    for name in ("experts", "width", "inner", "rank"):
                        command += [f"--{name}", str(getattr(options, name))]
                    found = subprocess.run(
                        [*command, "--dtypes", dtype], capture_output=True, text=True, check=True
                    )
                    row["extra MiB"] = float(found.stdout)
                rows.append(row)
                print(
                    f"{dtype:9} {tokens:5} tokens  {way:7} {row['peer s'] * 1e3:9.2f} ms  "
                    f"{row['ratio']:5.2f}x rows  {row.get('extra MiB', 0):7.0f} MiB extra "
                    f"(bank {bank:.0f})",
                    flush=True,
                )
    write(options.json, vars(options), roof, rows)


if __name__ == "__main__":
    main()
