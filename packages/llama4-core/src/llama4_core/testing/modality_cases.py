"""What the checks of modalities read: small inputs of every kind, and a model to put them into.

Pictures need Pillow, which core does not: it is looked for when a modality reads them. Inputs of a
kind that is not known here come from the modality itself, by its method ``sample(seed)``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st

from llama4_core.errors import ModalityError
from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.plugins.overrides import Overrides
from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    RopeSpec,
    TokenIds,
    VisionSpec,
)
from llama4_core.testing.check import Refused, Subject
from llama4_core.testing.compare import holds
from llama4_core.testing.strategies import DTYPES
from llama4_core.tokenizers.meta import MetaTokenizer, tokenizers_encoder
from llama4_core.tokenizers.sample import sample_ranks

PLACEHOLDER = "<|patch|>"
"""The special token whose embedding features replace."""

# Largest edge of a drawn picture: several tiles of 28 pixels, one of 64.
_EDGE = 70


@functools.cache
def tokenizer() -> MetaTokenizer:
    """A tokenizer with the special tokens of Llama 4."""
    return MetaTokenizer(sample_ranks(), tokenizers_encoder)


@functools.cache
def specs() -> tuple[ModelSpec, ...]:
    """Models whose width, tiles and features per tile differ."""
    ids = tokenizer().specials
    tokens = TokenIds(image=ids[PLACEHOLDER])
    layer = LayerSpec(
        AttentionSpec("irope-chunked", 2, 1, 8, rope=RopeSpec(1e4), chunk=4), DenseSpec(16)
    )
    eyes = (
        VisionSpec(16, 1, 2, 24, 28, 7, 3, 0.5, 20, 12, 1e4, 1e-5),
        VisionSpec(16, 1, 1, 24, 64, 16, 3, 0.25, 20, 12, 1e4, 1e-5),
    )
    return tuple(
        ModelSpec(
            "small",
            tokenizer().vocabulary,
            width,
            1e-5,
            4096,
            False,
            (layer,),
            vision=vision,
            tokens=tokens,
            dtype="float32",
        )
        for width, vision in zip((16, 24), eyes, strict=True)
    )


def build(subject: Subject, spec: ModelSpec, dtype: str = "float32") -> Any:
    """The modality with random weights, assembled from the installed components."""
    parts = Assembler(catalogue(), Overrides({}), dtype=dtype, device=subject.device)
    modality = subject.build(spec, parts.child("vision"))
    if isinstance(modality, torch.nn.Module):
        fill(modality)
        modality = modality.to(subject.device, DTYPES[dtype]).eval()
    return modality


def fill(module: torch.nn.Module, seed: int = 1) -> None:
    """Random weights that keep the size of activations; those of norms stay near 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(drawn * parameter.shape[-1] ** -0.5)
            else:
                parameter.copy_(1 + 0.3 * drawn)


@dataclass(frozen=True)
class Input:
    """One input, drawn from a seed.

    Attributes:
        kind: one of the modality's kinds.
        seed: of its content.
    """

    kind: str
    seed: int


@dataclass(frozen=True)
class Case:
    """One prompt's inputs.

    Attributes:
        model: index of the model in :func:`specs`.
        inputs: in order.
    """

    model: int
    inputs: tuple[Input, ...]

    @property
    def spec(self) -> ModelSpec:
        """The model's description."""
        return specs()[self.model]

    def parts(self, modality: Any) -> list[Any]:
        """Parts of a message, made anew each time."""
        return [part_of(modality, each) for each in self.inputs]


def cases(fewest: int = 1, most: int = 4) -> Callable[[Subject], st.SearchStrategy[Case]]:
    """Prompts with so many inputs of the kinds that the subject reads."""

    def strategy(subject: Subject) -> st.SearchStrategy[Case]:
        kinds = kinds_of(subject)
        # Few seeds, so that equal inputs meet.
        drawn = st.builds(Input, st.sampled_from(kinds), st.integers(0, 9))
        inputs = st.lists(drawn, min_size=fewest, max_size=most).map(tuple)
        return st.builds(Case, st.integers(0, len(specs()) - 1), inputs)

    return strategy


def kinds_of(subject: Subject) -> tuple[str, ...]:
    """The kinds that the subject reads.

    Raises:
        Refused: none, or pictures where Pillow is not installed.
    """
    kinds = build(subject, specs()[0]).kinds
    named = isinstance(kinds, tuple) and all(isinstance(k, str) and k == k.lower() for k in kinds)
    holds(named, f"kinds are {kinds!r}; expected a tuple of names in lower case")
    if not kinds:
        raise Refused("reads nothing")
    if {"image", "video"}.intersection(kinds) and importlib.util.find_spec("PIL") is None:
        raise Refused("reads pictures, and Pillow, which would draw some, is not installed")
    return tuple(kinds)


def part_of(modality: Any, drawn: Input) -> Any:
    """The part of a message that an input is."""
    messages = importlib.import_module("llama4_core.chat.messages")
    if drawn.kind == "image":
        return messages.Image(picture(drawn.seed))
    if drawn.kind == "video":
        return messages.Video([picture(3 * drawn.seed + n) for n in range(1 + drawn.seed % 2)])
    sample = getattr(modality, "sample", None)
    holds(
        callable(sample),
        f"the kit has no inputs of kind {drawn.kind!r}; expected a method sample(seed) that gives "
        "a small one, another for each seed",
    )
    return sample(drawn.seed)  # type: ignore[misc]


@functools.lru_cache(maxsize=256)
def _pixels(seed: int) -> tuple[tuple[int, int], bytes]:
    generator = torch.Generator().manual_seed(seed)
    width, height = torch.randint(1, _EDGE, (2,), generator=generator).tolist()
    if seed == 0:
        width = height = 1
    drawn = torch.randint(0, 256, (width * height * 3,), generator=generator, dtype=torch.uint8)
    return (width, height), drawn.numpy().tobytes()


def picture(seed: int, *, turned: bool = False) -> Any:
    """A small picture; ``turned`` has the same bytes in rows of another length."""
    image = importlib.import_module("PIL.Image")
    size, pixels = _pixels(seed)
    return image.frombytes("RGB", size[::-1] if turned else size, pixels)


def content_of(part: Any) -> Any:
    """What makes two inputs equal: a part's pixels, or the part itself."""
    source = getattr(part, "source", part)
    if isinstance(source, list):
        return [(each.size, each.tobytes()) for each in source]
    return (source.size, source.tobytes()) if hasattr(source, "tobytes") else source


def refusal(call: Callable[[], Any], what: str) -> str:
    """The text of the ModalityError that a call must raise, in one line."""
    try:
        got = call()
    except ModalityError as error:
        text = str(error)
        holds(bool(text.strip()), f"{what}: the error says nothing")
        holds("\n" not in text, f"{what}: the error has several lines: {text!r}")
        return text
    raise AssertionError(f"{what}: got {got!r:.80}; expected a ModalityError")


def joined(readings: Sequence[Any]) -> torch.Tensor:
    """All inputs of one prompt along their first axis."""
    return torch.cat([reading.inputs for reading in readings])
