"""A small model that sees, without llama4-vision: its pictures are lists of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

import llama4_core as l4
from llama4_core.chat.messages import Image
from llama4_core.errors import ModalityError
from llama4_core.model.initialise import initialise
from llama4_core.protocols.modalities import Reading
from llama4_core.specs import AttentionSpec, DenseSpec, LayerSpec, ModelSpec, RopeSpec, TokenIds
from llama4_core.specs.model import VisionSpec
from llama4_core.testing.chat_strategies import ByteTokenizer

PATCH, START, END = 290, 291, 292
# Kept for configuration only: the fake below looks at none of these numbers.
VISION = VisionSpec(8, 1, 2, 16, 28, 14, 3, 0.5, 8, 8, 1e4, 1e-5)


@dataclass(frozen=True)
class FakeLimits:
    images: int = 4


class FakeEyes(nn.Module):
    """Reads pictures, each a list of numbers: two places for each number.

    A film is a list of pictures, with the number of each frame as text in front of it.

    Attributes:
        forwards: numbers encoded in each forward.
        reads: how many parts each call of ``read`` got.
    """

    kinds = ("image", "video")

    def __init__(self, spec, parts):
        super().__init__()
        self.placeholder = spec.tokens.image
        self.projector = nn.Linear(2, 2 * spec.width, bias=False)
        self.limits = FakeLimits()
        self.forwards = []
        self.reads = []

    def read(self, parts, tokenizer):
        self.reads.append(len(parts))
        if len(parts) > self.limits.images:
            raise ModalityError(f"got {len(parts)} pictures; expected at most {self.limits.images}")
        return [self._reading(part) for part in parts]

    def _reading(self, part):
        if isinstance(part, Image):
            return reading([numbers(part.source)], [()])
        frames = [numbers(frame) for frame in part.source][: part.frames]
        return reading(frames, [(48 + index,) for index in range(len(frames))])

    def forward(self, inputs):
        self.forwards.append(len(inputs))
        return self.projector(inputs).unflatten(-1, (2, -1))

    def annotate(self, part, text, path):
        try:
            Path(path).write_text(f"{part.source}: {text}")
        except OSError as error:
            raise ModalityError(f"{path} cannot be written: {error}") from error
        return [{"box": [index]} for index in range(text.count("a"))]


def numbers(source):
    if isinstance(source, str):
        try:
            return [float(word) for word in Path(source).read_text().split()]
        except (OSError, ValueError) as error:
            raise ModalityError(f"{source} is no picture ({error}); give another") from error
    return list(source)


def reading(frames, markers):
    tokens = []
    for frame, marker in zip(frames, markers, strict=True):
        tokens += [*marker, START, *[PATCH] * (2 * len(frame)), END]
    values = [number for frame in frames for number in frame]
    inputs = torch.tensor([[number, 1.0] for number in values])
    return Reading(str(frames), tuple(tokens), 2 * len(values), inputs)


def sighted_spec(**changes):
    chunked = AttentionSpec("irope-chunked", 2, 1, 8, rope=RopeSpec(1e4), chunk=8, qk_norm=True)
    layers = tuple(
        LayerSpec(attention, DenseSpec(24))
        for attention in (chunked, AttentionSpec("nope-global", 2, 1, 8))
    )
    tokens = TokenIds(bos=256, eos=(261,), image=PATCH, image_start=START, image_end=END)
    settings = {"vision": VISION, "tokens": tokens, "dtype": "float32", **changes}
    return ModelSpec("sighted", 300, 16, 1e-5, 512, False, layers, **settings)


def make_sighted(eyes=FakeEyes, seed=0, **changes):
    """A model of random weights with the fake modality, or with what the override says."""
    overrides = {} if changes.get("vision", VISION) is None else {"vision": eyes}
    model = l4.assemble(sighted_spec(**changes), overrides, device="cpu")
    initialise(model, seed)
    model.tokenizer = ByteTokenizer()
    return model


@pytest.fixture(scope="session")
def sighted():
    """Makes models that see: see :func:`make_sighted`."""
    return make_sighted


@pytest.fixture(scope="session")
def seeing():
    """One such model for properties, which must leave its weights as they are."""
    return make_sighted()
