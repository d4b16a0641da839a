"""Attention of the sdpa backend against the forms it replaces: CPU time of one thread, one run.

    python benchmarks/attention.py [--cases prefill decode streamed] [--dtypes bfloat16 float32]
                                   [--pairs 3] [--json results.json]

prefill   16,384 tokens in chunks of 2,048, against one masked call: time, bit-equality, memory
decode    one token behind 65,536 cached keys, against keys repeated for every query head
streamed  2,048 tokens behind 65,536 cached keys, against one masked call

Ours and the peer run in turn (A B A B ...) on the same tensors in one process; every ratio is the
median over neighbouring runs. Ours plans in each call, though a model plans once per forward for
all layers; the peer's mask is built once, before the timing, and counted as its memory. The time is
``time.thread_time``, which does not count waiting for other programs. Probes in the same run show
what the machine can do: reading memory, and the product of queries and keys. Memory is the peak of
a process of its own, less what it held before the call and the output (Linux). A processor without
bf16 instructions emulates them; the float32 rows are the ones to read there.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import functools
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from _measure import seconds, write
from torch import Tensor

from llama4_core.attention.sdpa import SdpaAttention
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Causal, Chunked, SameDocument

TARGETS = {"prefill": 10.0, "decode": 10.0, "streamed": 1.8}
K = 128
SCALE = K**-0.5
CAUSAL = Causal() & SameDocument()
Run = Callable[[], Tensor]

torch.set_num_threads(1)
torch.set_grad_enabled(False)


def probes(dtype: torch.dtype) -> dict[str, float]:
    """GB/s read from memory; GFLOP/s of ``q k^T`` at the benchmark's head dim."""
    memory = torch.zeros(1 << 26, dtype=torch.int64)
    memory.sum()
    read = 0.53687 / min(seconds(memory.sum) for _ in range(3))
    q, k = torch.randn(2048, K).to(dtype), torch.randn(4096, K).to(dtype)
    q @ k.T
    best = min(seconds(lambda: q @ k.T) for _ in range(3))
    return {"read GB/s": read, "q k^T GFLOP/s": 2 * 2048 * 4096 * K / best / 1e9}


def prefill(dtype: torch.dtype) -> tuple[Run, Run, dict[str, Any]]:
    length, chunk, heads = 16384, 2048, 5
    q, keys, values = (torch.randn(length, n, K).to(dtype) for n in (heads, 1, 1))
    backend = SdpaAttention()
    batch = AttentionBatch((Segment(0, length, 0, length),), CAUSAL & Chunked(chunk))
    at = torch.arange(length)

    def ours() -> Tensor:
        return backend(q, keys, values, backend.plan(batch), scale=SCALE)

    @functools.cache
    def mask() -> Tensor:
        return (at[:, None] >= at) & (at[:, None] // chunk == at // chunk)

    def masked() -> Tensor:
        output = F.scaled_dot_product_attention(
            *(x.transpose(0, 1)[None] for x in (q, keys, values)),
            attn_mask=mask(),
            scale=SCALE,
            enable_gqa=True,
        )
        return output[0].transpose(0, 1)

    flops = 4 * heads * K * length * chunk / 2
    tensors = sum(x.nbytes for x in (q, keys, values)) + q.nbytes
    return ours, masked, {"flops": flops, "equal": True, "tensors": tensors}


def decode(dtype: torch.dtype) -> tuple[Run, Run, dict[str, Any]]:
    length, heads, groups = 65536, 40, 8
    q = torch.randn(1, heads, K).to(dtype)
    keys, values = (torch.randn(1, groups, length, K).to(dtype) for _ in range(2))
    backend = SdpaAttention()
    segment = Segment(length - 1, 1, 0, length)
    batch = AttentionBatch((segment,), CAUSAL, key_layout="head_major")

    def ours() -> Tensor:
        return backend(q, keys, values, backend.plan(batch), scale=SCALE)

    def repeated() -> Tensor:
        k, v = (x.repeat_interleave(heads // groups, dim=1) for x in (keys, values))
        return F.scaled_dot_product_attention(q[:, :, None], k, v, scale=SCALE)[:, :, 0]

    return ours, repeated, {"bytes": keys.nbytes + values.nbytes, "tensors": 2 * keys.nbytes}


def streamed(dtype: torch.dtype) -> tuple[Run, Run, dict[str, Any]]:
    past, length, heads = 65536, 2048, 4
    q = torch.randn(length, heads, K).to(dtype)
    keys, values = (torch.randn(1, 1, past + length, K).to(dtype) for _ in range(2))
    backend = SdpaAttention()
    segment = Segment(past, length, 0, past + length)
    batch = AttentionBatch((segment,), CAUSAL, key_layout="head_major")
    at = torch.arange(past + length)

    def ours() -> Tensor:
        return backend(q, keys, values, backend.plan(batch), scale=SCALE)

    @functools.cache
    def mask() -> Tensor:
        return at[past:, None] >= at

    def masked() -> Tensor:
        output = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None], keys, values, attn_mask=mask(), scale=SCALE, enable_gqa=True
        )
        return output[0].transpose(0, 1)

    flops = 4 * heads * K * length * (past + length / 2)
    return ours, masked, {"flops": flops, "tensors": 2 * keys.nbytes + 2 * q.nbytes}


CASES = {"prefill": prefill, "decode": decode, "streamed": streamed}


def memory(case: str, dtype: str, which: str) -> float:
    """MiB by which one call raises the peak of a fresh process."""
    command = [sys.executable, __file__, "--child", case, dtype, which]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def child(case: str, dtype: str, which: str) -> None:
    runs = CASES[case](getattr(torch, dtype))
    # Load the code of the kernels, of which the first call would otherwise be charged.
    small = torch.ones(64, 1, K).to(getattr(torch, dtype))
    backend = SdpaAttention()
    tiny = AttentionBatch((Segment(0, 64, 0, 64),), CAUSAL & Chunked(16))
    backend(small, small, small, backend.plan(tiny), scale=SCALE)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: start the peak anew
    before = peak()
    kept = runs[0 if which == "ours" else 1]()
    print(peak() - before - kept.nbytes / 2**20)


def peak() -> float:
    """Largest resident size so far, MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def measure(case: str, dtype: str, pairs: int) -> dict[str, Any]:
    ours, peer, facts = CASES[case](getattr(torch, dtype))
    roof = probes(getattr(torch, dtype))
    first, second = ours(), peer()
    times: list[tuple[float, float]] = []
    for _ in range(pairs):
        times.append((seconds(ours), seconds(peer)))
    our_time = statistics.median(one for one, _ in times)
    result: dict[str, Any] = {
        "case": case,
        "dtype": dtype,
        "ours ms": 1e3 * our_time,
        "peer ms": 1e3 * statistics.median(two for _, two in times),
        "ratio": statistics.median(two / one for one, two in times),
        "target": TARGETS[case],
        "largest difference": float((first - second).abs().max()),
        "bit-equal": torch.equal(first, second),
        **roof,
    }
    if "bytes" in facts:
        result["share of read roof"] = facts["bytes"] / our_time / 1e9 / roof["read GB/s"]
    else:
        result["share of q k^T roof"] = facts["flops"] / our_time / 1e9 / roof["q k^T GFLOP/s"]
    del ours, peer, first, second
    for which in ("ours", "peer"):
        result[f"{which} extra MiB"] = memory(case, dtype, which)
    result["ours extra of tensors"] = result["ours extra MiB"] * 2**20 / facts["tensors"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--dtypes", nargs="+", default=["bfloat16", "float32"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return
    results = []
    for case in arguments.cases:
        for dtype in arguments.dtypes:
            results.append(measure(case, dtype, arguments.pairs))
            for name, value in results[-1].items():
                print(
                    f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}"
                )
            print(flush=True)
    # each row holds the probes of its dtype
    write(arguments.json, vars(arguments), None, results)


if __name__ == "__main__":
    main()
