"""A training step beside transformers': one thread, CPU time, both sides in turn in one run.

    python benchmarks/training_step.py [--experts 8 32] [--dtypes float32 bfloat16] [--steps 4]
                                       [--memory] [--json results.json]

The model of 35M parameters that the peers' script uses (V 8,192, D 384, 8 layers, every second one
with experts, top 1), 2 documents of 512 random tokens, gradients clipped to 1, fused AdamW on both
sides. Both start from equal weights and their losses are compared after every step. transformers
computes every expert on every token. ``--memory`` runs each side in a process of its own and prints
the peak of resident memory above that after the imports.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _measure import paired, probes, write

import llama4_core as l4
from llama4_train.objectives.next_token import NextToken
from llama4_train.protocols import Batch, StepFacts

WIDTHS = {"hidden_size": 384, "intermediate_size": 512, "intermediate_size_mlp": 1024}
TARGETS = {("float32", 8): 1.7, ("float32", 32): 3.2, ("bfloat16", 8): 1.25, ("bfloat16", 32): 3.0}
DOCUMENTS, LENGTH, VOCABULARY = 2, 512, 8192
# Losses of two orders of summation; expert flips would show as more. bfloat16 rounds at 2^-8.
AGREE = {"float32": 1e-3, "bfloat16": 5e-2}


def theirs_of(experts: int) -> Any:
    """transformers' model with random weights."""
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    torch.manual_seed(0)
    config = Llama4TextConfig(
        **WIDTHS,
        vocab_size=VOCABULARY,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=64,
        num_local_experts=experts,
        num_experts_per_tok=1,
        interleave_moe_layer_step=2,
        attention_chunk_size=256,
        max_position_embeddings=4096,
        use_qk_norm=True,
        pad_token_id=0,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
    )
    config._attn_implementation = "sdpa"
    return Llama4ForCausalLM(config)


def ours_of(folder: str) -> Any:
    """Ours with the same weights, in memory of its own and in our layout."""
    model = l4.load(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous().clone()
    return model


def their_step(model: Any, tokens: torch.Tensor) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4, fused=True)

    def step() -> float:
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        return _taken(model, optimizer, loss)

    return step


def our_step(model: Any, tokens: torch.Tensor) -> Callable[[], float]:
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4, fused=True)
    targets = torch.cat([tokens[:, 1:], torch.full((DOCUMENTS, 1), -100)], dim=1).flatten()
    weights = (targets >= 0).float()
    batch = Batch(tokens.flatten(), targets, weights, (LENGTH,) * DOCUMENTS)
    facts = StepFacts(0, batch.weight, len(batch.tokens))
    objective = NextToken()

    def step() -> float:
        loss = objective(model, batch, facts).total
        loss.backward()
        return _taken(model, optimizer, loss)

    return step


def _taken(model: Any, optimizer: Any, loss: torch.Tensor) -> float:
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def steps_of(experts: int, dtype: str, sides: str) -> dict[str, Callable[[], float]]:
    """A step of each side."""
    tokens = torch.randint(0, VOCABULARY, (DOCUMENTS, LENGTH), generator=torch.manual_seed(1))
    theirs = theirs_of(experts)
    made: dict[str, Any] = {}
    if sides != "theirs":
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            ours = ours_of(folder)
        made["ours"] = our_step(ours.to(getattr(torch, dtype)).train(), tokens)
    if sides != "ours":
        made["theirs"] = their_step(theirs.to(getattr(torch, dtype)).train(), tokens)
    return made


def timed(step: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    loss = step()
    return time.process_time() - start, loss


def compare(experts: int, dtype: str, count: int) -> dict[str, Any]:
    """Both sides in turn; the first step of each warms up."""
    steps = steps_of(experts, dtype, "both")
    spent: dict[str, list[float]] = {"ours": [], "theirs": []}
    for number in range(count + 1):
        losses = {}
        for side, step in steps.items():
            used, losses[side] = timed(step)
            if number:
                spent[side].append(used)
        assert abs(losses["ours"] - losses["theirs"]) < AGREE[dtype], losses
    return paired(spent["ours"], spent["theirs"])


def resident(what: str) -> float:
    """MiB of this process: "VmRSS" now, "VmHWM" at most so far (not inherited from a parent)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def peak(side: str, experts: int, dtype: str) -> float:
    """MiB above what the imports hold, of a process that takes three steps of one side."""
    words = [sys.executable, __file__, "--side", side, "--experts", str(experts), "--dtypes", dtype]
    return float(
        subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if arguments.side:
        import transformers  # noqa: F401 - in memory on both sides, before the count begins

        held = resident("VmRSS")
        (step,) = steps_of(arguments.experts[0], arguments.dtypes[0], arguments.side).values()
        for _ in range(3):
            step()
        print(resident("VmHWM") - held)
        return
    roof, rows = probes(), []
    print("probes:", {name: round(value, 1) for name, value in roof.items()})
    for dtype in arguments.dtypes:
        for experts in arguments.experts:
            row = {"dtype": dtype, "experts": experts} | compare(experts, dtype, arguments.steps)
            target = TARGETS.get((dtype, experts))
            print(
                f"{dtype:8} E={experts:<3} ours {row['ours s']:6.2f} s, transformers "
                f"{row['peer s']:6.2f} s: {row['ratio']:5.2f}x ({row['lowest']:.2f} to "
                f"{row['highest']:.2f}; target {target})",
                flush=True,
            )
            if arguments.memory:
                row |= {f"{side} MiB": peak(side, experts, dtype) for side in ("ours", "theirs")}
                share = row["ours MiB"] / row["theirs MiB"]
                both = f"{row['ours MiB']:.0f} of {row['theirs MiB']:.0f} MiB"
                print(f"{'':14}memory {both}: {share:.2f}")
            rows.append(row)
    write(arguments.json, vars(arguments), roof, rows)


if __name__ == "__main__":
    main()
