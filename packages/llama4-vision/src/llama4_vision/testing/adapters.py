"""Checks of the socket adapters, for ``llama4 check adapter:NAME``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.specs.model import VisionSpec
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds
from llama4_core.testing.strategies import DTYPES, Numbers, numbers
from llama4_vision.testing import laws

SPEC = VisionSpec(16, 1, 2, 24, 8, 2, 3, 0.5, 12, 10, theta=100.0, norm_eps=1e-5)


@dataclass(frozen=True)
class Place:
    """Where an adapter stands.

    Attributes:
        ratio: the spec's ``shuffle_ratio``.
        grid: of the encoder before it.
        width: W, of that encoder's features.
    """

    ratio: float
    grid: tuple[int, int]
    width: int

    @property
    def spec(self) -> VisionSpec:
        """The description."""
        return replace(SPEC, shuffle_ratio=self.ratio)


PLACES = (
    Place(0.5, (4, 4), 16),
    Place(0.5, (2, 6), 8),
    Place(0.5, (2, 2), 5),
    Place(1.0, (1, 3), 8),
    Place(1 / 3, (6, 3), 4),
)


@dataclass(frozen=True)
class AdapterCase:
    """Features for one adapter.

    Attributes:
        place: of the adapter.
        count: number of pieces, B.
        numbers: source of the features.
    """

    place: Place
    count: int
    numbers: Numbers

    def features(self, device: str, dtype: str = "float32") -> Tensor:
        """``[B, P, W]``: the same numbers each time."""
        rows, columns = self.place.grid
        drawn = self.numbers.source()(self.count, rows * columns, self.place.width)
        return drawn.to(device, DTYPES[dtype])


def build(subject: Subject, place: Place, dtype: str = "float32") -> Any:
    """The adapter with random weights."""
    parts = Assembler(catalogue(), dtype=dtype, device=subject.device).child("vision.adapter")
    adapter = subject.build(place.spec, place.grid, place.width, parts)
    laws.fill(adapter)
    return adapter.to(subject.device, DTYPES[dtype]).eval()


@functools.lru_cache(maxsize=64)
def _accepted(call: Callable[..., Any], device: str) -> tuple[tuple[Place, ...], str]:
    found, first = [], ""
    subject = Subject("adapters", "", call, device=device)
    for place in PLACES:
        reason = laws.refusal_of(build, subject, place)
        first = first or reason or ""
        if reason is None:
            found.append(place)
    return tuple(found), first


def _places(subject: Subject) -> tuple[Place, ...]:
    places, reason = _accepted(subject.build, subject.device)
    if not places:
        raise Refused(f"fits no encoder that the kit knows, the first because: {reason}")
    return places


def cases(*counts: int) -> Callable[[Subject], st.SearchStrategy[AdapterCase]]:
    """Adapters that the subject can be, with one of these numbers of pieces."""

    def strategy(subject: Subject) -> st.SearchStrategy[AdapterCase]:
        drawn = numbers("plain", "zeros", "outliers")
        places = st.sampled_from(_places(subject))
        return st.builds(AdapterCase, places, st.sampled_from(counts), drawn)

    return strategy


def _first(subject: Subject) -> st.SearchStrategy[AdapterCase]:
    """One case, for what takes seconds each time."""
    return st.builds(AdapterCase, st.just(_places(subject)[0]), st.just(3), numbers("plain"))


# --- the contract -------------------------------------------------------------------------------


@check(
    why="the prompt holds as many placeholders as the adapter says; one feature more or less is an "
    "error in the middle of a conversation",
    cases=cases(1, 2, 5),
)
def as_many_as_it_says(subject: Subject, case: AdapterCase) -> None:
    """``[B, tokens, width]`` in the weights' dtype, on their device, finite."""
    for dtype in ("float32", "bfloat16"):
        adapter, features = build(subject, case.place, dtype), case.features(subject.device, dtype)
        with torch.no_grad():
            out = adapter(features)
        shape = (case.count, adapter.tokens, adapter.width)
        holds(tuple(out.shape) == shape, f"got {list(out.shape)}, expected {list(shape)}")
        holds(adapter.tokens >= 1, "no token for a piece")
        holds(out.dtype == DTYPES[dtype], f"got {out.dtype} with {dtype} weights")
        holds(out.device == features.device, f"got features on {out.device}")
        holds(bool(out.isfinite().all()), "a feature is not finite")


@check(
    why="the text model's projection is as wide as the description says",
    cases=cases(1),
)
def width_of_the_description(subject: Subject, case: AdapterCase) -> None:
    """The width is the description's ``adapter_output``."""
    for output in (case.place.spec.adapter_output, 6):
        parts = Assembler(catalogue(), device=subject.device).child("vision.adapter")
        spec = replace(case.place.spec, adapter_output=output)
        adapter = subject.build(spec, case.place.grid, case.place.width, parts)
        holds(adapter.width == output, f"width is {adapter.width}, adapter_output {output}")


@check(
    why="a picture must not be seen otherwise because another one is in the same batch",
    cases=cases(1, 2, 3),
)
def pieces_are_independent(subject: Subject, case: AdapterCase) -> None:
    """A piece alone, or beside pieces of NaN, gives what it gives among others."""
    with torch.no_grad():
        laws.check_alone(
            build(subject, case.place),
            case.features(subject.device),
            subject.tolerance("float32"),
        )


@check(
    properties=(31,),
    why="tiles of many pictures share a batch, in an order that is nobody's business",
    cases=cases(2, 3, 5),
)
def piece_order(subject: Subject, case: AdapterCase) -> None:
    """Permuted pieces give permuted features."""
    order = case.numbers.source().permutation(case.count).to(subject.device)
    if torch.equal(order, order.sort().values):
        order = order.flip(0)
    with torch.no_grad():
        laws.check_order(
            build(subject, case.place),
            case.features(subject.device),
            order,
            subject.tolerance("float32"),
        )


@check(
    properties=(29,),
    why="a place that is left out is a spot in every tile that the model cannot see",
    cases=cases(8),
)
def every_place_counts(subject: Subject, case: AdapterCase) -> None:
    """Over several pieces, each place of the grid changes some feature."""
    adapter, features = build(subject, case.place), case.features(subject.device)
    laws.check_reached(adapter, features, (0, 2), "places of the grid")


@check(
    why="features of another encoder give a result that looks right and means nothing",
    cases=cases(2),
)
def wrong_features_are_errors(subject: Subject, case: AdapterCase) -> None:
    """Another number of places, another width, and a piece without its batch are ModalityErrors."""
    adapter, features = build(subject, case.place), case.features(subject.device)
    wrong = (
        ("a single piece without its batch", features[0]),
        ("a class token behind the places", torch.cat([features, features[:, :1]], dim=1)),
        ("one place too few", features[:, 1:]),
        ("twice the places", torch.cat([features, features], dim=1)),
        ("twice the width", torch.cat([features, features], dim=2)),
        ("half the pieces, twice the places", features.reshape(1, -1, features.shape[2])),
    )
    with torch.no_grad():
        laws.check_refused(adapter, wrong)


# --- memory, dtypes, gradients ------------------------------------------------------------------


@check(
    properties=(14,),
    why="an encoder's features are often a view without its class token",
    cases=cases(1, 3),
)
def strides(subject: Subject, case: AdapterCase) -> None:
    """Strided features and features between walls of NaN give the same; nothing is changed."""
    adapter = build(subject, case.place)
    with torch.no_grad():
        laws.check_memory(
            adapter, adapter, case.features(subject.device), subject.tolerance("float32")
        )


@check(
    why="checkpoints are bfloat16; a sum that is kept in it over many terms is off by percents",
    cases=cases(1, 3),
)
def bfloat16(subject: Subject, case: AdapterCase) -> None:
    """With bfloat16 weights and features: the float32 result of the same numbers, rounded."""
    short, wide = build(subject, case.place, "bfloat16"), build(subject, case.place)
    wide.load_state_dict(short.state_dict())
    features = case.features(subject.device, "bfloat16")
    with torch.no_grad():
        close(
            short(features), wide(features.float()), subject.tolerance("bfloat16"), "the features"
        )


@check(
    properties=(15,),
    why="adapters are the first thing that is trained; a wrong gradient trains a worse one without "
    "any error",
    cases=cases(1, 2),
)
def gradients(subject: Subject, case: AdapterCase) -> None:
    """Every weight and the features have a gradient: the slope along a random direction."""
    adapter = build(subject, case.place, "float64")
    laws.check_gradients(adapter, adapter, case.features(subject.device, "float64"), "float64")


# --- other people's code ------------------------------------------------------------------------


@check(
    why="fine-tuned adapters are saved and loaded, and new ones start from drawn weights",
    cases=cases(2),
    examples=3,
)
def weights_load_and_draw(subject: Subject, case: AdapterCase) -> None:
    """A state dict restores an adapter; ``reset_parameters`` fills what no checkpoint holds."""
    features = case.features(subject.device)
    with torch.no_grad():
        laws.check_weights(
            lambda: build(subject, case.place),
            lambda adapter: adapter(features),
            subject.tolerance("float32"),
        )


@check(
    why="a library author ships encoder and adapter without this project",
    cases=_first,
    examples=1,
)
def exports(subject: Subject, case: AdapterCase) -> None:
    """``torch.export`` in its strict mode gives a program with the eager features."""
    adapter = build(subject, case.place)
    laws.check_export(adapter, case.features(subject.device), subject.tolerance("float32"))


@check(
    properties=(16,),
    why="a part that breaks the graph makes a compiled model slower than an eager one",
    cases=_first,
    examples=1,
)
def compiles(subject: Subject, case: AdapterCase) -> None:
    """``torch.compile(fullgraph=True)`` gives the eager features, with and without gradients."""
    adapter = build(subject, case.place)
    laws.check_compiled(adapter, case.features(subject.device), subject.tolerance("float32"))


CHECKS: tuple[Check, ...] = (
    as_many_as_it_says,
    width_of_the_description,
    pieces_are_independent,
    piece_order,
    every_place_counts,
    wrong_features_are_errors,
    strides,
    bfloat16,
    gradients,
    weights_load_and_draw,
    exports,
    compiles,
)
