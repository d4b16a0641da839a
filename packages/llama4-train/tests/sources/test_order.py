"""Orders: every record once in each epoch, drawn evenly, computed from the place alone."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.sources.order import Shuffled, ShuffledBlocks
from llama4_train.sources.permutation import Permutation

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=9)


@given(count=st.integers(1, 300), key=st.text(max_size=5))
def test_a_permutation_holds_each_number_once(count, key):
    order = Permutation(count, key)
    assert sorted(order[place] for place in range(count)) == list(range(count))
    assert len(order) == count


def test_there_is_no_place_outside():
    for place in (-1, 3):
        with pytest.raises(IndexError):
            Permutation(3, "")[place]


def test_permutations_of_four_are_drawn_evenly():
    counts = Counter(
        tuple(Permutation(4, str(seed))[place] for place in range(4)) for seed in range(2400)
    )
    assert len(counts) == 24
    # 100 of each are expected; chi-square with 23 degrees of freedom exceeds 52 once in 2,000.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 52


def test_neighbours_part_evenly():
    # Of 10,000 numbers, the distance of two that were neighbours: a tenth lies in each tenth of the
    # first half of the range, by the density 2 (1 - d).
    count = 10_000
    order = Permutation(count, "x")
    distances = [abs(order[place] - order[place + 1]) / count for place in range(count - 1)]
    near = sum(distance < 0.1 for distance in distances) / len(distances)
    # 2 * 0.1 - 0.1 ** 2 = 0.19, with a standard deviation of 0.004.
    assert abs(near - 0.19) < 0.02


@given(count=st.integers(1, 60), seed=st.integers(0, 99), epoch=st.integers(0, 9))
def test_shuffled_gives_each_record_once(count, seed, epoch):
    order = Shuffled(count, seed)
    found = [order(epoch, place) for place in range(count)]
    assert sorted(found) == list(range(count))
    assert found == [Shuffled(count, seed)(epoch, place) for place in range(count)]


def test_epochs_and_seeds_differ():
    def found(seed, epoch):
        return [Shuffled(50, seed)(epoch, place) for place in range(50)]

    assert len({tuple(found(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@given(sizes=SIZES, seed=st.integers(0, 99), epoch=st.integers(0, 3), window=st.integers(1, 4))
def test_blocks_give_each_record_once(sizes, seed, epoch, window):
    count = sum(sizes)
    order = ShuffledBlocks(sizes, seed, window)
    found = [order(epoch, place) for place in range(count)]
    assert sorted(found) == list(range(count))
    # In any order of asking.
    again = ShuffledBlocks(sizes, seed, window)
    assert [again(epoch, place) for place in reversed(range(count))] == found[::-1]


@given(sizes=SIZES, seed=st.integers(0, 99), window=st.integers(1, 4))
def test_only_one_window_is_held_at_a_time(sizes, seed, window):
    order = ShuffledBlocks(sizes, seed, window)
    block_of = [block for block, size in enumerate(sizes) for _ in range(size)]
    blocks = [block_of[order(0, place)] for place in range(len(block_of))]
    done: set[int] = set()
    held: set[int] = set()
    for place, block in enumerate(blocks):
        assert block not in done
        held.add(block)
        assert len(held) <= window
        if len(held) == window and held.isdisjoint(blocks[place + 1 :]):
            done |= held
            held = set()


def test_the_records_of_a_window_are_mixed():
    order = ShuffledBlocks([50, 50, 50, 50], 1, 2)
    first = [order(0, place) // 50 for place in range(100)]
    # 50 of each block, never one after the other.
    assert set(Counter(first).values()) == {50}
    assert 20 < sum(a != b for a, b in pairwise(first)) < 80
