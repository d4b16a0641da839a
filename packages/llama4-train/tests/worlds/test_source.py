"""Worlds as a data source: exact state, mixtures, names that are nearly right."""

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import DataError
from llama4_train.worlds import WORLDS, WorldSource, world

MIXTURE = [
    {"world": "arithmetic", "weight": 3},
    {"world": "sentences", "weight": 1, "settings": {"questions": 2}},
    {"world": "arithmetic", "weight": 1.0, "settings": {"digits": [3, 3], "seed": 9}},
]


@given(first=st.integers(0, 30), mixed=st.booleans(), seed=st.integers(0, 100))
def test_a_restored_source_goes_on_exactly(first, mixed, seed):
    def source():
        if mixed:
            return WorldSource(worlds=MIXTURE, seed=seed)
        return WorldSource(world="arithmetic", seed=seed, split="held-out")

    whole = list(islice(source(), first + 10))
    one = source()
    assert list(islice(one, first)) == whole[:first]
    state = json.loads(json.dumps(one.state()))
    other = source()
    next(other)
    other.restore(state)
    assert list(islice(other, 10)) == whole[first:]
    assert list(islice(one, 10)) == whole[first:]


def test_one_world_gives_its_own_samples():
    source = WorldSource(world="arithmetic", seed=4, digits=(2, 2))
    own = world("arithmetic", seed=4, digits=(2, 2))
    records = [next(source) for _ in range(5)]
    assert [replace(record, origin="") for record in records] == [
        own.sample(index).record for index in range(5)
    ]
    assert records[3].origin == "sample 3 of arithmetic"
    assert source.state() == {"next": 5}
    assert own.sample(0).record.source == "arithmetic"


def test_a_mixture_follows_its_weights():
    source = WorldSource(worlds=MIXTURE)
    counts = Counter(source.worlds.index(source.world_of(index)) for index in range(5000))
    for at, share in enumerate((0.6, 0.2, 0.2)):
        # Five standard deviations of a binomial count.
        assert abs(counts[at] - 5000 * share) < 5 * math.sqrt(5000 * share * (1 - share))
    assert source.worlds[2].seed == 9
    assert source.worlds[2].digits == (3, 3)


def test_a_limit_ends_the_records():
    source = WorldSource(world="arithmetic", limit=3)
    assert len(list(source)) == 3
    with pytest.raises(StopIteration):
        next(source)
    source.restore({"next": 1})
    assert len(list(source)) == 2


@pytest.mark.parametrize("name", list(WORLDS))
def test_every_world_is_a_source(name):
    record = next(WorldSource(world=name))
    assert bool(record.pieces) != bool(record.messages)
    assert record.source == name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"world": "scene"}, "the world is 'scene' .did you mean 'scenes'"),
        ({"world": "arithmetic", "digit": 2}, "no setting 'digit' .did you mean 'digits'"),
        ({"world": "arithmetic", "_pairs": ()}, "no setting '_pairs'"),
        ({}, "expected one of them"),
        ({"world": "scenes", "worlds": MIXTURE}, "expected one of them"),
        ({"worlds": MIXTURE, "digits": 2}, "settings digits stand beside worlds"),
        ({"worlds": [{"name": "scenes"}]}, "expected a table with a key 'world'"),
        ({"worlds": [{"world": "scenes", "wieght": 1}]}, "'wieght' .did you mean 'weight'"),
        ({"worlds": [{"world": "scenes", "weight": 0}]}, "the weight of a world is 0"),
        ({"worlds": [{"world": "scenes", "settings": 3}]}, "the settings of a world are 3"),
        ({"world": "scenes", "limit": -1}, "limit is -1"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(DataError, match=words) as caught:
        WorldSource(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("state", [{}, {"next": -1}, {"next": "3"}, {"next": 1, "shuffle": 2}])
def test_a_foreign_state_is_refused(state):
    with pytest.raises(DataError, match="the state of a world is"):
        WorldSource(world="arithmetic").restore(state)


def test_a_sample_that_cannot_be_made_is_passed(monkeypatch):
    source = WorldSource(world="arithmetic")
    whole = list(islice(WorldSource(world="arithmetic"), 3))
    sample = source.sample

    def broken(index):
        if index == 1:
            raise DataError("no such sample")
        return sample(index)

    monkeypatch.setattr(source, "sample", broken)
    assert next(source) == whole[0]
    with pytest.raises(DataError):
        next(source)
    assert next(source) == whole[2]
