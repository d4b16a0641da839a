"""Properties 46 and 47: exact supports, and the distribution that is really drawn from."""

import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import GenerationError
from llama4_core.generation.sampling import (
    Sampling,
    _invert,
    choose,
    log_probabilities,
    probabilities,
)

SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.05, 0.7, 1.0, 3.0]),
    top_k=st.none() | st.integers(1, 50),
    top_p=st.none() | st.floats(0.01, 1.0),
    min_p=st.none() | st.floats(0.0, 1.0),
)


def draw_logits(seed: int, rows: int, vocabulary: int, ties: bool) -> torch.Tensor:
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    return logits.round() if ties else logits


def brute_force(row: list[float], sampling: Sampling) -> tuple[list[float], float]:
    """Probabilities by definition, and how near any decision was to going the other way."""
    largest = max(row)
    weight = [math.exp((value - largest) / sampling.temperature) for value in row]
    ranking = sorted(range(len(row)), key=lambda token: (-row[token], token))
    margin = math.inf
    kept = ranking[: sampling.top_k] if sampling.top_k else ranking
    if sampling.top_p is not None and sampling.top_p < 1:
        total = math.fsum(weight[token] for token in kept)
        nucleus, mass = [], 0.0
        for token in kept:
            margin = min(margin, abs(mass / total - sampling.top_p))
            if mass < sampling.top_p * total:
                nucleus.append(token)
            mass += weight[token]
        kept = nucleus
    if sampling.min_p:
        margin = min(margin, *(abs(weight[token] - sampling.min_p) for token in kept[1:]), math.inf)
        kept = [token for token in kept if weight[token] >= sampling.min_p]
    total = math.fsum(weight[token] for token in kept)
    inside = set(kept)
    return [weight[t] / total if t in inside else 0.0 for t in range(len(row))], margin


@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 4),
    vocabulary=st.integers(1, 40),
    ties=st.booleans(),
    sampling=SAMPLINGS,
)
def test_distribution_is_the_documented_one(seed, rows, vocabulary, ties, sampling):
    logits = draw_logits(seed, rows, vocabulary, ties)
    got = probabilities(logits, sampling)
    for row in range(rows):
        expected, margin = brute_force(logits[row].tolist(), sampling)
        # Float32 exponentials are good to about 1e-6; nearer decisions may go either way.
        if margin < 1e-5:
            continue
        expected_row = torch.tensor(expected, dtype=torch.float64)
        # A probability of 1e-40 is 0 in float32 and kept as such.
        representable = (expected_row > 1e-30) | (expected_row == 0)
        assert torch.equal((got[row] > 0)[representable], (expected_row > 0)[representable])
        # 40 float32 exponentials of arguments up to 400: relative error below 400 * 2**-23.
        torch.testing.assert_close(got[row], expected_row, rtol=5e-5, atol=1e-12)
        assert math.isclose(float(got[row].sum()), 1, rel_tol=1e-12)


@given(
    seed=st.integers(0, 2**32),
    share=st.floats(0.05, 0.9999),
    scale=st.sampled_from([0.1, 1.0]),
    top_k=st.sampled_from([None, 3, 30, 4000]),
)
def test_a_large_vocabulary_is_filtered_without_sorting_everything(seed, share, scale, top_k):
    # The nucleus may be wider than the first head that is looked at; a few candidates are found by
    # blocks.
    logits = torch.randn(2, 5000, generator=torch.Generator().manual_seed(seed)) * scale
    sampling = Sampling(1.0, top_k=top_k, top_p=share)
    kept = probabilities(logits, sampling) > 0
    for row in range(2):
        expected, margin = brute_force(logits[row].tolist(), sampling)
        if margin > 1e-7:
            assert torch.equal(kept[row], torch.tensor(expected) > 0)


@given(seed=st.integers(0, 2**32), ties=st.booleans(), top_p=st.none() | st.floats(0.01, 1))
def test_one_candidate_is_greedy(seed, ties, top_p):
    logits = draw_logits(seed, 3, 30, ties)
    first = torch.tensor([row.index(max(row)) for row in logits.tolist()])
    ones = torch.full((3,), 1 - 2**-53, dtype=torch.float64)
    assert torch.equal(choose(logits, Sampling(), ones), first)
    assert torch.equal(choose(logits, Sampling(2.0, top_k=1, top_p=top_p), ones), first)
    if not ties:
        assert torch.equal(choose(logits, Sampling(1e-320), ones), first)


@given(seed=st.integers(0, 2**32), sampling=SAMPLINGS, uniform=st.floats(0, 1, exclude_max=True))
def test_draws_stay_inside_the_support(seed, sampling, uniform):
    logits = draw_logits(seed, 2, 33, ties=True)
    logits[:, ::4] = -math.inf
    for number in (uniform, 0.0, 1 - 2**-53):
        tokens = choose(logits, sampling, torch.full((2,), number, dtype=torch.float64))
        weight = probabilities(logits, sampling).gather(1, tokens[:, None])
        assert bool((weight > 0).all())


def test_every_token_is_drawn_by_its_own_numbers():
    vocabulary = 1500  # three blocks of the inversion
    logits = draw_logits(1, 1, vocabulary, ties=False)
    logits[:, ::512] = -math.inf
    ends = logits[0].double().softmax(-1).cumsum(-1)
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    # Float32 exponentials move the borders by about 1e-7 of the whole.
    wide = (ends - starts > 1e-5).nonzero()[:, 0]
    got = choose(logits.expand(len(wide), -1), Sampling(1.0), (starts + ends)[wide] / 2)
    assert len(wide) > 500
    assert torch.equal(got, wide)


def test_a_point_at_the_end_belongs_to_the_last_token_with_mass():
    mass = torch.tensor([[0.0, 1.0, 2.0, 2.0]], dtype=torch.float64)
    points = torch.tensor([[0.0], [1.0], [2.0], [2.1]], dtype=torch.float64)
    assert _invert(mass.expand(4, -1).contiguous(), points)[:, 0].tolist() == [1, 2, 2, 2]


@given(seed=st.integers(0, 2**32))
def test_rounding_at_a_border_never_draws_what_is_forbidden(seed):
    logits = draw_logits(seed, 1, 1500, ties=False)
    logits[:, ::512] = -math.inf
    mass = (logits - logits.max()).exp().double()[0]
    borders = (mass.cumsum(-1)[[511, 1023, 1499]] / mass.sum()).clamp(max=1 - 2**-53)
    near = torch.cat([borders + steps * 2**-53 for steps in range(-8, 1)]).clamp(max=1 - 2**-53)
    tokens = choose(logits.expand(len(near), -1), Sampling(1.0), near)
    assert bool((logits[0, tokens] > -math.inf).all())


@given(seed=st.integers(0, 2**32), sampling=SAMPLINGS, rows=st.integers(1, 5))
def test_rows_do_not_touch_each_other(seed, sampling, rows):
    logits = draw_logits(seed, rows, 50, ties=False)
    uniforms = torch.rand(rows, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    together = choose(logits, sampling, uniforms)
    alone = [choose(logits[i : i + 1], sampling, uniforms[i : i + 1]) for i in range(rows)]
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize(
    "sampling",
    [Sampling(1.0), Sampling(0.5, top_k=5), Sampling(1.5, top_p=0.8), Sampling(1.0, min_p=0.1)],
)
def test_frequencies_follow_the_distribution(sampling):
    draws = 20_000
    logits = draw_logits(7, 1, 12, ties=False) / 3
    numbers = random.Random(0)
    uniforms = torch.tensor([numbers.random() for _ in range(draws)], dtype=torch.float64)
    counts = choose(logits.expand(draws, -1), sampling, uniforms).bincount(minlength=12)
    expected = torch.tensor(brute_force(logits[0].tolist(), sampling)[0]) * draws
    support = expected > 0
    assert int(counts[~support].sum()) == 0
    statistic = float(((counts - expected) ** 2 / expected)[support].sum())
    freedom = int(support.sum()) - 1
    # Laurent and Massart (2000), lemma 1: a chi-square variable of d degrees exceeds
    # d + 2 sqrt(d x) + 2 x with probability at most exp(-x); here one in a million.
    x = math.log(1e6)
    assert statistic <= freedom + 2 * math.sqrt(freedom * x) + 2 * x


def test_log_probabilities_are_of_the_model_itself():
    logits = draw_logits(3, 4, 20, ties=False)
    tokens = torch.tensor([0, 5, 19, 7])
    chosen, ids, values = log_probabilities(logits, tokens, 3)
    expected = logits.double().log_softmax(-1)
    # One float32 logsumexp of numbers near 10: a few units in the last place.
    torch.testing.assert_close(chosen.double(), expected[range(4), tokens], rtol=0, atol=1e-5)
    top = expected.topk(3)
    assert torch.equal(ids, top.indices)
    torch.testing.assert_close(values.double(), top.values, rtol=0, atol=1e-5)
    assert log_probabilities(logits, tokens, 100)[1].shape == (4, 20)
    assert log_probabilities(logits, tokens)[1].shape == (4, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("temperature", v) for v in (math.nan, -1.0, -1e-9, math.inf, "1", None, True)),
        *(("top_k", v) for v in (0, -1, 2.0, True)),
        *(("top_p", v) for v in (0.0, -0.1, 1.1, math.nan, "0.5")),
        *(("min_p", v) for v in (-0.1, 1.01, math.nan)),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(GenerationError) as caught:
        Sampling(**{name: value})
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.0), Sampling(1.0, top_k=2, top_p=0.5)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_named(sampling, value):
    logits = torch.zeros(3, 5)
    logits[1, 2] = value
    with pytest.raises(GenerationError, match=f"row 1 contain {value}"):
        choose(logits, sampling, torch.zeros(3))
    with pytest.raises(GenerationError, match="every logit of row 0"):
        choose(torch.full((1, 5), -math.inf), sampling, torch.zeros(1))
