"""Records that have numbers, walked through once or several times, with an exact state."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

from llama4_train.errors import DataError
from llama4_train.sources.order import Order, Sequential, Shuffled, ShuffledBlocks

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")


class Rows(Protocol[T_co]):
    """Records by number.

    Attributes:
        blocks: records of each block, where reading one record takes the reading of a block; empty
            where records are read one by one.
        fingerprint: other data have another one.
    """

    @property
    def blocks(self) -> Sequence[int]:
        """Records of each block, or nothing."""

    @property
    def fingerprint(self) -> str:
        """Of the data."""

    def __len__(self) -> int:
        """How many there are; at least one."""

    def __getitem__(self, number: int) -> T_co:
        """One record.

        Raises:
            DataError: it cannot be read; names the file and the place.
        """


class Finite(Generic[T]):
    """Walks through rows, ``epochs`` times over.

    The state is an epoch, a place in it, and what the data and the order are known by: the order
    of an epoch is computed, never stored.

    Args:
        rows: what is walked through.
        epochs: times; 0 for without end.
        shuffle: another order in each epoch, instead of that in which they are stored.
        seed: of the orders.
        window: blocks that are mixed when shuffled, for rows with blocks.

    Raises:
        DataError: a setting is wrong.
    """

    def __init__(
        self,
        rows: Rows[T],
        epochs: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        window: int = 1,
    ) -> None:
        check_walk(epochs, shuffle, seed)
        if type(window) is not int or window < 1:
            raise DataError(f"window is {window!r:.80}; expected a whole number of at least 1")
        self.rows = rows
        self._epochs = epochs
        self._order: Order = Sequential()
        if shuffle and rows.blocks:
            self._order = ShuffledBlocks(rows.blocks, seed, window)
        elif shuffle:
            self._order = Shuffled(len(rows), seed)
        self._about = {
            "data": rows.fingerprint,
            "records": len(rows),
            "order": f"shuffled with seed {seed}" if shuffle else "as stored",
        }
        if shuffle and rows.blocks:
            self._about["order"] = f"shuffled with seed {seed} and window {window}"
        self._epoch = self._place = 0

    @property
    def fingerprint(self) -> str:
        """Of the data."""
        return self.rows.fingerprint

    @property
    def endless(self) -> bool:
        """Whether it never ends."""
        return self._epochs == 0

    def __iter__(self) -> Finite[T]:
        return self

    def __next__(self) -> T:
        """The next record; after an error, the one behind it."""
        if self._place == len(self.rows):
            self._epoch, self._place = self._epoch + 1, 0
        if self._epochs and self._epoch >= self._epochs:
            # At the end of the last epoch, where more epochs may be added later.
            self._epoch, self._place = self._epoch - 1, len(self.rows)
            raise StopIteration
        number = self._order(self._epoch, self._place)
        self._place += 1
        return self.rows[number]

    def state(self) -> dict[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        return {"epoch": self._epoch, "place": self._place, **self._about}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :class:`~llama4_train.protocols.DataSource`.

        Raises:
            DataError: the state is of other data, of another order, or of another kind of source.
        """
        check_state(state, self._about)
        place = counted(state, "epoch"), counted(state, "place")
        if place[1] > len(self.rows):
            raise DataError(f"the stored state is at record {place[1]} of {len(self.rows)}")
        self._epoch, self._place = place


def check_walk(epochs: int, shuffle: bool, seed: int) -> None:
    """Refuses settings that say no order.

    Raises:
        DataError: one of them is of the wrong type or out of range.
    """
    if type(epochs) is not int or epochs < 0:
        raise DataError(
            f"epochs are {epochs!r:.80}; expected a whole number, 0 for going on without end"
        )
    if type(shuffle) is not bool:
        raise DataError(f"shuffle is {shuffle!r:.80}; expected true or false")
    if type(seed) is not int:
        raise DataError(f"seed is {seed!r:.80}; expected a whole number")


def check_state(state: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Refuses a state that was taken of something else.

    Args:
        state: that is to be restored.
        about: what has to be equal in it.

    Raises:
        DataError: says what differs.
    """
    if not isinstance(state, Mapping) or not about.keys() <= state.keys():
        raise DataError(
            f"the stored state is {state!r:.120}; expected one with {', '.join(about)}: it is of "
            "another kind of data source"
        )
    for name, expected in about.items():
        if state[name] != expected:
            raise DataError(
                f"the stored state has {name} {state[name]!r:.80}, this source has "
                f"{expected!r:.80}; resume with the data and the recipe that the run was started "
                "with"
            )


def counted(state: Mapping[str, Any], name: str) -> int:
    """A number of a state.

    Raises:
        DataError: it is missing or no whole number from 0 on.
    """
    value = state.get(name)
    if type(value) is not int or value < 0:
        raise DataError(
            f"the stored state has {name} {value!r:.80}; expected a whole number from 0 on"
        )
    return value


class Joined(Generic[T]):
    """Several rows one behind the other, as one.

    Args:
        parts: at least one; all with blocks, or none.
        fingerprint: of all.
    """

    def __init__(self, parts: Sequence[Rows[T]], fingerprint: str) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(len(part) for part in parts)]
        self.blocks = tuple(size for part in parts for size in part.blocks)
        self.fingerprint = fingerprint

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> T:
        part = bisect_right(self._starts, number) - 1
        return self._parts[part][number - self._starts[part]]
