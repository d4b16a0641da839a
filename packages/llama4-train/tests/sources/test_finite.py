"""Walking through records: epochs, orders, states."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import DataError
from llama4_train.sources.finite import Finite, Joined


class Numbers:
    def __init__(self, count, blocks=(), start=0, broken=()):
        self.count, self.blocks, self.start, self.broken = count, blocks, start, broken
        self.fingerprint = f"{count} numbers"

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        assert 0 <= number < self.count
        if number in self.broken:
            raise DataError(f"number {number}")
        return self.start + number


SETTINGS = st.fixed_dictionaries(
    {"epochs": st.integers(1, 3), "shuffle": st.booleans(), "seed": st.integers(0, 9)}
)


@given(count=st.integers(1, 20), settings=SETTINGS, blocked=st.booleans())
def test_each_epoch_has_every_record_once(count, settings, blocked):
    blocks = (count - count // 2, count // 2) if blocked and count > 1 else ()
    found = list(Finite(Numbers(count, blocks), **settings))
    epochs = [found[at : at + count] for at in range(0, len(found), count)]
    assert len(epochs) == settings["epochs"]
    for epoch in epochs:
        assert sorted(epoch) == list(range(count))
        if not settings["shuffle"]:
            assert epoch == list(range(count))


@given(count=st.integers(1, 20), settings=SETTINGS, data=st.data())
def test_it_goes_on_anywhere(count, settings, data):
    whole = list(Finite(Numbers(count), **settings))
    cut = data.draw(st.integers(0, len(whole)))
    first = Finite(Numbers(count), **settings)
    for _ in range(cut):
        next(first)
    second = Finite(Numbers(count), **settings)
    second.restore(json.loads(json.dumps(first.state())))
    assert list(second) == whole[cut:]


def test_no_epochs_are_no_end():
    source = Finite(Numbers(3), epochs=0)
    assert source.endless
    assert [next(source) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert not Finite(Numbers(3)).endless


def test_epochs_may_be_added_later():
    source = Finite(Numbers(2), epochs=1)
    assert list(source) == [0, 1]
    longer = Finite(Numbers(2), epochs=2)
    longer.restore(source.state())
    assert list(longer) == [0, 1]


@given(broken=st.sets(st.integers(0, 9), max_size=9), shuffle=st.booleans())
def test_errors_cost_one_record_each(broken, shuffle):
    source = Finite(Numbers(10, broken=broken), shuffle=shuffle)
    found, errors = [], 0
    for _ in range(10):
        try:
            found.append(next(source))
        except DataError:
            errors += 1
    assert errors == len(broken)
    assert sorted(found) == sorted(set(range(10)) - broken)
    assert list(source) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rows": Numbers(4)}, "4 numbers"),
        ({"seed": 2}, "seed 2"),
        ({"shuffle": False}, "as stored"),
        ({"rows": Numbers(3, (1, 2)), "window": 2}, "window 2"),
    ],
)
def test_a_state_of_something_else_is_refused(changes, said):
    settings = {"rows": Numbers(3), "shuffle": True, "seed": 1}
    state = Finite(**settings).state()
    other = Finite(**{**settings, **changes})
    next(other)
    before = other.state()
    with pytest.raises(DataError, match=said):
        other.restore(state)
    assert other.state() == before


@pytest.mark.parametrize(
    "settings",
    [
        {"epochs": -1},
        {"epochs": 1.5},
        {"epochs": True},
        {"shuffle": 1},
        {"seed": "x"},
        {"window": 0},
    ],
)
def test_wrong_settings_are_named(settings):
    with pytest.raises(DataError, match=next(iter(settings))):
        Finite(Numbers(3), **settings)


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any))
def test_joined_is_one_behind_the_other(counts):
    starts = [100 * at for at in range(len(counts))]
    parts = [Numbers(n, (n,), at) for n, at in zip(counts, starts, strict=True)]
    joined = Joined(parts, "all")
    expected = [at + k for n, at in zip(counts, starts, strict=True) for k in range(n)]
    assert [joined[number] for number in range(len(joined))] == expected
    assert joined.blocks == tuple(counts)


def test_shuffling_moves_records_of_all_parts():
    joined = Joined([Numbers(50), Numbers(50, start=100)], "all")
    found = list(Finite(joined, shuffle=True))
    assert Counter(number // 100 for number in found[:50])[0] in range(10, 40)
