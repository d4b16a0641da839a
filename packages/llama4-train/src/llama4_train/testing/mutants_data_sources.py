"""Bugs of data sources, planted into JSON lines."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from llama4_core.chat.messages import Message, Text
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_train.errors import DataError
from llama4_train.protocols import Piece, Record
from llama4_train.sources.jsonl import Jsonl


class Broken(Jsonl):
    """JSON lines whose records are changed.

    Args:
        change: of each record.
        settings: of the source.
    """

    def __init__(self, change: Callable[[Record], Record] = lambda r: r, **settings: Any) -> None:
        super().__init__(**settings)
        self.change = change

    def __next__(self) -> Record:
        """The next record, changed."""
        return self.change(super().__next__())


class Global(Jsonl):
    """Draws which record comes from the random numbers of the process."""

    def __next__(self) -> Record:
        """The next record, or the one behind it."""
        record = super().__next__()
        return record if random.random() < 0.5 else super().__next__()


class Seeded(Jsonl):
    """Seeds the random numbers of the process, and draws from them."""

    def __init__(self, **settings: Any) -> None:
        random.seed(0)
        super().__init__(**settings, shuffle=True, seed=random.randrange(100))


class Together(Jsonl):
    """All sources share one place."""

    shared: ClassVar[dict[str, int]] = {"place": 0}

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.shared["place"] = 0

    def __next__(self) -> Record:
        """The record behind the last one that any source gave."""
        self._place = self.shared["place"]
        record = super().__next__()
        self.shared["place"] = self._place
        return record


class Buffered(Jsonl):
    """Shuffles within a buffer that is no part of its state."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._random, self._buffer = random.Random(0), []

    _buffer: list[Record]

    def __next__(self) -> Record:
        """Any of the next four records."""
        while len(self._buffer) < 4:
            try:
                self._buffer.append(super().__next__())
            except StopIteration:
                break
        if not self._buffer:
            raise StopIteration
        return self._buffer.pop(self._random.randrange(len(self._buffer)))

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the buffer."""
        super().restore(state)
        self._buffer = []


class Forgetful(Jsonl):
    """Two epochs, of which the state does not say which it is in."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, epochs=2)

    def restore(self, state: Mapping[str, Any]) -> None:
        """Always into the first epoch."""
        super().restore({**state, "epoch": 0})


class Live(Jsonl):
    """Its state is one dictionary, which changes while the source goes on."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._live: dict[str, Any] = super().state()

    def __next__(self) -> Record:
        """The next record; the state goes with it."""
        record = super().__next__()
        self._live.update(super().state())
        return record

    def state(self) -> dict[str, Any]:
        """The dictionary itself."""
        return self._live

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where the dictionary says."""
        super().restore(state)
        self._live = super().state()


class Behind(Jsonl):
    """Gives the last record again when it is restored."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """One record early."""
        super().restore(state)
        self._place = max(0, self._place - 1)


class Ahead(Jsonl):
    """Asking for its state loses a record."""

    def state(self) -> dict[str, Any]:
        """The state behind the next record."""
        state = super().state()
        self._place = min(self._place + 1, len(self.rows))
        return state


class Restarting(Jsonl):
    """Begins again after its end."""

    def __next__(self) -> Record:
        """The next record; the first after the end."""
        try:
            return super().__next__()
        except StopIteration:
            self._epoch = self._place = 0
            raise


class Trusting(Jsonl):
    """Takes whatever is given as a state."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to the place, or to the start."""
        self._place = state.get("place") or 0


class Hasty(Jsonl):
    """Moves before it looks whether a state is its own."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Moves, then refuses."""
        self._place = 0
        super().restore(state)


class Vague(Jsonl):
    """Does not say where a broken line is."""

    def __next__(self) -> Record:
        """The next record."""
        try:
            return super().__next__()
        except DataError as error:
            raise DataError("a line is no valid JSON") from error


class Silent(Jsonl):
    """Passes over broken lines."""

    def __next__(self) -> Record:
        """The next record that can be read."""
        while True:
            try:
                return super().__next__()
            except DataError:
                continue


class Stuck(Jsonl):
    """Stays at a broken line."""

    def __next__(self) -> Record:
        """The next record, or the same error again."""
        place = self._place
        try:
            return super().__next__()
        except DataError:
            self._place = place
            raise


class Dying(Jsonl):
    """Ends with its first broken line, as a generator does."""

    def __next__(self) -> Record:
        """The next record."""
        try:
            return super().__next__()
        except DataError:
            self._place = len(self.rows)
            raise


class Bare(Jsonl):
    """Lets Python's own errors through."""

    def __init__(self, **settings: Any) -> None:
        Path(settings["files"][0]).read_bytes()
        super().__init__(**settings)


def _no_origin(record: Record) -> Record:
    return dataclasses.replace(record, origin="")


def _nothing(record: Record) -> Record:
    return dataclasses.replace(record, pieces=(Piece(Text("")),))


def _both(record: Record) -> Record:
    return dataclasses.replace(record, messages=(Message("assistant", "yes"),))


def _no_targets(record: Record) -> Record:
    return dataclasses.replace(record, pieces=(dataclasses.replace(record.pieces[0], weight=0.0),))


class _Changed:
    """Builds :class:`Broken` with one change."""

    def __init__(self, change: Callable[[Record], Record]) -> None:
        self._change = change

    sample_settings = staticmethod(Jsonl.sample_settings)
    damage = staticmethod(Jsonl.damage)

    def __call__(self, **settings: Any) -> Broken:
        return Broken(self._change, **settings)


def _mutant(check: str, bug: str, build: Callable[..., Any]) -> Mutant:
    return Mutant(bug, check, Subject("data_sources", "jsonl", build))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("records-are-well-formed", "from nowhere", _Changed(_no_origin)),
    _mutant("records-are-well-formed", "empty texts", _Changed(_nothing)),
    _mutant("records-are-well-formed", "pieces and messages", _Changed(_both)),
    _mutant("records-are-well-formed", "nothing to learn", _Changed(_no_targets)),
    _mutant("deterministic", "random numbers of the process", Global),
    _mutant("deterministic", "seeds the process", Seeded),
    _mutant("deterministic", "one place for all sources", Together),
    _mutant("resumes-exactly", "a buffer outside of the state", Buffered),
    _mutant("resumes-exactly", "forgets the epoch", Forgetful),
    _mutant("resumes-exactly", "a state that goes on", Live),
    _mutant("resumes-exactly", "one record behind", Behind),
    _mutant("looking-changes-nothing", "a state that costs a record", Ahead),
    _mutant("ends-for-good", "begins again", Restarting),
    _mutant("refuses-foreign-states", "takes any state", Trusting),
    _mutant("refuses-foreign-states", "moves before it looks", Hasty),
    _mutant("names-what-is-damaged", "does not say where", Vague),
    _mutant("names-what-is-damaged", "passes over it", Silent),
    _mutant("names-what-is-damaged", "stays there", Stuck),
    _mutant("names-what-is-damaged", "ends there", Dying),
    _mutant("missing-data-is-one-line", "an error of Python's own", Bare),
)
