"""Attention of bfloat16 tensors forward and backward: as it is, and through float32.

    python benchmarks/attention_training.py [--heads 32 64 128] [--lengths 128 512 2048]
                                            [--rounds 7] [--json results.json]

CPU time of one thread; both sides run in turn in one process on the same 2,048 tokens (4 query and
2 kv heads, causal documents of one length) by the backend ``sdpa``, told to widen or not to. A
figure is the median ratio of neighbouring runs: above 1, float32 is faster, casts included.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from pathlib import Path

import torch
from _measure import paired, probes, seconds, write

from llama4_core.attention.sdpa import SdpaAttention
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Causal, SameDocument

TOKENS, HEADS, GROUPS = 2048, 4, 2


def compare(head: int, length: int, rounds: int) -> dict[str, float]:
    """Both sides in turn; the first round warms up."""
    segments = tuple(
        Segment(0, length, 0, length, key_offset=start) for start in range(0, TOKENS, length)
    )
    batch = AttentionBatch(segments, Causal() & SameDocument(), grad=True)
    torch.manual_seed(0)
    inputs = [
        torch.randn(TOKENS, count, head).bfloat16().requires_grad_()
        for count in (HEADS, GROUPS, GROUPS)
    ]
    change = torch.randn(TOKENS, HEADS, head).bfloat16()

    def step(backend: SdpaAttention) -> None:
        output = backend(*inputs, backend.plan(batch), scale=head**-0.5)
        torch.autograd.grad(output, inputs, change)

    wide, narrow = SdpaAttention(head), SdpaAttention(0)
    spent: dict[int, list[float]] = {0: [], 1: []}
    for number in range(rounds + 1):
        for side, backend in enumerate((wide, narrow)):
            used = seconds(lambda b=backend: step(b))
            if number:
                spent[side].append(used)
    return paired(spent[0], spent[1])


def main() -> None:
    """Prints one line per case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    roof, rows = probes(), []
    print("probes:", {name: round(value, 1) for name, value in roof.items()}, flush=True)
    for head in arguments.heads:
        for length in arguments.lengths:
            row = {"head": head, "length": length} | compare(head, length, arguments.rounds)
            rows.append(row)
            print(
                f"head {head:3}, documents of {length:4}: float32 {row['ours s'] * 1e3:6.1f} ms, "
                f"bfloat16 {row['peer s'] * 1e3:6.1f} ms: {row['ratio']:.2f}x "
                f"({row['lowest']:.2f} to {row['highest']:.2f})",
                flush=True,
            )
    write(arguments.json, vars(arguments), roof, rows)


if __name__ == "__main__":
    main()
