"""Mixtures: shares, exact resumption (property 63), ends, states of other recipes."""

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.messages import Text
from llama4_train.data.mixture import Mixture
from llama4_train.errors import DataError, NoMoreDataError
from llama4_train.protocols import Piece, Record
from llama4_train.sources.finite import Finite


class Rows:
    blocks = ()

    def __init__(self, name, count=10, broken=()):
        self.name, self.count, self.broken = name, count, broken
        self.fingerprint = name

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        if number in self.broken:
            raise DataError(f"{self.name} {number} is broken")
        return Record(pieces=(Piece(Text(f"{self.name}{number}")),))


def mixture(weights, seed=0, count=10, epochs=0, broken=(), shuffle=True):
    sources = [
        (name, Finite(Rows(name, count, broken), epochs, shuffle, seed))
        for name, _ in zip("abcdef", weights, strict=False)
    ]
    return Mixture(sources, weights, seed)


def names(records):
    return [record.pieces[0].part.text for record in records]


WEIGHTS = st.lists(st.floats(0.1, 10), min_size=1, max_size=4)


@given(weights=WEIGHTS, seed=st.integers(0, 2**32))
def test_shares_are_the_weights(weights, seed):
    source = mixture(weights, seed)
    count = 1000
    seen = Counter(next(source).source for _ in range(count))
    for name, weight in zip("abcd", weights, strict=False):
        share = weight / sum(weights)
        # Five standard deviations of a binomial: missed once in two million draws.
        allowed = 5 * math.sqrt(count * share * (1 - share)) + 1e-9
        assert abs(seen[name] - count * share) <= allowed


@given(weights=WEIGHTS, seed=st.integers(0, 99), cut=st.integers(0, 40), ahead=st.integers(0, 9))
def test_it_goes_on_exactly(weights, seed, cut, ahead):
    source = mixture(weights, seed)
    whole = names(next(source) for _ in range(60))
    first, second = mixture(weights, seed), mixture(weights, seed)
    for _ in range(cut):
        next(first)
    for _ in range(ahead):
        next(second)
    second.restore(json.loads(json.dumps(first.state())))
    assert second.drawn == cut
    assert names(next(second) for _ in range(60 - cut)) == whole[cut:]


@given(weights=WEIGHTS, seed=st.integers(0, 99))
def test_each_source_gives_its_own_records_in_order(weights, seed):
    source = mixture(weights, seed, shuffle=False)
    found = [next(source) for _ in range(50)]
    for name in "abcd"[: len(weights)]:
        own = names(record for record in found if record.source == name)
        assert own == [f"{name}{number % 10}" for number in range(len(own))]


def test_seeds_differ():
    drawn = [
        tuple(next(source).source for _ in range(40))
        for source in (mixture([1, 1], seed) for seed in range(5))
    ]
    assert len(set(drawn)) == 5


def test_it_ends_with_the_first_source_that_is_missed():
    source = mixture([1, 3], count=5, epochs=1)
    found = []

    def draw():
        while True:
            found.append(next(source).source)

    with pytest.raises(NoMoreDataError, match=r"'b' has ended after .* epochs to 0"):
        draw()
    assert source.ended == "b"
    assert found.count("b") == 5
    assert found.count("a") < 5
    # And stays there, restored too.
    other = mixture([1, 3], count=5, epochs=1)
    other.restore(source.state())
    for one in (source, other):
        with pytest.raises(NoMoreDataError):
            next(one)


def test_an_error_does_not_change_who_comes_next():
    whole = mixture([1, 1], shuffle=False)
    order = [next(whole).source for _ in range(30)]
    source = mixture([1, 1], broken={2, 3}, shuffle=False)
    seen, errors = [], 0
    while len(seen) < 30:
        try:
            seen.append(next(source).source)
        except DataError:
            errors += 1
    assert seen == order
    assert errors > 0


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: mixture([1, 2, 1]), "weights"),
        (lambda: mixture([1, 1, 1], seed=3), "seed"),
        (lambda: mixture([1, 1]), "labels"),
        (lambda: mixture([1, 1, 1], count=11), "data source 'a': .*records 10"),
    ],
)
def test_a_state_of_another_recipe_says_what_differs(other, said):
    state = mixture([1, 1, 1]).state()
    target = other()
    next(target)
    before = target.state()
    with pytest.raises(DataError, match=said):
        target.restore(state)
    assert target.state() == before


def test_nothing_is_half_restored():
    source, target = mixture([1, 1]), mixture([1, 1])
    for _ in range(7):
        next(source)
    state = source.state()
    state["sources"][1]["data"] = "something else"
    before = target.state()
    with pytest.raises(DataError, match="'b'"):
        target.restore(state)
    assert target.state() == before


@pytest.mark.parametrize("state", [{}, {"drawn": -1, "sources": []}, {"drawn": "x"}])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(DataError, match="expected one of a mixture"):
        mixture([1]).restore(state)


@pytest.mark.parametrize("weights", [[0], [-1], [math.nan], [math.inf], [True], ["1"]])
def test_weights_are_numbers_above_zero(weights):
    with pytest.raises(DataError, match="weights are"):
        mixture(weights)


def test_there_is_a_weight_for_each_source():
    with pytest.raises(DataError, match="got 0 sources"):
        Mixture([], [], 0)
