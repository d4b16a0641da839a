"""What an ablation compares: a recipe, arms that change it, seeds. Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.suggest import nearest
from llama4_core.specs.tables import build
from llama4_train.errors import RecipeError
from llama4_train.recipe import Recipe

BETTER = ("lower", "higher")

EVALUATION = "evaluation."
"""What the name of a metric begins with that an evaluation measures after the last step."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")


@dataclass(frozen=True)
class Plan:
    """An ablation.

    Attributes:
        name: for people.
        arms: name -> recipe, before the seed is put in.
        seeds: at least two; every arm runs with each.
        changes: name of an arm -> what it changes in the common recipe.
        control: name of the arm that the others are compared with.
        metric: what is compared: "nll" or another part of the loss, "loss" for the whole of it,
            each a mean over the last steps; or "evaluation.LABEL.NAME.METRIC" after the last step.
        better: "lower" or "higher".
        also: further metrics, each with "lower" or "higher"; compared as the first is, and shown
            beside it. Arms that have no such number are left out; the control must have it.
        tail: share of the last steps.
        seeded: paths in the recipe that get the seed too, such as
            "data.sources.0.settings.seed"; ``seed`` itself always does.
        paired: whether all arms see the same batches, which is then asked for.
        confidence: of the intervals.
        length: of documents, for counting FLOPs; 0 for the recipe's.
        description: for people.
    """

    name: str
    arms: Mapping[str, Recipe]
    seeds: tuple[int, ...]
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    control: str = ""
    metric: str = "nll"
    better: str = "lower"
    also: Mapping[str, str] = field(default_factory=dict)
    tail: float = 0.1
    seeded: tuple[str, ...] = ()
    paired: bool = True
    confidence: float = 0.95
    length: int = 0
    description: str = ""

    def __post_init__(self) -> None:
        if len(self.arms) < 2:
            raise RecipeError(f"arms are {', '.join(self.arms) or 'none'}; expected at least two")
        for name in self.arms:
            if not _NAME.match(name):
                raise RecipeError(
                    f"an arm is called {name!r:.80}; expected letters, digits, '_' and '-'"
                )
        if len(set(self.seeds)) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise RecipeError(
                f"seeds are {list(self.seeds)}; expected at least two, each once: one run says "
                "nothing about chance"
            )
        if not self.control:
            object.__setattr__(self, "control", next(iter(self.arms)))
        if self.control not in self.arms:
            raise RecipeError(
                f"control is {self.control!r}{nearest(self.control, self.arms)}; expected one of "
                f"{', '.join(self.arms)}"
            )
        if self.metric in self.also:
            raise RecipeError(
                f"{self.metric!r} is the metric and stands in also; expected other ones there"
            )
        for metric, better in {self.metric: self.better, **self.also}.items():
            if better not in BETTER:
                raise RecipeError(f"better of {metric} is {better!r}; expected 'lower' or 'higher'")
        for name in ("tail", "confidence"):
            if not 0 < getattr(self, name) <= 1 or (name == "confidence" and self.confidence == 1):
                raise RecipeError(
                    f"{name} is {getattr(self, name)}; expected a share between 0 and 1"
                )
        if self.length < 0:
            raise RecipeError(f"length is {self.length}; expected 0 or a number of tokens")
        self._check_arms()

    def _check_arms(self) -> None:
        """All arms train for as long, and on the same batches."""
        control = self.arms[self.control]
        for name, recipe in self.arms.items():
            if recipe.steps != control.steps:
                raise RecipeError(
                    f"arm {name!r} takes {recipe.steps} steps and {self.control!r} "
                    f"{control.steps}; expected as many: arms are compared at equal compute"
                )
            for what in ("tokens", "accumulate"):
                if getattr(recipe.data, what) != getattr(control.data, what):
                    raise RecipeError(
                        f"arm {name!r} has another data.{what} than {self.control!r}; expected the "
                        "same: arms are compared at equal compute"
                    )
            same = recipe.data == control.data
            same = same and recipe.model.tokenizer == control.model.tokenizer
            if self.paired and not same:
                raise RecipeError(
                    f"arm {name!r} has other data or another tokenizer than {self.control!r}, so "
                    "that its batches cannot be the same; set paired = false if that is what is "
                    "compared"
                )
            for metric in (self.metric, *self.also):
                if metric.startswith(EVALUATION) and not recipe.evaluation.tasks:
                    raise RecipeError(
                        f"metric is {metric!r}, but arm {name!r} evaluates nothing; add "
                        "evaluation.tasks to the recipe"
                    )

    def recipe(self, arm: str, seed: int) -> Recipe:
        """The recipe of one run."""
        changes = dict.fromkeys(("seed", *self.seeded), seed)
        return self.arms[arm].override(changes | {"name": f"{self.name}-{arm}-{seed}"})

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """A plan from a TOML file.

        ``recipe`` is the path of the common recipe, relative to the file; ``[arms.NAME]`` holds
        what an arm changes, as tables of the same form. All else is as the attributes are called.

        Raises:
            RecipeError: the file cannot be read, a key is unknown, or the arms cannot be compared.
        """
        file = Path(path)
        values = toml_of(file)
        try:
            form: _File = build(_File, values, str(file))
        except SpecError as error:
            raise RecipeError(str(error)) from error
        common = toml_of(file.parent / form.recipe)
        arms: dict[str, Recipe] = {}
        for name, changes in form.arms.items():
            if not isinstance(changes, Mapping):
                raise RecipeError(f"{file}, arms, {name} is {changes!r:.80}; expected a table")
            arms[name] = Recipe.of(merged(common, changes), f"{file}, arms, {name}")
        given = {
            name: getattr(form, name)
            for name in (
                "seeds", "control", "metric", "better", "also", "tail", "seeded", "paired",
                "confidence", "length", "description",
            )
        }  # fmt: skip
        try:
            return cls(form.name or file.stem, arms, changes=dict(form.arms), **given)
        except RecipeError as error:
            raise RecipeError(f"{file}: {error}") from error


@dataclass(frozen=True)
class _File:
    """The keys of a file."""

    recipe: str
    arms: Mapping[str, Any]
    seeds: tuple[int, ...]
    name: str = ""
    control: str = ""
    metric: str = "nll"
    better: str = "lower"
    also: Mapping[str, str] = field(default_factory=dict)
    tail: float = 0.1
    seeded: tuple[str, ...] = ()
    paired: bool = True
    confidence: float = 0.95
    length: int = 0
    description: str = ""


def toml_of(file: Path) -> dict[str, Any]:
    """The table in a file.

    Raises:
        RecipeError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read as text: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: this is no TOML: {error}") from error


def merged(common: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``common`` with ``changes`` put over it; tables are merged, all else is replaced."""
    found = dict(common)
    for key, value in changes.items():
        before = found.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        found[key] = merged(before, value) if both and before is not None else value
    return found
