"""Checks of the socket attention_variants."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.attention.eager import EagerAttention
from llama4_core.errors import SpecError
from llama4_core.model.variants import Rotary
from llama4_core.protocols.attention import AttentionBatch, Segment
from llama4_core.protocols.masks import Place, SameDocument, kinds_of
from llama4_core.protocols.scores import Sink, SoftCap
from llama4_core.specs.model import AttentionSpec, RopeScaling, RopeSpec, TemperatureSpec
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.strategies import DTYPES, Numbers, numbers, strided

EPS = 1e-5
"""Of the norm of q and k; Llama 4's value."""
SCALED = RopeScaling(4.0, 1.0, 2.0, 16)
"""An original length so short that pairs of all three bands exist at head sizes of 8 and 16."""


@dataclass(frozen=True)
class View:
    """What a variant reads of a layer's view."""

    positions: Tensor
    shared: Mapping[str, Tensor]


@dataclass(frozen=True)
class VariantCase:
    """One forward of a variant.

    Attributes:
        spec: that it is built from.
        start, length: positions ``start .. start + length - 1``.
        numbers: source of q and k.
        dtype: of q and k.
    """

    spec: AttentionSpec
    start: int
    length: int
    numbers: Numbers
    dtype: str = "float32"

    @property
    def positions(self) -> Tensor:
        """``[N]`` int64."""
        return torch.arange(self.start, self.start + self.length)

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Query ``[N, H, K]`` and key ``[N, G, K]``."""
        source, spec, dtype = self.numbers.source(), self.spec, DTYPES[self.dtype]
        return (
            source(self.length, spec.heads, spec.head_dim, dtype=dtype),
            source(self.length, spec.kv_heads, spec.head_dim, dtype=dtype),
        )


def encode(variant: Any, q: Tensor, k: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Runs a variant as a model does."""
    rotary = getattr(variant, "rotary", None)
    shared = {} if rotary is None else {rotary.name: rotary(positions)}
    found: tuple[Tensor, Tensor] = variant(q, k, View(positions, shared))
    return found


@functools.lru_cache(maxsize=64)
def specs_of(build: Callable[..., Any], name: str) -> tuple[tuple[AttentionSpec, ...], str]:
    """The descriptions that a variant accepts, and the first reason for refusing one."""
    found, first = [], ""
    for rope, chunk, window, norm, warm, cap, sink in itertools.product(
        (None, RopeSpec(100.0), RopeSpec(100.0, SCALED)),
        (None, 6),
        (None, 5),
        (False, True),
        (None, TemperatureSpec(0.1, 4.0)),
        (None, 5.0),
        (False, True),
    ):
        spec = AttentionSpec(
            name, 4, 2, 8, rope, chunk, window, norm, warm, soft_cap=cap, sink=sink
        )
        try:
            build(spec, EPS)
        except SpecError as error:
            first = first or str(error)
        else:
            found.append(spec)
    return tuple(found), first


def accepted(subject: Subject, wanted: Callable[[AttentionSpec, Any], bool], what: str) -> Any:
    """A strategy of accepted descriptions whose variant is as wanted.

    Raises:
        Refused: there is none.
    """
    found, reason = specs_of(subject.build, subject.name)
    if not found:
        raise AssertionError(f"every description is refused, the first because: {reason}")
    chosen = [spec for spec in found if wanted(spec, subject.build(spec, EPS))]
    if not chosen:
        raise Refused(f"this variant {what}")
    return st.sampled_from(chosen)


def _any(spec: AttentionSpec, variant: Any) -> bool:
    return True


def _cases(
    subject: Subject,
    wanted: Callable[[AttentionSpec, Any], bool] = _any,
    what: str = "",
    dtypes: tuple[str, ...] = ("float32",),
) -> st.SearchStrategy[VariantCase]:
    return st.builds(
        VariantCase,
        accepted(subject, wanted, what),
        st.integers(0, 40),
        st.integers(1, 20),
        numbers(),
        st.sampled_from(dtypes),
    )


def _rotating(spec: AttentionSpec, variant: Any) -> bool:
    return getattr(variant, "rotary", None) is not None


def _llama_rotation(spec: AttentionSpec, variant: Any) -> bool:
    return isinstance(getattr(variant, "rotary", None), Rotary)


def _position_free(spec: AttentionSpec, variant: Any) -> bool:
    if spec.rope is not None or spec.temperature is not None:
        return False
    # A window and a bias by distance are positions too.
    plain = all(isinstance(term, SoftCap | Sink) for term in variant.score_terms)
    return plain and kinds_of(variant.mask) <= {"Causal", "Everything"}


# --- position -------------------------------------------------------------------------------------


@check(
    properties=(7,),
    why="a position encoding that knows absolute places does not carry to other lengths",
    cases=lambda s: st.tuples(_cases(s, _rotating, "rotates nothing"), st.integers(1, 7)),
)
def relative_position(subject: Subject, case: tuple[VariantCase, int]) -> None:
    """The score of two tokens that see each other depends on their distance only."""
    drawn, steps = case
    size = drawn.spec.chunk or 1
    shift = steps * size  # whole chunks: both tokens stay in one chunk
    variant = subject.build(drawn.spec, EPS)
    q, k = drawn.tensors()
    scores = []
    for positions in (drawn.positions, drawn.positions + shift):
        turned, kept = encode(variant, q, k, positions)
        kept = kept.repeat_interleave(drawn.spec.heads // drawn.spec.kv_heads, 1)
        products = torch.einsum("ihk,jhk->hij", turned.double(), kept.double())
        at = positions
        seen = variant.mask.visible(
            Place(at[:, None], torch.zeros(1)), Place(at[None], torch.zeros(1))
        )
        scores.append(products.masked_fill(~seen, 0.0))
    # Angles and rotations are rounded to float32 once each.
    close(scores[1], scores[0], subject.tolerance("float32"), f"scores {shift} positions later")


def _normed(x: Tensor, spec: AttentionSpec) -> Tensor:
    wide = x.double()
    if not spec.qk_norm:
        return wide
    return wide / (wide.square().mean(-1, keepdim=True) + EPS).sqrt()


@check(
    properties=(8,),
    why="a rotation that changes lengths changes how sharp attention is, more with each position",
    cases=lambda s: _cases(s, _rotating, "rotates nothing"),
)
def rotation_keeps_norm(subject: Subject, case: VariantCase) -> None:
    """Lengths stay those of q and k (normed where asked); position 0 is not rotated."""
    q, k = case.tensors()
    variant = subject.build(case.spec, EPS)
    for before, after, what in zip(
        (q, k), encode(variant, q, k, case.positions), "qk", strict=True
    ):
        expected = _normed(before, case.spec)
        close(after.double().norm(dim=-1), expected.norm(dim=-1), 1e-5, f"lengths of {what}")
        if case.start == 0:
            close(after[0].double(), expected[0], 1e-5, f"{what} at position 0")


def _frequency(pair: int, spec: RopeSpec, head_dim: int) -> float:
    plain = spec.theta ** (-2 * pair / head_dim)
    if spec.scaling is None:
        return plain
    scaling, wavelength = spec.scaling, 2 * math.pi / plain
    if wavelength < scaling.original_length / scaling.high_frequency_factor:
        return plain
    if wavelength > scaling.original_length / scaling.low_frequency_factor:
        return plain / scaling.factor
    share = scaling.original_length / wavelength - scaling.low_frequency_factor
    share /= scaling.high_frequency_factor - scaling.low_frequency_factor
    return share * plain + (1 - share) * plain / scaling.factor


@check(
    properties=(7, 8),
    why="published weights are trained with exactly these angles; a small error costs long context",
    cases=lambda s: _cases(s, _llama_rotation, "has no rotation of the Llama kind"),
)
def rotation_law(subject: Subject, case: VariantCase) -> None:
    """Pairs (2j, 2j + 1) turn by ``position * theta ** (-2j / K)``, scaled as described."""
    q, k = case.tensors()
    spec = case.spec
    if spec.rope is None:
        raise Refused("this variant rotates without a description of a rotation")
    variant = subject.build(spec, EPS)
    positions = case.positions if spec.chunk is None else case.positions % spec.chunk
    for before, after, what in zip(
        (q, k), encode(variant, q, k, case.positions), "qk", strict=True
    ):
        x = before.double()
        turned = torch.empty_like(x)
        for pair in range(spec.head_dim // 2):
            angle = positions.double()[:, None] * _frequency(pair, spec.rope, spec.head_dim)
            even, odd = x[..., 2 * pair], x[..., 2 * pair + 1]
            turned[..., 2 * pair] = even * angle.cos() - odd * angle.sin()
            turned[..., 2 * pair + 1] = even * angle.sin() + odd * angle.cos()
        # Relative to one: a float32 rotation is rounded to 6e-8.
        close(after, _normed(turned, spec), 1e-6, f"rotated {what}")


@check(
    properties=(9,),
    why="global layers carry no position; with one they fail beyond the trained length",
    cases=lambda s: _cases(
        s, _position_free, "always has a position, a window, a bias by distance or a temperature"
    ),
)
def position_free(subject: Subject, case: VariantCase) -> None:
    """Without rotation, permuting the past leaves the last token's output unchanged."""
    q, k = case.tensors()
    variant = subject.build(case.spec, EPS)
    order = torch.arange(case.length)
    order[:-1] = order[:-1].flip(0)
    source = case.numbers.source()
    values = source(case.length, case.spec.kv_heads, case.spec.head_dim)
    segment = Segment(case.length - 1, 1, 0, case.length)
    plan = AttentionBatch((segment,), variant.mask & SameDocument(), variant.score_terms)
    outputs: list[Any] = []
    for keys, kept in ((k, values), (k[order], values[order])):
        turned, encoded = encode(variant, q, keys, case.positions)
        outputs.append(
            EagerAttention()(
                turned[-1:], encoded, kept, plan, scale=1.0, score_tensors=variant.score_tensors()
            )
        )
    close(outputs[1], outputs[0], subject.tolerance("float32"), "output after a permutation")


@check(
    properties=(10,),
    why="the temperature sharpens attention past the trained length; off by one token it changes "
    "every later logit",
    cases=lambda s: _cases(s, lambda spec, v: spec.temperature is not None, "has no temperature"),
)
def temperature_law(subject: Subject, case: VariantCase) -> None:
    """Queries grow by ``1 + scale * ln(floor((position + 1) / floor) + 1)``: 1 before the floor."""
    q, k = case.tensors()
    warm = case.spec.temperature
    if warm is None:
        raise Refused("this variant has no temperature")
    variant = subject.build(case.spec, EPS)
    cool = subject.build(dataclasses.replace(case.spec, temperature=None), EPS)
    hot, kept = encode(variant, q, k, case.positions)
    plain, unchanged = encode(cool, q, k, case.positions)
    factors = [
        1.0
        if position + 1 < warm.floor
        else 1 + warm.scale * math.log(math.floor((position + 1) / warm.floor) + 1)
        for position in case.positions.tolist()
    ]
    holds(factors == sorted(factors), "the temperature falls")
    expected = plain.double() * torch.tensor(factors).double()[:, None, None]
    close(hot, expected, 1e-6, "q with temperature")
    same(kept, unchanged, "k with temperature")
    if not _rotating(case.spec, variant):
        same(kept, k, "k of a position-free variant")


# --- what it declares -----------------------------------------------------------------------------


def _specs(subject: Subject) -> st.SearchStrategy[AttentionSpec]:
    found: st.SearchStrategy[AttentionSpec] = accepted(subject, _any, "")
    sizes = st.integers(1, 9)
    return st.builds(
        lambda spec, chunk, window: dataclasses.replace(
            spec, chunk=spec.chunk and chunk, window=spec.window and window
        ),
        found,
        sizes,
        sizes,
    )


@check(
    properties=(2, 3, 11, 12),
    why="caches drop what the mask's horizon says; kernels see what the mask says",
    cases=_specs,
)
def mask_law(subject: Subject, case: AttentionSpec) -> None:
    """The mask is the described one, a value, and its horizon is the first key still seen."""
    mask = subject.build(case, EPS).mask
    holds(mask == subject.build(case, EPS).mask, "two masks of one description differ")
    holds(hash(mask) == hash(subject.build(case, EPS).mask), "equal masks have other hashes")
    holds("SameDocument" not in kinds_of(mask), "SameDocument() belongs to the context")
    length = 20
    for i in range(length):
        row = [bool(mask.visible(Place(i, 0), Place(j, 0))) for j in range(length)]
        expected = [
            j <= i
            and (case.chunk is None or i // case.chunk == j // case.chunk)
            and (case.window is None or i - j < case.window)
            for j in range(length)
        ]
        holds(row == expected, f"position {i} sees {_seen(row)}; expected {_seen(expected)}")
        holds(
            mask.horizon(i) == expected.index(True),
            f"horizon({i}) is {mask.horizon(i)}; expected {expected.index(True)}",
        )


def _seen(row: list[bool]) -> list[int]:
    return [place for place, seen in enumerate(row) if seen]


@check(
    why="a score term that the description asks for and the variant forgets changes every number",
    cases=_specs,
)
def declares_score_terms(subject: Subject, case: AttentionSpec) -> None:
    """Soft-cap and sink of the description are declared as score terms, with their tensors."""
    variant = subject.build(case, EPS)
    hash(variant.score_terms)
    caps = [term.cap for term in variant.score_terms if isinstance(term, SoftCap)]
    holds(caps == ([] if case.soft_cap is None else [case.soft_cap]), f"soft caps are {caps}")
    sinks = [term for term in variant.score_terms if isinstance(term, Sink)]
    holds(len(sinks) == int(case.sink), f"{len(sinks)} sinks are declared")
    tensors = variant.score_tensors()
    if sinks:
        holds(tuple(tensors["sink"].shape) == (case.heads,), "the sink is not one number per head")
        holds(tensors["sink"].requires_grad, "the sink cannot be learned")


@check(
    properties=(14,),
    why="projections hand over views in the model's dtype; both must come through unharmed",
    cases=lambda s: _cases(s, dtypes=("float32", "bfloat16")),
)
def dtype_and_strides(subject: Subject, case: VariantCase) -> None:
    """Shapes and dtype stay, strides do not matter, inputs are not changed."""
    q, k = case.tensors()
    variant = subject.build(case.spec, EPS)
    kept = q.clone(), k.clone()
    first = encode(variant, q, k, case.positions)
    second = encode(variant, strided(q), strided(k), case.positions)
    for x, got, spread, before in zip((q, k), first, second, kept, strict=True):
        same(x, before, "an input after the call")
        holds(got.dtype == x.dtype, f"got {got.dtype}; expected {x.dtype}")
        close(spread, got, subject.tolerance(case.dtype), "strided input")


@check(
    why="each token is encoded alone: what is computed for it must not depend on the batch",
    cases=_cases,
)
def token_alone(subject: Subject, case: VariantCase) -> None:
    """A token alone is encoded as among others."""
    q, k = case.tensors()
    variant = subject.build(case.spec, EPS)
    whole = encode(variant, q, k, case.positions)
    last = encode(variant, q[-1:], k[-1:], case.positions[-1:])
    for together, alone in zip(whole, last, strict=True):
        close(alone, together[-1:], 1e-6, "a token alone")


CHECKS: tuple[Check, ...] = (
    relative_position,
    rotation_keeps_norm,
    rotation_law,
    position_free,
    temperature_law,
    mask_law,
    declares_score_terms,
    dtype_and_strides,
    token_alone,
)
