"""Checks of the socket encoders, for ``llama4 check encoder:NAME``."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.errors import ModalityError
from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.protocols.problems import EncoderProblem
from llama4_core.specs.model import VisionSpec
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.strategies import DTYPES, Numbers, numbers
from llama4_vision.testing import laws


def _spec(width: int, layers: int, heads: int, size: int, patch: int, channels: int) -> VisionSpec:
    return VisionSpec(
        width, layers, heads, 24, size, patch, channels, 0.5, 12, 10, theta=100.0, norm_eps=1e-5
    )


SPECS = (_spec(16, 2, 2, 8, 2, 3), _spec(24, 1, 3, 6, 2, 1), _spec(8, 3, 1, 4, 4, 3))
"""Grids of 4 x 4, 3 x 3 and a single place; one to three blocks."""


@dataclass(frozen=True)
class EncoderCase:
    """Tiles for one encoder.

    Attributes:
        spec: of the encoder.
        count: number of tiles, B.
        numbers: source of the pixels.
    """

    spec: VisionSpec
    count: int
    numbers: Numbers

    def tiles(self, device: str, dtype: str = "float32") -> Tensor:
        """``[B, C, S, S]``: the same numbers each time."""
        size = self.spec.image_size
        drawn = self.numbers.source()(self.count, self.spec.channels, size, size)
        return drawn.to(device, DTYPES[dtype])


def problem_of(spec: VisionSpec, dtype: str, device: str) -> EncoderProblem:
    """What a component's ``supports`` is asked."""
    size, patch = spec.image_size, spec.patch_size
    return EncoderProblem("vision", spec.channels, size, size, patch, dtype, device)


def build(subject: Subject, spec: VisionSpec, dtype: str = "float32") -> Any:
    """The encoder with random weights, its parts chosen from the installed components."""
    parts = Assembler(catalogue(), dtype=dtype, device=subject.device)
    encoder = subject.build(spec, parts.child("vision.encoder"))
    laws.fill(encoder)
    return encoder.to(subject.device, DTYPES[dtype]).eval()


@functools.lru_cache(maxsize=64)
def _accepted(
    call: Callable[..., Any], refusal: Callable[[Any], str | None], device: str
) -> tuple[tuple[VisionSpec, ...], str]:
    found, first = [], ""
    subject = Subject("encoders", "", call, refusal, device=device)
    for spec in SPECS:
        reason = refusal(problem_of(spec, "float32", device))
        reason = reason or laws.refusal_of(build, subject, spec)
        first = first or reason or ""
        if reason is None:
            found.append(spec)
    return tuple(found), first


def cases(*counts: int) -> Callable[[Subject], st.SearchStrategy[EncoderCase]]:
    """Encoders that the subject can be, with one of these numbers of tiles."""

    def strategy(subject: Subject) -> st.SearchStrategy[EncoderCase]:
        specs, reason = _accepted(subject.build, subject.refusal, subject.device)
        if not specs:
            raise Refused(f"takes no images that the kit knows, the first because it {reason}")
        drawn = numbers("plain", "zeros", "outliers")
        return st.builds(EncoderCase, st.sampled_from(specs), st.sampled_from(counts), drawn)

    return strategy


def _smallest(subject: Subject) -> st.SearchStrategy[EncoderCase]:
    """One case of the fewest blocks, for what takes seconds each time."""
    specs, reason = _accepted(subject.build, subject.refusal, subject.device)
    if not specs:
        raise Refused(f"takes no images that the kit knows, the first because it {reason}")
    spec = min(specs, key=lambda spec: spec.layers)
    return st.builds(EncoderCase, st.just(spec), st.just(3), numbers("plain"))


def _features(encoder: Any) -> laws.Features:
    def features(tiles: Tensor) -> Tensor:
        found: Tensor = encoder(tiles).features
        return found

    return features


def _dtypes(subject: Subject, spec: VisionSpec, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that the subject does not refuse."""
    return [
        name for name in names if subject.refusal(problem_of(spec, name, subject.device)) is None
    ]


# --- the contract -------------------------------------------------------------------------------


@check(
    why="the adapter lays features out on the grid; one too many moves every one behind it",
    cases=cases(1, 2, 5),
)
def features_on_the_grid(subject: Subject, case: EncoderCase) -> None:
    """``[B, rows columns, W]`` in the weights' dtype, on their device, finite."""
    for dtype in _dtypes(subject, case.spec, ("float32", "bfloat16")):
        encoder = build(subject, case.spec, dtype)
        tiles = case.tiles(subject.device, dtype)
        with torch.no_grad():
            features, hidden = encoder(tiles)
        shape = (case.count, encoder.grid[0] * encoder.grid[1], encoder.width)
        holds(tuple(features.shape) == shape, f"got {list(features.shape)}, expected {list(shape)}")
        holds(features.dtype == DTYPES[dtype], f"got {features.dtype} with {dtype} weights")
        holds(features.device == tiles.device, f"got features on {features.device}")
        holds(bool(features.isfinite().all()), "a feature is not finite")
        holds(tuple(hidden) == (), "no layer was asked for, but some were given")


@check(
    why="a picture must not be seen otherwise because another one is in the same batch",
    cases=cases(1, 2, 3),
)
def tiles_are_independent(subject: Subject, case: EncoderCase) -> None:
    """A tile alone, or beside tiles of NaN, gives what it gives among others."""
    encoder = build(subject, case.spec)
    with torch.no_grad():
        laws.check_alone(
            _features(encoder), case.tiles(subject.device), subject.tolerance("float32")
        )


@check(
    properties=(31,),
    why="tiles of many pictures share a batch, in an order that is nobody's business",
    cases=cases(2, 3, 5),
)
def tile_order(subject: Subject, case: EncoderCase) -> None:
    """Permuted tiles give permuted features."""
    encoder = build(subject, case.spec)
    order = case.numbers.source().permutation(case.count).to(subject.device)
    if torch.equal(order, order.sort().values):
        order = order.flip(0)
    with torch.no_grad():
        laws.check_order(
            _features(encoder), case.tiles(subject.device), order, subject.tolerance("float32")
        )


@check(
    why="a reader that skips the border of a tile misses the last letters of a line",
    cases=cases(5),
)
def every_pixel_counts(subject: Subject, case: EncoderCase) -> None:
    """Over several tiles, each pixel of each channel changes some feature."""
    encoder = build(subject, case.spec)
    laws.check_reached(_features(encoder), case.tiles(subject.device), (0,), "pixels")


@check(
    why="features of inner blocks are what detectors and probes are built on; asking for them must "
    "not change the rest",
    cases=cases(1, 3),
)
def out_layers(subject: Subject, case: EncoderCase) -> None:
    """Blocks come as asked for, ``[B, P, W]`` each, and leave the features as they are."""
    encoder, tiles = build(subject, case.spec), case.tiles(subject.device)
    every = tuple(range(case.spec.layers))
    with torch.no_grad():
        plain = encoder(tiles).features
        features, forward = encoder(tiles, out_layers=every)
        _, backward = encoder(tiles, out_layers=list(reversed(every)))
        same(features, plain, "features with out_layers")
        holds(len(forward) == len(every), f"asked for {len(every)} blocks, got {len(forward)}")
        for index in every:
            holds(
                forward[index].shape == plain.shape,
                f"block {index} gave {list(forward[index].shape)}, expected {list(plain.shape)}",
            )
            same(backward[-1 - index], forward[index], f"block {index}, asked for in another order")
            same(encoder(tiles, (index,)).hidden[0], forward[index], f"block {index} alone")
    for one, two in itertools.pairwise(every):
        holds(not torch.equal(forward[one], forward[two]), f"blocks {one} and {two} are equal")


@check(
    why="an index that silently means another block gives features of another block",
    cases=cases(1),
)
def impossible_layers_are_errors(subject: Subject, case: EncoderCase) -> None:
    """Blocks from the end, beyond it, or asked for twice are a ModalityError."""
    encoder, tiles = build(subject, case.spec), case.tiles(subject.device)
    for wrong in ((-1,), (case.spec.layers,), (0, 0), (0.5,), (True,)):
        try:
            encoder(tiles, out_layers=wrong)
        except ModalityError:
            continue
        raise AssertionError(f"out_layers={wrong} was taken; expected a ModalityError")


@check(
    why="tiles of another model's size give features that look right and mean nothing",
    cases=cases(2),
)
def wrong_tiles_are_errors(subject: Subject, case: EncoderCase) -> None:
    """Another size, another number of channels, no tile and whole numbers are a ModalityError."""
    encoder, tiles = build(subject, case.spec), case.tiles(subject.device)
    patch = case.spec.patch_size
    wrong = (
        ("a single tile without its batch", tiles[0]),
        ("no tile", tiles[:0]),
        ("tiles with a channel too many", torch.cat([tiles, tiles[:, :1]], dim=1)),
        ("tiles that are a patch higher", torch.cat([tiles, tiles[:, :, :patch]], dim=2)),
        ("tiles that are a patch wider", torch.cat([tiles, tiles[..., :patch]], dim=3)),
        ("tiles cut by one pixel", tiles[..., 1:, 1:]),
        ("tiles of whole numbers", (127 * tiles).to(torch.uint8)),
    )
    with torch.no_grad():
        laws.check_refused(encoder, wrong)


# --- memory, dtypes, gradients ------------------------------------------------------------------


@check(
    properties=(14,),
    why="tiles are slices of pictures; features are cached, so the same picture must give the same",
    cases=cases(1, 3),
)
def strides(subject: Subject, case: EncoderCase) -> None:
    """Strided tiles and tiles between walls of NaN give the same; tiles and weights stay."""
    encoder = build(subject, case.spec)
    with torch.no_grad():
        laws.check_memory(
            encoder,
            _features(encoder),
            case.tiles(subject.device),
            subject.tolerance("float32"),
        )


@check(
    why="checkpoints are bfloat16; a sum that is kept in it over many terms is off by percents",
    cases=cases(1, 3),
)
def bfloat16(subject: Subject, case: EncoderCase) -> None:
    """With bfloat16 weights and tiles: the float32 result of the same numbers, rounded."""
    if not _dtypes(subject, case.spec, ("bfloat16",)):
        raise Refused("does not run bfloat16")
    short, wide = build(subject, case.spec, "bfloat16"), build(subject, case.spec)
    wide.load_state_dict(short.state_dict())
    tiles = case.tiles(subject.device, "bfloat16")
    with torch.no_grad():
        got, expected = short(tiles).features, wide(tiles.float()).features
    # Every block adds its own rounding to the stream.
    close(got, expected, case.spec.layers * subject.tolerance("bfloat16"), "features")


@check(
    properties=(15,),
    why="encoders are trained beside frozen text models: a wrong gradient trains a worse one, "
    "without any error",
    cases=cases(1, 2),
    examples=6,
)
def gradients(subject: Subject, case: EncoderCase) -> None:
    """Every weight and the tiles have a gradient: the slope along a random direction."""
    dtype = "float64" if _dtypes(subject, case.spec, ("float64",)) else "float32"
    encoder = build(subject, case.spec, dtype)
    tiles = case.tiles(subject.device, dtype)
    laws.check_gradients(encoder, _features(encoder), tiles, dtype)


# --- other people's code ------------------------------------------------------------------------


@check(
    why="fine-tuned encoders are saved and loaded, and new ones start from drawn weights",
    cases=cases(2),
    examples=3,
)
def weights_load_and_draw(subject: Subject, case: EncoderCase) -> None:
    """A state dict restores an encoder; ``reset_parameters`` fills what no checkpoint holds."""
    tiles = case.tiles(subject.device)
    with torch.no_grad():
        laws.check_weights(
            lambda: build(subject, case.spec),
            lambda encoder: _features(encoder)(tiles),
            subject.tolerance("float32"),
        )


@check(
    why="a library author ships the encoder without this project",
    cases=_smallest,
    examples=1,
)
def exports(subject: Subject, case: EncoderCase) -> None:
    """``torch.export`` in its strict mode gives a program with the eager features."""
    encoder = build(subject, case.spec)
    laws.check_export(encoder, case.tiles(subject.device), subject.tolerance("float32"))


@check(
    properties=(16,),
    why="a part that breaks the graph makes a compiled model slower than an eager one",
    cases=_smallest,
    examples=1,
)
def compiles(subject: Subject, case: EncoderCase) -> None:
    """``torch.compile(fullgraph=True)`` gives the eager features, with and without gradients."""
    encoder = build(subject, case.spec)
    laws.check_compiled(encoder, case.tiles(subject.device), subject.tolerance("float32"))


CHECKS: tuple[Check, ...] = (
    features_on_the_grid,
    tiles_are_independent,
    tile_order,
    every_pixel_counts,
    out_layers,
    impossible_layers_are_errors,
    wrong_tiles_are_errors,
    strides,
    bfloat16,
    gradients,
    weights_load_and_draw,
    exports,
    compiles,
)
