"""The chunked cross-entropy against torch's, at Llama 4's vocabulary: CPU time and memory.

    python benchmarks/cross_entropy.py [--widths 384 2048] [--pairs 3] [--json results.json]

Loss and gradients of hidden states and head, forward and backward. Ours and "plain" (``F.linear``,
then ``F.cross_entropy``) run in turn in one process on the same numbers; a figure is the median of
the ratios of neighbouring runs.

Memory is the peak of the resident set during one call (VmHWM, reset before) less the resident set
before it, in a process of its own for each call, after a small warm-up call. Inputs are there
before and do not count; "extra" leaves out the gradient of the head, ``V D`` numbers, which every
way has to give, and nothing else: the gradient of the hidden states is in it.

Losses are compared with one in float64, from the same float32 numbers.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _measure import paired, probes, seconds, write
from torch import Tensor

from llama4_train.loss.linear_cross_entropy import linear_cross_entropy

GIB = 2**30
TARGETS = {"slowdown": 1.6, "extra GiB": 0.25, "error": 1e-6}


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """All logits at once."""
    return F.cross_entropy(F.linear(hidden, weight), targets)


def ours(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The chunked one, without logits."""
    return linear_cross_entropy(hidden, weight, targets).nll.mean()


def chunked(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """torch's own way to do without the logits."""
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, targets, options=options)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "plain": plain,
    "ours": ours,
    "torch chunked": chunked,
}


def inputs(tokens: int, width: int, vocabulary: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Hidden states and head whose logits are of the order of 1, and targets."""
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width).to(dtype).requires_grad_()
    weight = torch.empty(vocabulary, width, dtype=dtype).normal_(std=width**-0.5).requires_grad_()
    return hidden, weight, torch.randint(0, vocabulary, (tokens,))


def step(way: str, given: tuple[Tensor, ...]) -> float:
    """Loss, after a backward that leaves fresh gradients."""
    given[0].grad = given[1].grad = None
    loss = WAYS[way](*given)
    loss.backward()
    return float(loss.detach())


def status(name: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def memory(way: str, sizes: list[int], dtype: str) -> dict[str, float]:
    """Peak of one call, in a fresh process."""
    words = ["--alone", way, "--dtype", dtype, "--sizes", *map(str, sizes)]
    done = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr[-500:])
        return {"failed": 1.0}
    return json.loads(done.stdout)


def alone(way: str, sizes: list[int], dtype: torch.dtype) -> None:
    """Measures the peak and prints it."""
    step(way, inputs(8, 16, 1000, dtype))
    given = inputs(*sizes, dtype)
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    loss = step(way, given)
    peak = status("VmHWM") - before
    print(json.dumps({"loss": loss, "peak GiB": peak / GIB,
                      "extra GiB": (peak - given[1].nbytes) / GIB}))  # fmt: skip


def truth(given: tuple[Tensor, ...]) -> float:
    """The loss in float64, some tokens at a time."""
    hidden, weight, targets = given
    total = 0.0
    with torch.no_grad():
        for h, y in zip(hidden.split(128), targets.split(128), strict=True):
            high = torch.full((len(h),), -torch.inf, dtype=torch.float64)
            for rows in weight.split(16_384):
                logits = h.double() @ rows.double().T
                high = torch.logaddexp(high, logits.logsumexp(1))
            chosen = (h.double() * weight[y].double()).sum(1)
            total += float((high - chosen).sum())
    return total / len(targets)


def timed(given: tuple[Tensor, ...], pairs: int) -> dict[str, float]:
    """CPU times of ours and of the plain way, in turn."""
    mine, peer = [], []
    for _ in range(pairs):
        mine.append(seconds(lambda: step("ours", given)))
        peer.append(seconds(lambda: step("plain", given)))
    return paired(mine, peer)


def compare(sizes: list[int], dtype: str, pairs: int) -> dict[str, Any]:
    """Times, memory and errors at one size."""
    given = inputs(*sizes, getattr(torch, dtype))
    row: dict[str, Any] = {"tokens": sizes[0], "width": sizes[1], "vocabulary": sizes[2]}
    row |= {"dtype": dtype, **timed(given, pairs), "targets": TARGETS}
    exact = row["float64 loss"] = truth(given)
    row["slowdown"] = 1 / row["ratio"]
    del given
    for way in WAYS:
        row[way] = memory(way, sizes, dtype)
        if "loss" in row[way]:
            row[way]["relative error"] = abs(row[way]["loss"] - exact) / exact
    return row


def main() -> None:
    """Runs the comparison and prints or writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=202_048)
    parser.add_argument("--widths", type=int, nargs="+", default=[384, 2048])
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--alone", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.alone:
        alone(arguments.alone, arguments.sizes, getattr(torch, arguments.dtype))
        return
    roof = probes()
    print("probes:", {name: round(value, 1) for name, value in roof.items()}, flush=True)
    rows = []
    for width in arguments.widths:
        sizes = [arguments.tokens, width, arguments.vocabulary]
        row = compare(sizes, arguments.dtype, arguments.pairs)
        rows.append(row)
        print(
            f"width {width}, {arguments.dtype}: ours {row['ours s']:.2f} s, plain "
            f"{row['peer s']:.2f} s: {row['slowdown']:.2f}x its time "
            f"({1 / row['highest']:.2f} to {1 / row['lowest']:.2f}; target {TARGETS['slowdown']})"
        )
        for way in WAYS:
            if "loss" in row[way]:
                print(
                    f"  {way:13} extra {row[way]['extra GiB']:6.3f} GiB, loss "
                    f"{row[way]['loss']:.7f}, relative error {row[way]['relative error']:.1e}"
                )
        print(flush=True)
    settings = {
        key: value for key, value in vars(arguments).items() if key not in ("alone", "sizes")
    }
    write(arguments.json, settings, roof, rows)


if __name__ == "__main__":
    main()
