"""``llama4 demo``: the tour without a checkpoint: a small random model, explained and rebuilt."""

from __future__ import annotations

import argparse
from typing import Any

from llama4_core.errors import ComponentError

PROMPT = [1, 2, 3, 5, 8, 13, 21]


class Command:
    """Assembles, explains, generates, swaps a part, counts."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("--seed", type=int, default=0, help="of the random weights (default 0)")
        parser.epilog = "example:\n  llama4 demo"

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints each step; an error says which one does not hold."""
        import torch

        from llama4_core.specs.accounting import account
        from llama4_core.specs.presets import preset

        torch.set_num_threads(1)  # so small a model only waits for a second thread
        model = _load(arguments.seed)
        print(f"== nano, {sum(p.numel() for p in model.parameters()):,} random weights\n")
        print(model.report.to_text())
        print("\n== 12 tokens with two attention backends: equal")
        found = {}
        for name in ("eager", "sdpa"):
            other = _load(arguments.seed, {"layers.*.attention.backend": name})
            found[name] = other.generate(PROMPT, max_tokens=12, ignore_eos=True).tokens
            print(f"  {name:6} {list(found[name])}")
        if found["eager"] != found["sdpa"]:
            raise ComponentError(
                "the attention backends disagree; run `llama4 check attention_backend:sdpa` and "
                "report what it prints"
            )
        print("\n== What the published models weigh")
        for name in ("scout", "maverick"):
            costs = account(preset(name))
            total, active = costs.total / 1e9, costs.active / 1e9
            print(f"  {name:9} {total:7.3f}B in all, {active:6.3f}B active per token")
        print("\nNext: llama4 generate FOLDER 'Once upon a time', llama4 --help")
        return 0


def _load(seed: int, overrides: dict[str, Any] | None = None) -> Any:
    from llama4_core import load

    return load("nano", dtype="float32", random=seed, overrides=overrides)
