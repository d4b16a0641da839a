"""Bugs of trackers, planted into JSON lines."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_train.recipe import Recipe
from llama4_train.trackers.jsonl import JsonLines
from llama4_train.trackers.values import Value


class Strict(JsonLines):
    """Takes no number that is not finite."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Raises at NaN."""
        json.dumps(dict(values), allow_nan=False)
        super().log(step, values)


class Scalars(JsonLines):
    """Takes no lists."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Raises at a list."""
        super().log(step, {name: float(value) for name, value in values.items()})  # type: ignore[arg-type]


class Eating(JsonLines):
    """Takes values away from the others."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Pops one."""
        super().log(step, values)
        values.pop("loss")  # type: ignore[attr-defined]


class Changing(JsonLines):
    """Changes something with every step."""

    change: Callable[[Path], Any]

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Logs, and changes it."""
        super().log(step, values)
        type(self).change(self.path)


def _changing(change: Callable[[Path], Any]) -> type[Changing]:
    return type("Changing", (Changing,), {"change": staticmethod(change)})


class Exclusive(JsonLines):
    """Takes no folder that is used."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        super().__init__(folder, recipe)
        folder.mkdir(parents=True)


class Rising(JsonLines):
    """Takes no step again, not even in another run."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        super().__init__(folder, recipe)
        if self.path.exists():
            self._last = len(self.path.read_bytes().splitlines()) - 1

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Raises at a step that the file has."""
        if step <= self._last:
            raise ValueError(f"step {step} again")
        super().log(step, values)


class Once(JsonLines):
    """Can be finished once."""

    done = False

    def finish(self) -> None:
        """Raises the second time."""
        if self.done:
            raise ValueError("finished twice")
        self.done = True
        super().finish()


class Started(JsonLines):
    """Cannot be finished before it has begun."""

    def finish(self) -> None:
        """Closes a file that may not be there."""
        if self._last < 0:
            raise ValueError("there is no file")
        super().finish()


class Appending(JsonLines):
    """Never looks at what the file holds."""

    def _open(self, step: int) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.open("ab")


class Afresh(JsonLines):
    """Begins the file anew."""

    def _open(self, step: int) -> Any:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.open("wb")


class Buffered(JsonLines):
    """Keeps lines in memory."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Writes without flushing."""
        if self._file is None:
            self._file = self._open(step)
        lines = JsonLines(self.path.parent, _no_recipe(), file="one.jsonl")
        lines.log(step, values)
        lines.finish()
        self._file.write(lines.path.read_bytes().splitlines(keepends=True)[-1])


class Rounded(JsonLines):
    """Four digits are enough."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Rounds."""
        short = {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in values.items()
        }
        super().log(step, short)


class Null(JsonLines):
    """NaN is nothing."""

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Leaves NaN out."""
        super().log(step, {name: value for name, value in values.items() if value == value})


def _no_recipe() -> Any:
    return None


def _set_variable(path: Path) -> None:
    os.environ["LLAMA4_KIT"] = os.environ.get("LLAMA4_KIT", "") + "x"


def _mutant(check: str, bug: str, build: Callable[..., Any]) -> Mutant:
    # Under the name that the published law holds for.
    return Mutant(bug, check, Subject("trackers", "jsonl", build, distribution="llama4-train"))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("takes-any-numbers", "no NaN", Strict),
    _mutant("takes-any-numbers", "no lists", Scalars),
    _mutant("takes-any-numbers", "takes values away", Eating),
    _mutant("changes-nothing", "draws from torch", _changing(lambda path: torch.rand(1))),
    _mutant("changes-nothing", "draws from Python", _changing(lambda path: random.random())),
    _mutant("changes-nothing", "sets a variable", _changing(_set_variable)),
    _mutant("changes-nothing", "writes beside", _changing(lambda p: (p.parents[1] / "x").touch())),
    _mutant("changes-nothing", "writes here", _changing(lambda path: Path("x").touch())),
    _mutant("goes-on-after-a-kill", "wants a new folder", Exclusive),
    _mutant("goes-on-after-a-kill", "no step again", Rising),
    _mutant("finishes", "once", Once),
    _mutant("finishes", "not before it began", Started),
    _mutant("published-lines", "appends", Appending),
    _mutant("published-lines", "begins anew", Afresh),
    _mutant("published-lines", "not flushed", Buffered),
    _mutant("published-lines", "four digits", Rounded),
    _mutant("published-lines", "NaN left out", Null),
)
