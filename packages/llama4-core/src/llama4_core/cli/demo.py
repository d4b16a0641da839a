"""``llama4 demo``: the small trained model answers; without it, a random one is taken apart."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.errors import ComponentError, ModalityError
from llama4_core.plugins.catalogue import catalogue

if TYPE_CHECKING:
    from llama4_core.demo.questions import Answer

TRAINED = "tiny"
FOLDER = "llama4-demo"
LONGER = "16 times"
PROMPT = [1, 2, 3, 5, 8, 13, 21]


class Command:
    """Lets the small trained model answer, explains it, swaps a part, counts."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "--random",
            type=int,
            metavar="SEED",
            help="a model of random weights instead of the trained one",
        )
        parser.add_argument(
            "--out",
            type=Path,
            default=Path(FOLDER),
            metavar="FOLDER",
            help=f"where the trained model's pictures go (default {FOLDER})",
        )
        parser.epilog = "examples:\n  llama4 demo\n  llama4 demo --random 0"

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints each step; an error says which one does not hold."""
        import torch

        torch.set_num_threads(1)  # so small a model only waits for a second thread
        if arguments.random is None and any(
            entry.name == TRAINED for entry in catalogue().components("models")
        ):
            model = _load(TRAINED)
            show_trained(model, arguments.out)
            print("\n== What runs in it, and why")
            print(model.report.to_text())
            _agree(TRAINED)
        else:
            _random(arguments.random)
        _published()
        print("\nNext: llama4 chat tiny, llama4 generate FOLDER 'Once upon a time', llama4 --help")
        return 0


def show_trained(model: Any, folder: Path) -> None:
    """Prints which model it is, and its answers to all kinds of questions.

    Args:
        model: trained, with a tokenizer.
        folder: for pictures.
    """
    from llama4_core.demo import questions

    entry = catalogue().find("models", TRAINED)
    count = sum(weight.numel() for weight in model.parameters())
    print(
        f"== {model.spec.name}: {count:,} trained weights, of {entry.distribution} {entry.version};"
        " every answer below is its own"
    )
    print("\n== A picture, drawn just now")
    if any(entry.name == "vision" for entry in catalogue().components("modalities")):
        _say(questions.about_a_picture(model, folder))
    else:
        print("  no installed package reads pictures: pip install llama4-vision")
    print(f"\n== A key in a text {LONGER} as long as those that it learnt keys from")
    _say([questions.about_a_long_text(model)])
    print("\n== Text that goes on, other languages, a sum")
    _say(questions.in_words(model))
    print("\n== A tool to call")
    _say(questions.with_tools(model))


def _say(answers: Iterable[Answer]) -> None:
    for one in answers:
        verdict = {True: "right", False: "WRONG", None: ""}[one.right]
        remark = ", ".join(part for part in (verdict, one.note) if part)
        said = " / ".join(one.said.split("\n"))
        end = f"   [{remark}]\n" if remark else "\n"
        print(f"  {one.question}\n    {said}", end=end, flush=True)


def _random(seed: int | None) -> None:
    """The tour without a trained model."""
    if seed is None:
        print(
            "No trained model is installed (pip install llama4-tiny brings one): the weights below "
            "are random, and what they say means nothing.\n"
        )
    model = _load("nano", seed or 0)
    print(f"== nano, {sum(p.numel() for p in model.parameters()):,} random weights\n")
    print(model.report.to_text())
    _agree("nano", seed or 0)
    print("\n== Pictures")
    if any(entry.name == "vision" for entry in catalogue().components("modalities")):
        _see(model, seed or 0)
    else:
        print("  no installed package reads pictures: pip install llama4-vision")


def _agree(name: str, seed: int | None = None) -> None:
    print("\n== 12 tokens with two attention backends: equal")
    found = {}
    for backend in ("eager", "sdpa"):
        other = _load(name, seed, {"layers.*.attention.backend": backend})
        found[backend] = other.generate(PROMPT, max_tokens=12, ignore_eos=True).tokens
        print(f"  {backend:6} {list(found[backend])}")
    if found["eager"] != found["sdpa"]:
        raise ComponentError(
            "the attention backends disagree; run `llama4 check attention_backend:sdpa` and "
            "report what it prints"
        )


def _published() -> None:
    from llama4_core.specs.accounting import account
    from llama4_core.specs.presets import preset

    print("\n== What the published models weigh")
    for name in ("scout", "maverick"):
        costs = account(preset(name))
        total, active = costs.total / 1e9, costs.active / 1e9
        print(f"  {name:9} {total:7.3f}B in all, {active:6.3f}B active per token")


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


def _load(name: str, seed: int | None = None, overrides: dict[str, Any] | None = None) -> Any:
    """In float32, where equal mathematics gives equal tokens."""
    from llama4_core import load

    return load(name, dtype="float32", random=seed, overrides=overrides)
