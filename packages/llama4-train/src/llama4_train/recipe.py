"""A recipe: everything that decides what a training run does, as one tree of frozen values.

A recipe is a TOML file or is written in Python; equal recipes with equal data give equal weights.
Imports no torch.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.plugins.overrides import Named
from llama4_core.specs.suggest import nearest
from llama4_core.specs.tables import build, key_text, table, value_text
from llama4_train.errors import RecipeError

SHAPES = ("constant", "cosine", "wsd")
"""Schedules of the learning rate."""

CHECKPOINTING = ("none", "full", "selective")
"""Kinds of activation checkpointing."""


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise RecipeError(
            f"{name} is {value!r}{nearest(value, known)}; expected one of {', '.join(known)}"
        )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise RecipeError(f"{name} is {value}; expected at least {least}")


@dataclass(frozen=True)
class Slot:
    """A component by name, with its settings.

    Attributes:
        name: of the component in its socket.
        settings: keyword arguments that it is built with.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LoraPart:
    """Low-rank adapters, which alone are trained then; see :func:`llama4_train.lora.apply_lora`.

    Attributes:
        rank: of each adapter, for each expert.
        alpha: the change of a weight is ``(alpha / rank) B A``; None for ``2 rank``.
        targets: globs of the modules and parameters that get one.
        dropout: probability with which an input of A is dropped.
    """

    rank: int
    alpha: float | None = None
    targets: tuple[str, ...] = ("layers.*.attention",)
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _at_least("rank", self.rank, 1)
        if self.alpha is not None and not self.alpha > 0:
            raise RecipeError(f"alpha is {self.alpha}; expected a number above 0")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"dropout is {self.dropout}; expected a probability below 1")
        if not self.targets:
            raise RecipeError("targets is empty; expected globs such as 'layers.*.attention'")


@dataclass(frozen=True)
class ModelPart:
    """What is trained.

    Attributes:
        start: a model's name, a ``spec.toml`` or a folder with a description; with ``weights`` a
            folder or a repository to go on from.
        weights: "random" to draw them, or "stored" to load those of ``start``.
        dtype: of the weights: "float32", or "bfloat16" with float32 masters in the optimizer.
        overrides: slot path globs -> component names, or tables ``{ name, settings }``.
        tokenizer: folder with a tokenizer; None for that of ``start``.
        train: globs of the parameters that are trained; empty for all.
        checkpointing: activation checkpointing: "none", "full" (every block), or "selective"
            (every second block).
        lora: adapters, in the place of ``train``.
    """

    start: str
    weights: str = "random"
    dtype: str = "float32"
    overrides: Mapping[str, str | Named] = field(default_factory=dict)
    tokenizer: str | None = None
    train: tuple[str, ...] = ()
    checkpointing: str = "none"
    lora: LoraPart | None = None

    def __post_init__(self) -> None:
        _one_of("weights", self.weights, ("random", "stored"))
        _one_of("dtype", self.dtype, ("float32", "bfloat16", "float16", "float64"))
        _one_of("checkpointing", self.checkpointing, CHECKPOINTING)
        if self.lora is not None and self.train:
            raise RecipeError(
                f"train is {list(self.train)} and there is lora; expected one of them: adapters "
                "alone are trained where there are any"
            )


@dataclass(frozen=True)
class SourcePart:
    """One data source of a mixture.

    Attributes:
        name: component of the socket data_sources.
        weight: share of the examples that are drawn from it.
        label: for logs; the component's name if empty.
        settings: keyword arguments of the component.
    """

    name: str
    weight: float = 1.0
    label: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise RecipeError(f"weight of {self.name} is {self.weight}; expected a number above 0")


@dataclass(frozen=True)
class DataPart:
    """What the model sees.

    Attributes:
        length: longest document in tokens; longer ones are cut.
        tokens: tokens per batch: documents are packed back to back up to this number.
        accumulate: batches per step.
        sources: the mixture.
        on_error: "stop" at a record that cannot be used, or "skip" it with a warning.
    """

    length: int
    tokens: int
    sources: tuple[SourcePart, ...]
    accumulate: int = 1
    on_error: str = "stop"

    def __post_init__(self) -> None:
        for name in ("length", "tokens", "accumulate"):
            _at_least(name, getattr(self, name), 1)
        _one_of("on_error", self.on_error, ("stop", "skip"))
        if not self.sources:
            raise RecipeError("sources is empty; expected at least one data source")
        if self.length > self.tokens:
            raise RecipeError(
                f"length is {self.length}, more than the {self.tokens} tokens of a batch; raise "
                "tokens, or shorten the documents"
            )


@dataclass(frozen=True)
class SchedulePart:
    """What changes over the steps: the learning rate, as a factor of its largest value.

    Attributes:
        shape: "constant", "cosine", or "wsd" (warm-up, stable, decay).
        warmup: steps of linear growth from 0.
        decay: of "wsd": the last steps, with linear decay to ``floor``.
        floor: smallest factor at the end.
        release: the last steps, in which the balancing biases of routers no longer follow the load
            but fall linearly to exactly 0; 0 to balance to the end.
    """

    shape: str = "cosine"
    warmup: int = 0
    decay: int = 0
    floor: float = 0.0
    release: int = 0

    def __post_init__(self) -> None:
        _one_of("shape", self.shape, SHAPES)
        _at_least("warmup", self.warmup, 0)
        _at_least("decay", self.decay, 0)
        _at_least("release", self.release, 0)
        if not 0 <= self.floor <= 1:
            raise RecipeError(f"floor is {self.floor}; expected a share from 0 to 1")
        if self.decay and self.shape != "wsd":
            raise RecipeError(
                f"decay is {self.decay}, but shape {self.shape} has no such steps; leave it out, "
                "or choose shape wsd"
            )
        if not self.decay and self.shape == "wsd":
            raise RecipeError("decay is 0; expected the number of steps in which wsd falls")
        if self.floor and self.shape == "constant":
            raise RecipeError(
                f"floor is {self.floor}, but shape constant never falls; leave it out, or choose "
                "shape cosine or wsd"
            )


@dataclass(frozen=True)
class CheckpointPart:
    """When the run is saved.

    Attributes:
        every: steps between two checkpoints; 0 for only the last.
        keep: how many of the latest stay.
    """

    every: int = 0
    keep: int = 2

    def __post_init__(self) -> None:
        _at_least("every", self.every, 0)
        _at_least("keep", self.keep, 1)


@dataclass(frozen=True)
class EvaluationPart:
    """What is measured while training.

    Attributes:
        every: steps between two evaluations; 0 for only the last.
        tasks: names and settings of evaluations, see ``llama4 evaluate --list``.
    """

    every: int = 0
    tasks: tuple[Slot, ...] = ()

    def __post_init__(self) -> None:
        _at_least("every", self.every, 0)


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        name: for people.
        steps: number of optimizer steps.
        model, data: what is trained on what.
        seed: of weights, data and everything else that is drawn.
        objective, optimizer: components; the optimizer's settings hold ``lr``.
        schedule: of the learning rate and of balancing.
        clip: largest norm of all gradients together; 0 for no clipping.
        checkpoints, evaluation: when.
        trackers: components beside the JSON lines that are always written.
        description: what the recipe is for.
    """

    name: str
    steps: int
    model: ModelPart
    data: DataPart
    seed: int = 0
    objective: Slot = Slot("next-token")
    optimizer: Slot = Slot("adamw", {"lr": 1e-3})
    schedule: SchedulePart = SchedulePart()
    clip: float = 1.0
    checkpoints: CheckpointPart = CheckpointPart()
    evaluation: EvaluationPart = EvaluationPart()
    trackers: tuple[Slot, ...] = ()
    description: str = ""

    def __post_init__(self) -> None:
        _at_least("steps", self.steps, 1)
        if not self.clip >= 0:
            raise RecipeError(f"clip is {self.clip}; expected a number above 0, or 0 for none")
        if self.schedule.warmup + self.schedule.decay > self.steps:
            raise RecipeError(
                f"schedule has {self.schedule.warmup} steps of warm-up and {self.schedule.decay} "
                f"of decay, more than the {self.steps} steps of the run; shorten them"
            )
        if self.schedule.release > self.steps:
            raise RecipeError(
                f"schedule.release is {self.schedule.release}, more than the {self.steps} steps of "
                "the run; shorten it"
            )

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str = "recipe") -> Recipe:
        """A recipe from nested dictionaries, as TOML gives them.

        Raises:
            RecipeError: a key is unknown (the nearest is suggested), missing or has a wrong value.
        """
        try:
            built: Recipe = build(cls, dict(values), where)
        except SpecError as error:
            raise RecipeError(str(error)) from error
        return built

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """A recipe from a TOML file.

        Raises:
            RecipeError: the file cannot be read, or as :meth:`of`.
        """
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: cannot be read as text: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise RecipeError(f"{path}: this is no TOML: {error}") from error
        return cls.of(values, str(path))

    def to_toml(self) -> str:
        """The text of a TOML file that :meth:`read` gives this recipe from."""
        plain: list[str] = []
        tables: list[str] = []
        for name, value in table(self).items():
            if dataclasses.is_dataclass(value):
                lines = [
                    f"{key_text(key)} = {value_text(one)}" for key, one in table(value).items()
                ]
                tables += ["", f"[{name}]", *lines] if lines else []
            else:
                plain.append(f"{name} = {value_text(value)}")
        return "\n".join([*plain, *tables]) + "\n"

    def override(self, changes: Mapping[str, Any]) -> Recipe:
        """The same recipe with some values changed.

        Args:
            changes: path -> value, such as ``{"optimizer.settings.lr": 3e-4, "steps": 100,
                "data.sources.0.weight": 2.0}``; None takes a value back to its default.

        Raises:
            RecipeError: a path leads nowhere, or a value does not fit.
        """
        values = _plain(self)
        for path, value in changes.items():
            _put(values, path, value)
        return Recipe.of(values)


def parse_change(text: str) -> tuple[str, Any]:
    """``path=value`` of a command line; the value is TOML where it can be, else a string.

    Raises:
        RecipeError: there is no "=".
    """
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise RecipeError(f"got {text!r}; expected PATH=VALUE, such as optimizer.settings.lr=3e-4")
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return path, value


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping):
        return {key: _plain(one) for key, one in table(value).items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value


def _put(values: Any, path: str, value: Any) -> None:
    """Sets what ``path`` leads to; tables on the way that are not there yet are made."""
    *way, last = path.split(".")
    place = values
    for segment in way:
        place = (
            place[_index(place, segment, path)]
            if isinstance(place, list)
            else (place.setdefault(segment, {}) if isinstance(place, dict) else None)
        )
    if isinstance(place, list):
        place[_index(place, last, path)] = value
    elif not isinstance(place, dict):
        raise RecipeError(f"{path} leads into a value; expected the path of a field")
    elif value is None:
        place.pop(last, None)
    else:
        place[last] = value


def _index(place: list[Any], segment: str, path: str) -> int:
    if not segment.isdecimal() or int(segment) >= len(place):
        raise RecipeError(
            f"{path}: {segment!r} is no entry of a list of {len(place)}; expected a number below it"
        )
    return int(segment)
