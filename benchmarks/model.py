"""A whole model beside transformers: prefill and decode, one thread, CPU time, one run.

    python benchmarks/model.py [--cases d1 d16 p512 p4096] [--rounds 3] [--json results.json]

The model is random, of 816 million parameters: 12 layers (three chunked to one global), every
second a mixture of 16 experts, width 1,024, vocabulary 32,768. transformers writes the checkpoint;
both sides load it (ours converted to the native format). ``dB`` decodes B sequences, a step of
each side in turn; ``pN`` prefills N tokens, ours and theirs in turn. Ratios are medians over
neighbouring runs of ``time.thread_time``. Both get the same tokens, after a short prefill of each
that is not timed, and the argmaxes of both prefills are compared (rounded router logits may flip an
expert in bfloat16, so they are reported, not required to be equal).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import gc
import tempfile
from pathlib import Path
from typing import Any

import torch
from _measure import paired, probes, seconds, write
from torch import Tensor

TARGETS = {"d1": 4.0, "d16": 1.6, "p512": 2.8, "p4096": 2.8}
CONFIG: dict[str, Any] = {
    "vocab_size": 32768,
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "intermediate_size_mlp": 4096,
    "num_hidden_layers": 12,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "num_local_experts": 16,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2,
    "attention_chunk_size": 8192,
    "max_position_embeddings": 32768,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}


def checkpoint(folder: Path) -> None:
    """Lets transformers write a random checkpoint, unless it is there."""
    if (folder / "config.json").is_file():
        return
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = Llama4ForCausalLM(Llama4TextConfig(**CONFIG))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    del model
    gc.collect()


class Theirs:
    """transformers, as its users call it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self.past: Any = None

    def prefill(self, tokens: Tensor) -> Tensor:
        """Last logits of ``[B, T]``, into a fresh cache."""
        out = self.model(tokens, use_cache=True, logits_to_keep=1)
        self.past = out.past_key_values
        return out.logits[:, -1]

    def decode(self, tokens: Tensor) -> Tensor:
        """Next logits of ``[B]``."""
        out = self.model(
            tokens[:, None], past_key_values=self.past, use_cache=True, logits_to_keep=1
        )
        self.past = out.past_key_values
        return out.logits[:, -1]


class Ours:
    """The same model by this project."""

    def __init__(self, folder: Path) -> None:
        import llama4_core as l4

        self.model = l4.load(folder)
        self.cached: Any = None

    def prefill(self, tokens: Tensor) -> Tensor:
        """Last logits of ``[B, T]``, into a fresh cache."""
        rows, length = tokens.shape
        self.cached = self.model.cached(rows, capacity=length + 64)
        hidden, _ = self.model(tokens.reshape(-1), self.cached.extend([length] * rows))
        self.cached.commit()
        return self.model.project(hidden.unflatten(0, (rows, length))[:, -1])

    def decode(self, tokens: Tensor) -> Tensor:
        """Next logits of ``[B]``."""
        hidden, _ = self.model(tokens, self.cached.extend([1] * tokens.shape[0]))
        self.cached.commit()
        return self.model.project(hidden)


def measure(case: str, ours: Ours, theirs: Theirs, arguments: argparse.Namespace) -> dict[str, Any]:
    """One case, both sides in turn."""
    size = int(case[1:])
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randint(10, CONFIG["vocab_size"], shape, generator=generator)

    # Ours maps its weights: the first use of a page costs. Allocators and caches warm up too.
    warm = draw(1, 64)
    ours.prefill(warm)
    theirs.prefill(warm)
    mine, peer = [], []
    if case[0] == "p":
        same, tokens_per_run = [], size
        for _ in range(arguments.rounds if size <= 1024 else 1):
            tokens = draw(1, size)
            found: dict[str, Tensor] = {}
            mine.append(seconds(lambda t=tokens, f=found: f.update(ours=ours.prefill(t))))
            peer.append(seconds(lambda t=tokens, f=found: f.update(theirs=theirs.prefill(t))))
            same.append(bool((found["ours"].argmax(-1) == found["theirs"].argmax(-1)).all()))
    else:
        tokens_per_run = size
        prompt = draw(size, arguments.prompt)
        same = [
            float(
                (ours.prefill(prompt).argmax(-1) == theirs.prefill(prompt).argmax(-1))
                .float()
                .mean()
            )
        ]
        for _ in range(arguments.steps if size == 1 else max(4, arguments.steps // 4)):
            tokens = draw(size)
            mine.append(seconds(lambda t=tokens: ours.decode(t)))
            peer.append(seconds(lambda t=tokens: theirs.decode(t)))
    row = {"case": case, **paired(mine, peer), "runs": len(mine), "argmax agreement": same}
    row["ours tokens/s"] = tokens_per_run / row["ours s"]
    row["peer tokens/s"] = tokens_per_run / row["peer s"]
    return {**row, "target": TARGETS.get(case)}


def main() -> None:
    """Runs the cases and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(TARGETS))
    parser.add_argument("--rounds", type=int, default=2, help="of prefills up to 1,024 tokens")
    parser.add_argument("--steps", type=int, default=16, help="of decoding one sequence")
    parser.add_argument("--prompt", type=int, default=32, help="tokens before decoding starts")
    parser.add_argument("--folder", type=Path, help="keeps the checkpoint for another run")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        folder = arguments.folder or Path(scratch)
        checkpoint(folder / "huggingface")
        if not (folder / "native").is_dir():
            import llama4_core as l4

            l4.save(l4.load(folder / "huggingface"), folder / "native", format="native")
        roof = probes()
        print("probes:", {name: round(value, 1) for name, value in roof.items()}, flush=True)
        ours, theirs = Ours(folder / "native"), Theirs(folder / "huggingface")
        rows = []
        for case in arguments.cases:
            row = measure(case, ours, theirs, arguments)
            rows.append(row)
            print(
                f"{case:6} ours {row['ours tokens/s']:8.1f} tokens/CPU-s, "
                f"transformers {row['peer tokens/s']:8.1f}: {row['ratio']:5.1f}x "
                f"({row['lowest']:.1f} to {row['highest']:.1f}; target {row['target']})",
                flush=True,
            )
    write(arguments.json, vars(arguments), roof, rows)


if __name__ == "__main__":
    main()
