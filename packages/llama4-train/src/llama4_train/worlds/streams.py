"""Random numbers that depend on (world, seed, split, index) and on nothing else.

Every sample has a stream of its own, so that any process makes the same sample, in any order. Only
:meth:`random.Random.random` is drawn from, whose numbers Python promises to keep for a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import TypeVar

from llama4_core.specs.suggest import nearest
from llama4_train.errors import DataError

SPLITS = ("train", "held-out")
"""What is trained on, and what is only asked afterwards; they never share a stream."""

T = TypeVar("T")


class Stream:
    """Numbers, choices and orders drawn one after the other.

    Args:
        key: streams of different keys have nothing to do with each other.
    """

    __slots__ = ("random",)

    def __init__(self, key: str) -> None:
        self.random = Random(_number(key)).random

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count - 1``, each as likely."""
        return int(self.random() * count)

    def between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + int(self.random() * (high - low + 1))

    def flip(self) -> bool:
        """True half of the time."""
        return self.random() < 0.5

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``, each as likely."""
        return items[int(self.random() * len(items))]

    def some(self, items: Sequence[T], count: int) -> list[T]:
        """``count`` different places of ``items``, in random order."""
        pool = list(items)
        for at in range(count):
            other = at + int(self.random() * (len(pool) - at))
            pool[at], pool[other] = pool[other], pool[at]
        return pool[:count]


def stream(world: str, seed: int, split: str, index: int) -> Stream:
    """The stream of one sample.

    Args:
        world: its name.
        seed: of the world.
        split: one of :data:`SPLITS`.
        index: of the sample.

    Raises:
        DataError: ``index`` is no whole number from 0 on.
    """
    if type(index) is not int or index < 0:
        raise DataError(
            f"the index of a sample is {index!r:.80}; expected a whole number from 0 on"
        )
    return Stream(f"{world}/{seed}/{split}/{index}")


@lru_cache(maxsize=1 << 16)
def in_split(key: str, one_in: int, split: str) -> bool:
    """Whether what ``key`` names belongs to ``split``.

    Args:
        key: says what it is.
        one_in: one of so many, by hash, belongs to "held-out" and the rest to "train"; with 0
            everything belongs to both.
        split: one of :data:`SPLITS`.
    """
    return one_in == 0 or (_number(f"held out: {key}") % one_in == 0) == (split == "held-out")


def check_stream(seed: int, split: str) -> None:
    """Refuses what no stream can be made of.

    Raises:
        DataError: the seed is no whole number, or there is no such split.
    """
    if type(seed) is not int:
        raise DataError(f"the seed of a world is {seed!r:.80}; expected a whole number")
    check_name("split", split, SPLITS)


def check_name(what: str, value: object, known: Sequence[str]) -> None:
    """Refuses a name that is not among ``known``.

    Raises:
        DataError: names ``what``, the value and the nearest known name.
    """
    if value not in known:
        raise DataError(
            f"{what} is {value!r:.80}{nearest(str(value), known)}; expected one of "
            f"{', '.join(known)}"
        )


def check_range(what: str, value: Sequence[int], low: int, high: int) -> tuple[int, int]:
    """The two bounds of a range.

    Raises:
        DataError: not two whole numbers in order within ``low`` and ``high``.
    """
    if (
        not isinstance(value, tuple | list)
        or len(value) != 2
        or not all(type(number) is int for number in value)
        or not low <= value[0] <= value[1] <= high
    ):
        raise DataError(
            f"{what} is {value!r:.80}; expected two whole numbers in order, from {low} to {high}"
        )
    return value[0], value[1]


def check_number(what: str, value: int, low: int, high: int) -> None:
    """Refuses what is no whole number from ``low`` to ``high``.

    Raises:
        DataError: names ``what`` and the value.
    """
    if type(value) is not int or not low <= value <= high:
        raise DataError(f"{what} is {value!r:.80}; expected a whole number from {low} to {high}")


def _number(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=16).digest(), "big")
