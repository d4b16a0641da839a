"""The whole mixture against transformers' ``Llama4TextMoe``: CPU time of one thread, in one run.

    python benchmarks/moe.py [--tokens 1 8 4096] [--pairs 5] [--json results.json]

Ours and the peer run in turn (A B A B ...) in one process and get the same tokens and the same
numbers as weights, each in its own layout. Every figure is the median of the ratios of
neighbouring runs. The time is ``time.thread_time``, which does not count waiting for other
programs. Probes in the same run show what the machine can do: reading memory, and matrix products.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import statistics
from pathlib import Path

import torch
from _measure import probes, seconds, write
from torch import Tensor
from transformers import Llama4TextConfig
from transformers.models.llama4.modeling_llama4 import Llama4TextMoe

from llama4_moe import MoE, MoEConfig

TARGETS = {("whole", 1): 15, ("whole", 4096): 7, ("routed", 1): 25, ("routed", 4096): 10}


def models(arguments: argparse.Namespace, dtype: torch.dtype) -> tuple[MoE, Llama4TextMoe]:
    """Ours and the peer's module with equal weights."""
    D, F_, E = arguments.hidden, arguments.width, arguments.experts
    config = Llama4TextConfig(
        hidden_size=D, intermediate_size=F_, num_local_experts=E, num_experts_per_tok=1
    )
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device("meta"):
        theirs = Llama4TextMoe(config)
        ours = MoE(MoEConfig(D, E, 1, F_, shared_width=F_))
    torch.set_default_dtype(torch.float32)
    state = {
        name: torch.empty(value.shape, dtype=dtype).normal_(std=0.02)
        for name, value in theirs.state_dict().items()
    }
    theirs.load_state_dict(state, assign=True)
    for name in ("experts.gate_up_proj", "experts.down_proj"):
        state[name] = state[name].transpose(1, 2).contiguous()
    ours.load_state_dict(state, assign=True)
    return ours, theirs


def routed_ours(ours: MoE, x: Tensor) -> Tensor:
    """Router and routed experts."""
    routing = ours.router(x, None)
    return ours.experts(x, routing, ours._pick(x), "input")


def routed_theirs(theirs: Llama4TextMoe, x: Tensor) -> Tensor:
    """The same lines of the peer's forward, without its shared expert."""
    scores, _ = theirs.router(x)
    rows = x.repeat(scores.shape[1], 1) * scores.transpose(0, 1).reshape(-1, 1)
    return theirs.experts(rows).reshape(scores.shape[1], -1, x.shape[1]).sum(dim=0)


@torch.inference_mode()
def compare(
    ours: MoE, theirs: Llama4TextMoe, part: str, tokens: int, pairs: int
) -> dict[str, object]:
    """Median ratio of CPU times over ``pairs`` neighbouring runs."""
    dtype = ours.router.weight.dtype
    xs = [torch.randn(tokens, ours.config.hidden).to(dtype) for _ in range(pairs + 1)]
    if part == "whole":
        a, b = (lambda x: ours(x)), (lambda x: theirs(x)[0])
    else:
        a, b = (lambda x: routed_ours(ours, x)), (lambda x: routed_theirs(theirs, x))
    # Warm-up, and a check that both compute the same: in low precision the peer rounds its logits
    # and may send a token elsewhere, so the median token is compared.
    first, second = a(xs[-1]).float(), b(xs[-1]).float()
    error = ((first - second).norm(dim=-1) / second.norm(dim=-1)).median()
    mine, peer = [], []
    for x in xs[:pairs]:
        mine.append(seconds(lambda x=x: a(x)))
        peer.append(seconds(lambda x=x: b(x)))
    ratios = sorted(p / m for m, p in zip(mine, peer, strict=True))
    return {
        "part": part,
        "tokens": tokens,
        "ours ms": statistics.median(mine) * 1e3,
        "peer ms": statistics.median(peer) * 1e3,
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
        "pairs": pairs,
        "median relative difference": float(error),
        "target": TARGETS.get((part, tokens)),
    }


def main() -> None:
    """Runs the comparison and prints or writes it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--experts", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 8, 4096])
    parser.add_argument("--pairs", type=int, default=9, help="3 at most above 1,024 tokens")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dtype = getattr(torch, arguments.dtype)
    roof = probes()
    print("probes:", {name: round(value, 1) for name, value in roof.items()}, flush=True)
    ours, theirs = models(arguments, dtype)
    ours.backend = arguments.backend
    rows = []
    for tokens in arguments.tokens:
        for part in ("whole", "routed"):
            pairs = arguments.pairs if tokens <= 1024 else min(arguments.pairs, 3)
            row = compare(ours, theirs, part, tokens, pairs)
            rows.append(row)
            print(
                f"{part:6} {tokens:5} tokens: ours {row['ours ms']:9.1f} ms, "
                f"transformers {row['peer ms']:9.1f} ms, {row['ratio']:5.1f}x "
                f"({row['lowest']:.1f} to {row['highest']:.1f}; target {row['target']})",
                flush=True,
            )
    write(arguments.json, vars(arguments), roof, rows)


if __name__ == "__main__":
    main()
