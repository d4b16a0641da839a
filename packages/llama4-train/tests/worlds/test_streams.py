"""A sample depends on the settings, the split and the index, and on nothing else."""

import math
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.messages import Image, Text, Video
from llama4_train.errors import DataError
from llama4_train.worlds import WORLDS, world
from llama4_train.worlds.streams import Stream, in_split, stream

DIGEST = """
import hashlib
from llama4_core.chat.messages import Image, Text, Video
from llama4_train.worlds import WORLDS, world

def pixels(part):
    if isinstance(part, Text):
        return part.text.encode()
    frames = part.source if isinstance(part, Video) else [part.source]
    return b"".join(frame.tobytes() for frame in frames)

for name in sorted(WORLDS):
    whole = hashlib.sha256()
    for split in ("train", "held-out"):
        given = world(name, seed=3, split=split)
        for index in (7, 0, 12345678901):
            record = given.sample(index).record
            for piece in record.pieces:
                whole.update(pixels(piece.part) + str(piece.weight).encode())
            for message in record.messages:
                for part in message.content:
                    whole.update(pixels(part))
                whole.update(repr(message.tool_calls).encode())
            whole.update(repr(record.tools).encode())
    print(name, whole.hexdigest())
import sys
assert "torch" not in sys.modules
"""


def contents(record):
    """Texts, and the bytes of pictures, of a record."""
    parts = [piece.part for piece in record.pieces]
    parts += [part for message in record.messages for part in message.content]
    found = []
    for part in parts:
        if isinstance(part, Text):
            found.append(part.text)
        elif isinstance(part, Image):
            found.append(part.source.tobytes())
        else:
            assert isinstance(part, Video)
            found += [frame.tobytes() for frame in part.source]
    return found


def test_any_process_makes_the_same_samples_and_none_imports_torch():
    said = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == len(WORLDS)


@pytest.mark.parametrize("name", list(WORLDS))
def test_a_sample_does_not_depend_on_those_before_it(name):
    one, other = world(name), world(name)
    forwards = [contents(one.sample(index).record) for index in range(5)]
    backwards = [contents(other.sample(index).record) for index in reversed(range(5))]
    assert forwards == backwards[::-1]
    assert len({repr(sample) for sample in forwards}) == 5


@pytest.mark.parametrize("name", list(WORLDS))
def test_splits_and_seeds_are_different_sequences(name):
    # Single samples may be equal by chance where there are few of them, as requests for a tool.
    every = [
        [contents(world(name, seed=seed, split=split).sample(i).record) for i in range(10)]
        for seed in (0, 1)
        for split in ("train", "held-out")
    ]
    assert len({repr(samples) for samples in every}) == 4


def test_the_streams_of_all_samples_differ():
    numbers = {
        stream(name, seed, split, index).random()
        for name in ("a", "b")
        for seed in range(5)
        for split in ("train", "held-out")
        for index in range(50)
    }
    assert len(numbers) == 2 * 5 * 2 * 50


@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
def test_draws_stay_within_their_bounds(seed, count):
    numbers = Stream(str(seed))
    items = list(range(100, 100 + count))
    assert numbers.below(count) in range(count)
    assert numbers.between(5, 5 + count) in range(5, 6 + count)
    assert numbers.pick(items) in items
    assert sorted(numbers.some(items, count)) == items
    assert items == list(range(100, 100 + count))


def test_each_draw_is_as_likely():
    numbers, draws = Stream("even"), 6000
    counts = [0] * 6
    firsts = [0] * 6
    for _ in range(draws):
        counts[numbers.between(0, 5)] += 1
        firsts[numbers.some(range(6), 3)[2]] += 1
    # Five standard deviations of a binomial count with p = 1/6; the draws are always the same.
    bound = 5 * math.sqrt(draws * (1 / 6) * (5 / 6))
    assert all(abs(count - draws / 6) < bound for count in counts + firsts)


@given(key=st.text(max_size=20), one_in=st.integers(2, 12))
def test_what_is_set_aside_is_in_one_split_only(key, one_in):
    assert in_split(key, one_in, "train") != in_split(key, one_in, "held-out")
    assert in_split(key, 0, "train")
    assert in_split(key, 0, "held-out")


def test_one_of_so_many_is_set_aside():
    held = sum(in_split(str(number), 8, "held-out") for number in range(8000))
    # Five standard deviations of a binomial count with p = 1/8.
    assert abs(held - 1000) < 5 * math.sqrt(8000 * (1 / 8) * (7 / 8))


@pytest.mark.parametrize("name", list(WORLDS))
def test_a_world_is_a_value(name):
    assert world(name, seed=2) == world(name, seed=2)
    assert hash(world(name, seed=2)) == hash(world(name, seed=2))
    assert world(name, seed=2) != world(name, seed=3)
    with pytest.raises(DataError, match=r"split is 'held_out' .did you mean 'held-out'"):
        world(name, split="held_out")
    with pytest.raises(DataError, match="the seed of a world is 'x'"):
        world(name, seed="x")
    for index in (-1, 1.0, True):
        with pytest.raises(DataError, match="the index of a sample is"):
            world(name).sample(index)
