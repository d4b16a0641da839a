"""A recipe: everything that decides what a training run does, as one tree of frozen values.

A recipe is a TOML file or is written in Python; equal recipes with equal data give equal weights.
Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
class ModelPart:
    """What is trained.

    Attributes:
        start: a model's name, a ``spec.toml`` or a folder with a description; with ``weights`` a
            folder or a repository to go on from.
        weights: "random" to draw them, or "stored" to load those of ``start``.
        dtype: of the weights: "float32", or "bfloat16" with float32 masters in the optimizer.
        overrides: slot path globs -> component names.
        tokenizer: folder with a tokenizer; None for that of ``start``.
        train: globs of the parameters that are trained; empty for all.
        checkpointing: activation checkpointing: "none", "full" (every block), or "selective"
            (every second block).
    """

    start: str
    weights: str = "random"
    dtype: str = "float32"
    overrides: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    train: tuple[str, ...] = ()
    checkpointing: str = "none"


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


@dataclass(frozen=True)
class SchedulePart:
    """The learning rate over the steps, as a factor of its largest value.

    Attributes:
        shape: "constant", "cosine", or "wsd" (warm-up, stable, decay).
        warmup: steps of linear growth from 0.
        decay: of "wsd": the last steps, with linear decay to ``floor``.
        floor: smallest factor at the end.
    """

    shape: str = "cosine"
    warmup: int = 0
    decay: int = 0
    floor: float = 0.0


@dataclass(frozen=True)
class CheckpointPart:
    """When the run is saved.

    Attributes:
        every: steps between two checkpoints; 0 for only the last.
        keep: how many of the latest stay.
    """

    every: int = 0
    keep: int = 2


@dataclass(frozen=True)
class EvaluationPart:
    """What is measured while training.

    Attributes:
        every: steps between two evaluations; 0 for only the last.
        tasks: names and settings of evaluations, see ``llama4 evaluate --list``.
    """

    every: int = 0
    tasks: tuple[Slot, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A training run.

    Attributes:
        name: for people.
        steps: number of optimizer steps.
        model, data: what is trained on what.
        seed: of weights, data and everything else that is drawn.
        objective, optimizer: components; the optimizer's settings hold ``lr``.
        schedule: of the learning rate.
        clip: largest norm of all gradients together; None for no clipping.
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
    clip: float | None = 1.0
    checkpoints: CheckpointPart = CheckpointPart()
    evaluation: EvaluationPart = EvaluationPart()
    trackers: tuple[Slot, ...] = ()
    description: str = ""
