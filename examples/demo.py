"""The whole line once: the trained model answers; a foreign checkpoint, its report, swapped parts.

Run by ``python noxfile.py -s demo``; needs no network and no GPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from scene import scene

import llama4_core as l4
from llama4_core.cli import main as llama4
from llama4_core.cli.demo import show_trained
from llama4_core.specs.accounting import account
from llama4_core.specs.presets import preset

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "tests" / "data" / "tiny-hf"
PROMPT = "The keeper of the lighthouse"
BACKEND = "layers.*.attention.backend"
EXPERTS = "layers.*.feed_forward.backend"
ROUTERS = "layers.*.feed_forward.router"
PICTURES = ROOT / "build" / "demo"


def main() -> int:
    """Prints each step; returns 1 as soon as one does not hold."""
    began = time.perf_counter()
    torch.set_num_threads(1)  # so small a model only waits for a second thread

    print()
    trained = l4.load("tiny", dtype="float32")
    show_trained(trained, PICTURES)
    with counting(trained.vision) as tiles:
        trained.chat("What colour is the star?", images=[PICTURES / "picture.png"], max_tokens=8)
    if sum(tiles):
        return failed("a further question encoded the picture again")
    print("  a further question about the picture: no tile goes through the encoder again")

    step("A checkpoint that transformers wrote, mapped as it stands")
    model = load()
    print(model.report.to_text())

    step("Greedy text with every pair of two attention and two expert backends: equal tokens")
    found = {}
    for attention in ("eager", "sdpa"):
        for experts in ("dense", "loop"):
            other = load(overrides={BACKEND: attention, EXPERTS: experts})
            found[attention, experts] = generate(other)
            print(f"  {attention:6} {experts:6} {found[attention, experts].tokens}")
    if len({tuple(result.tokens) for result in found.values()}) != 1:
        return failed("the backends disagree")
    print(f"  text: {PROMPT + next(iter(found.values())).text!r}")

    step("Another router, from a plugin package (examples/plugins): the output changes")
    before = model.logits(encoded(model))
    hashed = load(overrides={ROUTERS: "hash"})
    print(f"  sigmoid-top-k {generate(model).tokens}")
    print(f"  hash          {generate(hashed).tokens}")
    if torch.equal(before, hashed.logits(encoded(hashed))):
        return failed("the router changed nothing")

    step("And back: equal to the last bit")
    if not torch.equal(before, load().logits(encoded(model))):
        return failed("swapping back did not give the same logits")
    print("  logits are bit-equal")

    step("A larger picture: how it is cut into tiles, and its tokens")
    picture = PICTURES / "scene.png"
    scene().save(picture)
    if llama4(["show", "tiling", str(picture)]) != 0:
        return failed("the tiling could not be shown")

    step("What the published models weigh")
    for name in ("scout", "maverick"):
        costs = account(preset(name))
        total, active = costs.total / 1e9, costs.active / 1e9
        print(f"  {name:9} {total:7.3f}B in all, {active:6.3f}B active per token")
    print(f"\nAll of it in {time.perf_counter() - began:.1f} s. Next: llama4 --help")
    return 0


def load(**settings: Any) -> Any:
    """The checkpoint in float32, where equal mathematics gives equal tokens."""
    return l4.load(CHECKPOINT, dtype="float32", **settings)


@contextmanager
def counting(vision: Any) -> Iterator[list[int]]:
    """How many tiles each forward of a modality gets."""
    found: list[int] = []
    forward = vision.forward

    def counted(tiles: Any) -> Any:
        found.append(len(tiles))
        return forward(tiles)

    vision.forward = counted
    try:
        yield found
    finally:
        del vision.forward


def generate(model: Any) -> Any:
    """32 greedy tokens."""
    return model.generate(PROMPT, max_tokens=32, temperature=0.0)


def encoded(model: Any) -> list[int]:
    """The prompt's token ids."""
    return list(model.tokenizer.encode(PROMPT))


def step(title: str) -> None:
    """Announces a step."""
    print(f"\n== {title}", flush=True)


def failed(reason: str) -> int:
    """Says what does not hold."""
    print(f"demo failed: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    # Not inference_mode: of weights made in it torch counts no changes, so that nobody could know
    # whether the kept features of a picture are still those of the model.
    with torch.no_grad():
        sys.exit(main())
