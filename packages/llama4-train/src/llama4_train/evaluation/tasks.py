"""Evaluations by name. A task is a frozen dataclass of settings that measures a model.

Imports no torch; what a task needs is imported when it runs.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llama4_core.errors import SpecError
from llama4_core.plugins.catalogue import Catalogue
from llama4_core.specs.suggest import nearest
from llama4_core.specs.tables import build
from llama4_train.errors import RecipeError
from llama4_train.evaluation.results import Figure
from llama4_train.recipe import Slot

TASKS: dict[str, tuple[str, str]] = {
    "perplexity": (
        "llama4_train.evaluation.perplexity:Perplexity",
        "perplexity and bits per byte of data sources",
    ),
    "world": (
        "llama4_train.evaluation.world:WorldTask",
        "greedy answers to the questions of a synthetic world, by kind, beside chance",
    ),
    "passkey": (
        "llama4_train.evaluation.passkey:PasskeyTask",
        "a key in a long text, at several lengths and attention temperatures",
    ),
    "lm-eval": (
        "llama4_train.evaluation.harness:HarnessTask",
        "tasks of EleutherAI's evaluation harness, where it is installed",
    ),
}
"""Name -> target, and one line for listings."""

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}\Z")
"""A label is also the name of a file."""


@dataclass(frozen=True)
class Context:
    """What a task may use beside the model and its settings.

    Attributes:
        known: the catalogue.
        length: longest document in training, or None where nobody knows.
        progress: called with how many of how many questions, or tokens, are done.
    """

    known: Catalogue
    length: int | None = None
    progress: Callable[[int, int], None] = lambda done, total: None


class Task(Protocol):
    """Something that can be measured; a frozen dataclass of its settings."""

    @property
    def label(self) -> str:
        """Its name in reports as the settings give it; empty for :attr:`called`."""

    @property
    def called(self) -> str:
        """Its name in reports unless the settings say another."""

    def measure(self, model: Any, context: Context) -> tuple[Figure, ...]:
        """Measures a model that is in evaluation mode.

        Raises:
            EvaluationError: the model cannot do what is asked.
        """


@dataclass(frozen=True)
class Named:
    """A task with its name and its label."""

    name: str
    label: str
    task: Any

    @property
    def settings(self) -> dict[str, Any]:
        """JSON values; only what differs from the defaults."""
        found = {}
        for field in dataclasses.fields(self.task):
            value = getattr(self.task, field.name)
            if value != field.default and field.name != "label":
                found[field.name] = _plain(value)
        return found


def tasks_of(slots: Iterable[Slot]) -> tuple[Named, ...]:
    """The tasks of a recipe or a command line, checked.

    Raises:
        RecipeError: an unknown task or setting (the nearest is suggested), a wrong value, or two
            tasks of one label.
    """
    found: list[Named] = []
    for slot in slots:
        target = task_class(slot.name)
        try:
            task = build(target, dict(slot.settings), f"evaluation {slot.name}")
        except SpecError as error:
            raise RecipeError(str(error)) from error
        label = task.label or task.called
        if not LABEL.match(label):
            raise RecipeError(
                f"evaluation {slot.name} is called {label!r:.120}; expected a label of letters, "
                "digits, '.', '_', '@' and '-'"
            )
        if any(one.label == label for one in found):
            raise RecipeError(
                f"two evaluations are called {label!r}; give one of them another label"
            )
        found.append(Named(slot.name, label, task))
    return tuple(found)


def task_class(name: str) -> Any:
    """The class of a task.

    Raises:
        RecipeError: there is none of this name; the nearest is suggested.
    """
    if name not in TASKS:
        raise RecipeError(
            f"the evaluation is {name!r:.80}{nearest(name, TASKS)}; expected one of "
            f"{', '.join(TASKS)}"
        )
    module, _, attribute = TASKS[name][0].partition(":")
    return getattr(importlib.import_module(module), attribute)


def listing() -> list[dict[str, Any]]:
    """Every task with its settings and their defaults."""
    found = []
    for name, (_, summary) in TASKS.items():
        settings = {}
        for field in dataclasses.fields(task_class(name)):
            if field.default is not dataclasses.MISSING:
                settings[field.name] = _plain(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                settings[field.name] = _plain(field.default_factory())
            else:
                settings[field.name] = None
        found.append({"task": name, "summary": summary, "settings": settings})
    return found


def parse_task(text: str) -> Slot:
    """A task as a command line spells it: ``NAME``, or ``NAME:key=value,key.inner=value``.

    Values are TOML where they can be, else strings; commas in brackets, braces and quotes belong to
    the value.

    Raises:
        RecipeError: a part has no "=".
    """
    from llama4_train.recipe import parse_change

    name, _, rest = text.partition(":")
    settings: dict[str, Any] = {}
    for part in _parts(rest):
        path, value = parse_change(part)
        *way, last = path.strip().split(".")
        place = settings
        for segment in way:
            inner = place.setdefault(segment, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{path} leads into the value of {segment}; expected a table")
            place = inner
        place[last] = value
    return Slot(name.strip(), settings)


def _parts(text: str) -> Sequence[str]:
    """Split at commas that stand in no bracket, brace or quote."""
    found, part, depth, quote = [], "", 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        elif sign == "," and depth == 0:
            found.append(part)
            part = ""
            continue
        part += sign
    return [one for one in (*found, part) if one.strip()]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value
