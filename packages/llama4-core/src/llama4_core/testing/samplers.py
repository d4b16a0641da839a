"""Checks of the socket samplers: exact supports, and the distribution that is really drawn from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.errors import GenerationError
from llama4_core.generation.sampling import Sampling
from llama4_core.testing.check import Check, Subject, check
from llama4_core.testing.compare import holds

# Numbers in [0, 1) that decide most often: its ends, and a half.
_EDGES = (0.0, 0.5, 1 - 2**-53)
# Decisions nearer than this may go either way: float32 exponentials are good to about 1e-6.
_MARGIN = 1e-5
# Draws of the chi-squared test.
_DRAWS = 2000


@dataclass(frozen=True)
class Case:
    """Logits and how to draw from them.

    Attributes:
        sampling: the settings.
        rows, vocabulary: B and V.
        ties: round the logits to multiples of this, so that many are equal; 0 for none.
        forbidden: every so many-th token is forbidden; 0 for none.
        seed: of the logits and of the numbers that are drawn with.
    """

    sampling: Sampling
    rows: int
    vocabulary: int
    ties: int
    forbidden: int
    seed: int

    def logits(self) -> Tensor:
        """``[B, V]`` float32."""
        generator = torch.Generator().manual_seed(self.seed)
        logits = torch.randn(self.rows, self.vocabulary, generator=generator) * 3
        if self.ties:
            logits = (logits / self.ties).round() * self.ties
        if self.forbidden:
            logits[:, :: self.forbidden] = -math.inf
        return logits

    def uniforms(self, count: int) -> Tensor:
        """``[count]`` float64 in ``[0, 1)``."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.rand(count, generator=generator, dtype=torch.float64)


_TEMPERATURES = st.sampled_from((0.05, 0.7, 1.0, 3.0))
_SAMPLINGS = st.one_of(
    st.builds(
        Sampling,
        _TEMPERATURES,
        st.none() | st.integers(1, 50),
        st.none() | st.floats(0.01, 1.0),
        st.none() | st.floats(0.0, 1.0),
    ),
    # Few enough candidates that the order of the filters matters.
    st.builds(Sampling, st.just(3.0), st.integers(2, 8), st.floats(0.3, 0.95)),
)
# Beyond a few hundred tokens, samplers stop sorting all of them.
_SIZES = st.integers(2, 40) | st.sampled_from((700, 5000))


def _cases(
    samplings: st.SearchStrategy[Sampling] = _SAMPLINGS,
    sizes: st.SearchStrategy[int] = _SIZES,
) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        samplings,
        st.integers(1, 3),
        sizes,
        st.sampled_from((0, 1, 4)),
        st.sampled_from((0, 0, 2, 5)),
        st.integers(0, 2**31),
    )


def _defined(row: list[float], sampling: Sampling) -> tuple[list[float], float]:
    """The documented distribution of one row, and how near any decision was to the other one."""
    largest, margin = max(row), math.inf
    weight = [math.exp((value - largest) / sampling.temperature) for value in row]
    kept = sorted(range(len(row)), key=lambda token: (-row[token], token))[: sampling.top_k]
    if sampling.top_p is not None and sampling.top_p < 1:
        total, mass, nucleus = math.fsum(weight[token] for token in kept), 0.0, []
        for token in kept:
            margin = min(margin, abs(mass / total - sampling.top_p))
            if mass < sampling.top_p * total:
                nucleus.append(token)
            mass += weight[token]
        kept = nucleus
    if sampling.min_p:
        margin = min([margin, *(abs(weight[token] - sampling.min_p) for token in kept[1:])])
        kept = [token for token in kept if weight[token] >= sampling.min_p]
    total, inside = math.fsum(weight[token] for token in kept), set(kept)
    return [weight[t] / total if t in inside else 0.0 for t in range(len(row))], margin


@check(
    properties=(46,),
    why="temperature, top-k, top-p and min-p do not mean what users set them to",
    cases=lambda subject: _cases(),
)
def distribution_as_documented(subject: Subject, case: Case) -> None:
    """Probabilities are those that ``Sampling`` documents, with exactly its support."""
    logits = case.logits()
    got = subject.build(case.sampling).probabilities(logits)
    holds(got.dtype == torch.float64, f"probabilities are {got.dtype}; expected float64")
    holds(got.shape == logits.shape, f"got shape {list(got.shape)}, expected {list(logits.shape)}")
    for row, values in enumerate(logits.tolist()):
        total = float(got[row].sum())
        holds(abs(total - 1) < 1e-9, f"row {row}: the probabilities sum to {total!r}")
        expected, margin = _defined(values, case.sampling)
        if margin < _MARGIN:
            continue
        for token, (mine, true) in enumerate(zip(got[row].tolist(), expected, strict=True)):
            place = f"row {row}, token {token}: got {mine!r}, expected {true!r}"
            # A probability below 1e-30 may be lost in float32.
            holds(true < 1e-30 or mine > 0, f"{place}: it belongs to the support")
            holds(true > 0 or mine == 0, f"{place}: it is outside of the support")
            # Exponentials of float32 arguments up to 400: relative error below 400 * 2**-23.
            holds(abs(mine - true) <= 5e-5 * true + 1e-12, place)


@check(
    properties=(46,),
    why="temperature 0 is what people use to get the same answer twice",
    cases=lambda subject: _cases(
        st.sampled_from(
            (Sampling(0.0), Sampling(0.0, top_p=0.5), Sampling(2.0, top_k=1), Sampling(1e-320))
        )
    ),
)
def greedy_is_the_largest(subject: Subject, case: Case) -> None:
    """Temperature 0 and top-k 1 give the largest logit, the lowest id among equals."""
    logits = case.logits()
    # A temperature that is merely tiny leaves equals equal.
    if case.sampling.temperature == 1e-320:
        logits = logits + torch.arange(case.vocabulary) * 1e-3
    sampler = subject.build(case.sampling)
    expected = torch.tensor([row.index(max(row)) for row in logits.tolist()])
    for number in _EDGES:
        got = sampler.choose(logits, torch.full((case.rows,), number, dtype=torch.float64))
        holds(bool((got == expected).all()), f"got {got.tolist()}, expected {expected.tolist()}")
    mass = sampler.probabilities(logits).gather(-1, expected[:, None])
    holds(bool((mass == 1).all()), f"probabilities {mass.flatten().tolist()}; expected 1")


@check(
    properties=(46,),
    why="a grammar's forbidden token breaks the output; a token outside of top-p is the nonsense "
    "that it was set to prevent",
    cases=lambda subject: _cases(),
)
def draws_inside_the_support(subject: Subject, case: Case) -> None:
    """Whatever the random number, a forbidden or filtered token is never drawn."""
    logits, sampler = case.logits(), subject.build(case.sampling)
    mass = sampler.probabilities(logits)
    for number in (*_EDGES, *case.uniforms(5).tolist()):
        tokens = sampler.choose(logits, torch.full((case.rows,), number, dtype=torch.float64))
        holds(tokens.dtype == torch.int64, f"ids are {tokens.dtype}; expected int64")
        holds(tokens.shape == (case.rows,), f"got shape {list(tokens.shape)}")
        inside = mass.gather(-1, tokens[:, None]) > 0
        holds(bool(inside.all()), f"drew {tokens.tolist()} with {number!r}, outside of the support")
        allowed = logits.gather(-1, tokens[:, None]) > -math.inf
        holds(bool(allowed.all()), f"drew {tokens.tolist()} with {number!r}, a forbidden token")


@check(
    properties=(46, 51),
    why="the same seed gives another answer, or other users' requests change one's own",
    cases=lambda subject: _cases(),
)
def rows_alone(subject: Subject, case: Case) -> None:
    """A row's token depends on its own logits and number alone, again and again."""
    logits, uniforms = case.logits(), case.uniforms(case.rows)
    before = logits.clone()
    sampler = subject.build(case.sampling)
    got = sampler.choose(logits, uniforms).tolist()
    holds(torch.equal(logits, before), "choose changes the logits that it is given")
    again = subject.build(case.sampling).choose(logits, uniforms).tolist()
    holds(again == got, f"got {got}, and {again} from the same numbers")
    for row in range(case.rows):
        alone = sampler.choose(logits[row : row + 1], uniforms[row : row + 1]).tolist()
        holds(alone == got[row : row + 1], f"row {row} gives {got[row]}, alone {alone}")


@check(
    properties=(47,),
    why="answers are less varied, or less likely to be right, than the settings promise",
    cases=lambda subject: _cases(sizes=st.integers(2, 12)),
    examples=15,
)
def draws_follow_the_distribution(subject: Subject, case: Case) -> None:
    """Thousands of draws pass a chi-squared test against the probabilities."""
    logits = case.logits()[:1]
    sampler = subject.build(case.sampling)
    mass = sampler.probabilities(logits)[0]
    tokens = sampler.choose(logits.expand(_DRAWS, -1), case.uniforms(_DRAWS))
    counts = torch.bincount(tokens, minlength=case.vocabulary).double()
    expected = mass * _DRAWS
    # Tokens that are expected fewer than five times are counted together, where the sum is.
    rare = expected < 5
    few, most = float(expected[rare].sum()), float(counts[rare].sum())
    counts, expected = counts[~rare], expected[~rare]
    if few >= 5:
        counts = torch.cat([counts, torch.tensor([most])])
        expected = torch.cat([expected, torch.tensor([few])])
    else:
        # Of a Poisson variable of mean 5, more than 40 comes once in 1e22.
        holds(most <= 40, f"drew {most:.0f} tokens that are expected {few:.2g} times in all")
    statistic = float(((counts - expected) ** 2 / expected).sum())
    # Above the quantile that one in 1e9 true samplers exceeds, for 1 to 12 degrees of freedom.
    bound = 37 + 3 * len(expected)
    holds(
        statistic < bound,
        f"chi-squared is {statistic:.1f}, at most {bound} allowed: drew {counts.tolist()}, "
        f"expected {[round(value, 1) for value in expected.tolist()]}",
    )


def _poisoned(case: Case, value: float) -> Tensor:
    logits = case.logits()
    if value == -math.inf:
        logits[-1] = value
    else:
        logits[-1, case.vocabulary // 2] = value
    return logits


@check(
    why="a model that overflowed answers fluent nonsense instead of saying so",
    cases=lambda subject: st.tuples(
        _cases(st.just(Sampling()) | _SAMPLINGS),
        st.sampled_from((math.nan, math.inf, -math.inf)),
    ),
)
def bad_logits_are_refused(subject: Subject, case: tuple[Case, float]) -> None:
    """A row with NaN or +inf, or without any allowed token, is refused with a GenerationError."""
    given, value = case
    logits, sampler = _poisoned(given, value), subject.build(given.sampling)
    calls: tuple[Any, ...] = (
        lambda: sampler.choose(logits, given.uniforms(given.rows)),
        lambda: sampler.probabilities(logits),
    )
    for call in calls:
        try:
            got = call()
        except GenerationError:
            continue
        raise AssertionError(f"logits with {value} give {got.tolist()}; expected a GenerationError")


CHECKS: tuple[Check, ...] = (
    distribution_as_documented,
    greedy_is_the_largest,
    draws_inside_the_support,
    rows_alone,
    draws_follow_the_distribution,
    bad_logits_are_refused,
)
