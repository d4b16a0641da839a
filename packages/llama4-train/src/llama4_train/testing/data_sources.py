"""Checks of the socket data_sources, for ``llama4 check data_source:NAME``.

A source that reads files has a static method ``sample_settings(folder)``, which writes a small one
and returns the settings that read it; the kit builds other sources without settings.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from llama4_core.chat.messages import Image, Text, Video
from llama4_core.plugins.component import Component
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import holds
from llama4_core.tokenizers.meta import MetaTokenizer, tokenizers_encoder
from llama4_core.tokenizers.sample import sample_ranks
from llama4_train.data.encode import Encoder
from llama4_train.errors import DataError, NoMoreDataError
from llama4_train.protocols import Example, Record

MOST = 60
"""Records that are looked at of a source: samples are smaller, and some sources never end."""


@dataclass(frozen=True)
class Case:
    """Where a source is stopped.

    Attributes:
        cuts: records between two stops.
        ahead: records that another source has given when it is restored.
    """

    cuts: tuple[int, ...]
    ahead: int = 0


_CASES = st.builds(Case, st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple))
_AHEAD = st.builds(
    Case, st.lists(st.integers(0, 9), min_size=1, max_size=3).map(tuple), st.integers(0, 9)
)
_ONCE = st.just(Case(()))


class Sample:
    """A small source in files of its own.

    Args:
        subject: the component.
        folder: for the files.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.folder = subject, folder
        self.target = _target(subject)
        write: Callable[[Path], Mapping[str, Any]] | None
        write = getattr(self.target, "sample_settings", None)
        self.settings = {} if write is None else dict(write(folder))
        self.files = any(folder.iterdir())

    def build(self) -> Any:
        """A fresh source."""
        source = self.subject.build(**self.settings)
        if hasattr(source, "prepare"):
            source.prepare(_encoder())
        return source


def _target(subject: Subject) -> Any:
    """What the component names, which may have more to it than a call."""
    component = getattr(subject.build, "__self__", None)
    return component.load() if isinstance(component, Component) else subject.build


def _encoder(length: int | None = 64) -> Encoder:
    return Encoder(_tokenizer(), length=length)


@functools.cache
def _tokenizer() -> MetaTokenizer:
    return MetaTokenizer(sample_ranks(), tokenizers_encoder)


@contextlib.contextmanager
def _sample(subject: Subject) -> Iterator[Sample]:
    with tempfile.TemporaryDirectory() as folder:
        yield Sample(subject, Path(folder))


def _some(source: Any, count: int = MOST) -> list[Any]:
    """At most ``count`` records."""
    found = []
    for _ in range(count):
        try:
            found.append(next(source))
        except StopIteration:
            break
    return found


def _agree(got: list[Any], expected: list[Any], what: str) -> None:
    for place, (mine, other) in enumerate(zip(got, expected, strict=False)):
        holds(
            _plain(mine) == _plain(other),
            f"{what}: record {place} is {mine!r:.300}, not {other!r:.300}",
        )
    holds(len(got) == len(expected), f"{what}: {len(got)} records, not {len(expected)}")


def _plain(value: Any) -> Any:
    """A record as values that compare by what they hold: pictures by their pixels."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if hasattr(value, "tobytes") and hasattr(value, "size"):
        return value.size, value.tobytes()
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if dataclasses.is_dataclass(value):
        fields = [_plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
        return [type(value).__name__, *fields]
    return value


@check(
    why="the next part of the pipeline takes records as they are; a wrong one stops the run",
    cases=lambda subject: _ONCE,
)
def records_are_well_formed(subject: Subject, case: Case) -> None:
    """Each record is pieces or a conversation, with finite weights and a place where it is from."""
    with _sample(subject) as sample:
        records = _some(sample.build())
    holds(bool(records), "there is no record")
    for record in records:
        if isinstance(record, Example):
            holds(hasattr(_target(subject), "prepare"), "an example without prepare(encoder)")
            holds(len(record.tokens) == len(record.weights) > 0, "not one weight for each token")
            continue
        holds(isinstance(record, Record), f"a {type(record).__name__}, not a Record")
        holds(bool(record.pieces) != bool(record.messages), "not one of pieces and messages")
        holds(bool(record.origin), "a record does not say where it comes from")
        for piece in record.pieces:
            holds(isinstance(piece.part, Text | Image | Video), f"a piece of {piece.part!r:.80}")
            holds(0 <= piece.weight < math.inf, f"a weight of {piece.weight}")
            holds(not isinstance(piece.part, Text) or bool(piece.part.text), "an empty text")
        if not _pictures(record):
            # Refuses what has no target.
            _encoder(None)(record)


def _pictures(record: Record) -> bool:
    return any(not isinstance(piece.part, Text) for piece in record.pieces) or any(
        message.inputs for message in record.messages
    )


@check(
    why="equal recipes must give equal weights, on any day and beside any other source",
    cases=lambda subject: _CASES,
)
def deterministic(subject: Subject, case: Case) -> None:
    """Equal settings give equal records, whatever else draws random numbers or is read."""
    with _sample(subject) as sample:
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - the state that a careless source would use
        torch.manual_seed(1)
        before = _random()
        first, second = sample.build(), sample.build()
        got: tuple[list[Any], list[Any]] = ([], [])
        for cut in (*case.cuts, MOST):
            for source, records in zip((first, second), got, strict=True):
                records += _some(source, cut)
        holds(_random() == before, "the source draws from the random numbers of the process")
        random.seed(2)
        np.random.seed(2)  # noqa: NPY002
        torch.manual_seed(2)
        _agree(got[0], got[1], "the second source")
        third = sample.build()
        count = len(got[0])
        _agree(_some(third, count), got[0], "a source of another day")


def _random() -> Any:
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        torch.get_rng_state().tolist(),
    )


@check(
    why="a run that was killed must go on with the very record that it would have seen",
    cases=lambda subject: _AHEAD,
    properties=(57,),
)
def resumes_exactly(subject: Subject, case: Case) -> None:
    """A fresh source, restored from the state as JSON, goes on where the state was taken."""
    with _sample(subject) as sample:
        source = sample.build()
        for cut in case.cuts:
            _some(source, cut)
            state = source.state()
            text = json.dumps(state)
            rest = _some(source)
            holds(json.dumps(state) == text, "a state changed while the source went on")
            fresh = sample.build()
            _some(fresh, case.ahead)
            fresh.restore(json.loads(text))
            holds(json.dumps(fresh.state()) == text, "the state after restoring is another one")
            _agree(_some(fresh), rest, f"after {cut} more records and restoring")
            source = sample.build()
            source.restore(json.loads(text))


@check(
    why="states are taken at every checkpoint; taking one must not move the source",
    cases=lambda subject: _CASES,
)
def looking_changes_nothing(subject: Subject, case: Case) -> None:
    """Asking for the state, at any time, leaves the records as they are."""
    with _sample(subject) as sample:
        plain = _some(sample.build())
        source = sample.build()
        looked = []
        for cut in (*case.cuts, MOST - sum(case.cuts)):
            source.state()
            looked += _some(source, cut)
        _agree(looked, plain[: len(looked)], "with states taken in between")


@check(
    why="an evaluation over a source must see its end, and only once",
    cases=lambda subject: _ONCE,
)
def ends_for_good(subject: Subject, case: Case) -> None:
    """After its end a source gives nothing more, and neither does one restored from there."""
    with _sample(subject) as sample:
        source = sample.build()
        if len(_some(source)) == MOST:
            raise Refused(f"gives more than {MOST} records")
        holds(not _some(source, 1), "the source goes on after its end")
        fresh = sample.build()
        fresh.restore(json.loads(json.dumps(source.state())))
        holds(not _some(fresh, 1), "a source restored at the end goes on")


@check(
    why="a run resumed with other data must stop, not go on somewhere else",
    cases=lambda subject: st.builds(Case, st.tuples(st.integers(0, 9))),
)
def refuses_foreign_states(subject: Subject, case: Case) -> None:
    """A state that is no state of this source is a DataError, and changes nothing."""
    with _sample(subject) as sample:
        source, other = sample.build(), sample.build()
        _some(source, case.cuts[0])
        _some(other, case.cuts[0])
        state = source.state()
        wrong: list[Any] = [{}, {"something": 1}]
        wrong += [{**state, name: None} for name in state]
        wrong += [{k: v for k, v in state.items() if k != name} for name in state]
        for one in wrong:
            try:
                source.restore(one)
            except DataError:
                continue
            raise AssertionError(f"{one!r:.200} was taken for a state")
        _agree(_some(source), _some(other), "after refusing a state")


@check(
    why="of a million lines one is broken: the message must say which, and the rest is still good",
    cases=lambda subject: _ONCE,
)
def names_what_is_damaged(subject: Subject, case: Case) -> None:
    """A damaged record is a DataError that names its place; the next call goes on behind it."""
    with _sample(subject) as sample:
        damage = getattr(sample.target, "damage", None)
        if damage is None:
            raise Refused("has no damage(folder)")
        whole = _some(sample.build())
        place = damage(sample.folder)
        source = sample.build()
        found: list[Any] = []
        errors: list[DataError] = []
        for _ in range(MOST):
            try:
                found.append(next(source))
            except StopIteration:
                break
            except NoMoreDataError:
                raise
            except DataError as error:
                errors.append(error)
    holds(len(errors) == 1, f"{len(errors)} errors for one damaged record")
    message = str(errors[0])
    holds(place in message, f"the error {message!r:.200} does not say {place!r}")
    holds("\n" not in message, "the error has more than one line")
    kept = [_plain(record) for record in found]
    lost = [record for record in whole if _plain(record) not in kept]
    holds(len(lost) == 1 and len(found) == len(whole) - 1, f"{len(lost)} records are gone")


@check(
    why="a wrong path is the most common mistake; the answer is one line, no traceback",
    cases=lambda subject: _ONCE,
)
def missing_data_is_one_line(subject: Subject, case: Case) -> None:
    """Without its files a source is a DataError of one line, at the latest at its first record."""
    with _sample(subject) as sample:
        if not sample.files:
            raise Refused("reads no files")
        shutil.rmtree(sample.folder)
        sample.folder.mkdir()
        try:
            next(sample.build())
        except DataError as error:
            holds("\n" not in str(error), "the error has more than one line")
        else:
            raise AssertionError("a record came from files that are gone")


CHECKS: tuple[Check, ...] = (
    records_are_well_formed,
    deterministic,
    resumes_exactly,
    looking_changes_nothing,
    ends_for_good,
    refuses_foreign_states,
    names_what_is_damaged,
    missing_data_is_one_line,
)
