"""The whole line once: a foreign checkpoint, its report, text, swapped parts, and a picture.

Run by ``python noxfile.py -s demo``; needs no network and no GPU.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scene import BOAT, LIGHTHOUSE, scene

import llama4_core as l4
from llama4_core.chat import Image
from llama4_core.cli import main as llama4
from llama4_core.model.initialise import initialise
from llama4_core.specs.accounting import account
from llama4_core.specs.model import VisionSpec
from llama4_core.specs.presets import preset
from llama4_vision.grounding.boxes import Box, plain_text, write_boxes

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "tests" / "data" / "tiny-hf"
PROMPT = "The keeper of the lighthouse"
BACKEND = "layers.*.attention.backend"
EXPERTS = "layers.*.feed_forward.backend"
ROUTERS = "layers.*.feed_forward.router"
PICTURES = ROOT / "build" / "demo"
QUESTION = "Where are the lighthouse and the boat?"


def main() -> int:
    """Prints each step; returns 1 as soon as one does not hold."""
    began = time.perf_counter()
    torch.set_num_threads(1)  # so small a model only waits for a second thread

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

    step("A picture: how it is cut into tiles, and its tokens")
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture = PICTURES / "scene.png"
    scene().save(picture)
    if llama4(["show", "tiling", str(picture)]) != 0:
        return failed("the tiling could not be shown")

    step("The model with eyes, random as the rest of it: its answer means nothing")
    seeing = with_eyes(model)
    for question in (QUESTION, "What colour is the boat?"):
        with counting(seeing.vision) as tiles:
            reply = seeing.chat(question, images=[picture], max_tokens=12)
        print(f"  {question} {reply.message.text!r}")
        asked = len(reply.generation.prompt_tokens)
        print(f"  {asked} tokens in, {sum(tiles)} tiles through the encoder")
    if sum(tiles):
        return failed("the second question encoded the picture again")

    step("Boxes drawn from a text that this demo wrote, since a random model writes none")
    words = "Here are " + write_boxes([Box(*LIGHTHOUSE, "the lighthouse")])
    words += " and " + write_boxes([Box(*BOAT, "the boat")]) + "."
    print(f"  {words}\n  for people: {plain_text(words)}")
    drawn = PICTURES / "boxes.png"
    for box in seeing.vision.annotate(Image(picture), words, drawn):
        print(f"  {box['label']:14} in pixels {box['pixels']}")
    print(f"  drawn in {drawn.relative_to(ROOT)}")

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


def with_eyes(text: Any) -> Any:
    """The text model with a small random encoder: tiles of 112 pixels, 16 tokens each."""
    vision = VisionSpec(
        width=32,
        layers=2,
        heads=2,
        mlp_width=64,
        image_size=112,
        patch_size=14,
        channels=3,
        shuffle_ratio=0.5,
        adapter_width=64,
        adapter_output=64,
        theta=10_000.0,
        norm_eps=1e-5,
    )
    tokens = replace(text.spec.tokens, image=text.tokenizer.specials["<|patch|>"])
    model = l4.assemble(replace(text.spec, vision=vision, tokens=tokens), device="cpu")
    initialise(model, seed=0)
    model.load_state_dict(text.state_dict(), strict=False)
    model.tokenizer = text.tokenizer
    return model


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
