"""``llama4 demo``: the tour without a checkpoint: a small random model, explained and rebuilt."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from llama4_core.errors import ComponentError, ModalityError
from llama4_core.plugins.catalogue import catalogue

PROMPT = [1, 2, 3, 5, 8, 13, 21]


class Command:
    """Assembles, explains, generates, swaps a part, shows a picture, counts."""

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
        print("\n== Pictures")
        if any(entry.name == "vision" for entry in catalogue().components("modalities")):
            _see(model, arguments.seed)
        else:
            print("  no installed package reads pictures: pip install llama4-vision")
        print("\n== What the published models weigh")
        for name in ("scout", "maverick"):
            costs = account(preset(name))
            total, active = costs.total / 1e9, costs.active / 1e9
            print(f"  {name:9} {total:7.3f}B in all, {active:6.3f}B active per token")
        print("\nNext: llama4 generate FOLDER 'Once upon a time', llama4 --help")
        return 0


def _see(text: Any, seed: int) -> None:
    """Shows tiles, and that a picture reaches what comes after it, and nothing before."""
    import torch

    from llama4_core.assembly.assemble import assemble
    from llama4_core.cli.main import main
    from llama4_core.model.initialise import initialise
    from llama4_core.specs.model import TokenIds, VisionSpec

    if main(["show", "tiling", "1920x1080"]) != 0:
        raise ComponentError("llama4 show tiling failed; run `llama4 plugins` and see why")
    vision = VisionSpec(
        width=32,
        layers=2,
        heads=2,
        mlp_width=64,
        image_size=56,
        patch_size=14,
        channels=3,
        shuffle_ratio=0.5,
        adapter_width=64,
        adapter_output=64,
        theta=10_000.0,
        norm_eps=1e-5,
    )
    patch = text.spec.vocabulary - 1
    spec = replace(text.spec, vision=vision, tokens=TokenIds(image=patch))
    model = assemble(spec, device="cpu")
    initialise(model.vision, seed)
    model.load_state_dict(text.state_dict(), strict=False)
    tokens = [*PROMPT, patch, patch, patch, patch, *PROMPT]
    with torch.no_grad():
        dark, light = (model.logits(tokens, torch.full((1, 3, 56, 56), x)) for x in (-1.0, 1.0))
    moved = (dark - light).abs().amax(dim=-1)
    before = len(PROMPT)
    # Not the same bits: which tokens share an expert, and so its products, depends on all of them.
    # The bound is that of two backends in float32.
    if moved[:before].max() > 2e-5 or moved[before:].min() < 1e-3:
        raise ModalityError("a picture did not reach what comes behind it, or reached more")
    print(f"\n  with random eyes: {before} tokens, one tile as 4 tokens, {before} tokens")
    print("  a light tile in place of a dark one: logits before it are the same,")
    print(f"  those behind it up to {float(moved[before:].max()):.2f} apart")


def _load(seed: int, overrides: dict[str, Any] | None = None) -> Any:
    from llama4_core import load

    return load("nano", dtype="float32", random=seed, overrides=overrides)
