"""Training in stages: each goes on from the weights of the one before, with another recipe.

Mid-training for long contexts is a stage with longer documents, another mixture, and a model whose
chunk, attention temperature and longest context are others. Only weights are handed on: optimizer,
schedule and data begin anew. Imports torch on first use.
"""

from __future__ import annotations

import logging
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.errors import SpecError
from llama4_core.specs.tables import build
from llama4_train.checkpoints.folders import checkpoints
from llama4_train.errors import RecipeError, TrainingError
from llama4_train.recipe import Recipe
from llama4_train.respec import respec

if TYPE_CHECKING:
    from llama4_core.plugins.catalogue import Catalogue
    from llama4_train.trainer.step import Step

log = logging.getLogger(__name__)

PREVIOUS = "previous"
"""What ``model.start`` of a recipe says that goes on from the stage before."""

__all__ = ["PREVIOUS", "Stage", "read_stages", "respec", "run_stages"]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        recipe: what is trained; ``model.start`` of all but the first is "previous".
        chunk, temperature, floor, max_positions: changes of the model, see
            :func:`~llama4_train.respec.respec`; they stay for the stages that follow.
    """

    recipe: Recipe
    chunk: int | None = None
    temperature: float | None = None
    floor: float | None = None
    max_positions: int | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """Changes of the model, without those that are None."""
        names = ("chunk", "temperature", "floor", "max_positions")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True)
class _Entry:
    """A stage as a file says it.

    Attributes:
        recipe: file, relative to this one; empty for the recipe of the stage before.
        set: path -> value, changes of the recipe.
    """

    recipe: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    chunk: int | None = None
    temperature: float | None = None
    floor: float | None = None
    max_positions: int | None = None


@dataclass(frozen=True)
class _File:
    stages: tuple[_Entry, ...]


def read_stages(files: Sequence[str | Path]) -> tuple[Stage, ...]:
    """Stages from one file that lists them, or from recipes in order.

    A file of stages::

        [[stages]]
        recipe = "short.toml"

        [[stages]]                    # the recipe of the stage before, unless it names one
        chunk = 512
        temperature = 0.1
        floor = 1024
        max_positions = 16384
        set = { steps = 200, "data.length" = 1024 }

    Raises:
        RecipeError: a file cannot be read or understood, there is no stage, or a later recipe does
            not begin with the weights of the stage before.
    """
    if not files:
        raise RecipeError("got no file; expected recipes in order, or one file of stages")
    if len(files) == 1:
        file = Path(files[0])
        values = _toml(file)
        if "stages" in values:
            return _listed(file, values)
    return _checked([Stage(Recipe.read(one)) for one in files], [str(one) for one in files])


def _listed(file: Path, values: Mapping[str, Any]) -> tuple[Stage, ...]:
    try:
        form: _File = build(_File, dict(values), str(file))
    except SpecError as error:
        raise RecipeError(str(error)) from error
    found: list[Stage] = []
    places = []
    for number, entry in enumerate(form.stages, 1):
        where = f"{file}, stage {number}"
        places.append(where)
        if entry.recipe:
            recipe = Recipe.read(file.parent / entry.recipe)
        elif found:
            before = found[-1].recipe
            model = replace(before.model, start=PREVIOUS, weights="stored")
            recipe = replace(before, model=model)
        else:
            raise RecipeError(f"{where}: recipe is missing; the first stage needs one")
        if entry.set:
            try:
                recipe = recipe.override(entry.set)
            except RecipeError as error:
                raise RecipeError(f"{where}: {error}") from error
        found.append(
            Stage(recipe, entry.chunk, entry.temperature, entry.floor, entry.max_positions)
        )
    return _checked(found, places)


def _checked(stages: Sequence[Stage], places: Sequence[str]) -> tuple[Stage, ...]:
    if not stages:
        raise RecipeError("there are no stages; expected at least one")
    for index, (stage, place) in enumerate(zip(stages, places, strict=True)):
        start = stage.recipe.model.start
        if index == 0 and start == PREVIOUS:
            raise RecipeError(f"{place}: starts from {PREVIOUS!r}, but it is the first stage")
        if index == 0 and stage.changes:
            raise RecipeError(
                f"{place}: changes {', '.join(stage.changes)} of the model; the first stage trains "
                "what its recipe names: write that model's description there"
            )
        if index and start != PREVIOUS:
            raise RecipeError(
                f"{place}: starts from {start!r}; expected model.start = {PREVIOUS!r}, the weights "
                "of the stage before"
            )
    return tuple(stages)


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read as text: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{file}: this is no TOML: {error}") from error


def run_stages(
    stages: Sequence[Stage],
    folder: str | Path,
    *,
    known: Catalogue | None = None,
    said: Callable[[int, Step], None] | None = None,
) -> tuple[Path, ...]:
    """Runs what has not been run.

    Stage N has the folder ``stage-N``, an ordinary run that ``llama4 train --resume`` takes too.
    Where a stage changes the model, its first weights are written beside it as ``stage-N-start``, a
    model folder with the new description. Finished stages are passed over, one that was stopped
    goes on.

    Args:
        stages: from :func:`read_stages`.
        folder: for all of them.
        known: the catalogue.
        said: called with the number of the stage, from 1, and each of its steps.

    Returns:
        The folders of the runs, in order.

    Raises:
        TrainingError: a folder holds a run of another recipe.
        RecipeError: a stage changes what the model does not have.
    """
    from llama4_train.trainer.loop import Trainer

    # Absolute: it stands in the recipes, and a resumed run may be called from elsewhere.
    place = Path(folder).expanduser().absolute()
    runs: list[Path] = []
    for number, stage in enumerate(_checked(stages, _numbered(stages)), 1):
        run = place / f"stage-{number}"
        recipe = stage.recipe
        if runs:
            start = _start(stage, runs[-1], place / f"stage-{number}-start")
            model = replace(recipe.model, start=str(start), weights="stored")
            recipe = replace(recipe, model=model)
        runs.append(run)
        if finished(run, recipe):
            log.info("%s: is finished", run)
            continue
        resume = (run / "recipe.toml").is_file()
        for step in Trainer.of(recipe, folder=run, resume=resume, known=known):
            if said is not None:
                said(number, step)
    return tuple(runs)


def _numbered(stages: Sequence[Stage]) -> list[str]:
    return [f"stage {number}" for number in range(1, len(stages) + 1)]


def finished(run: Path, recipe: Recipe) -> bool:
    """Whether a run has taken all steps of its recipe.

    Raises:
        TrainingError: it is of another recipe.
    """
    from llama4_train.checkpoints.runs import RECIPE, refuse_other

    if not (run / RECIPE).is_file():
        return False
    refuse_other(Recipe.read(run / RECIPE), recipe, run)
    held = checkpoints(run)
    return bool(held) and held[-1][0] >= recipe.steps


def _start(stage: Stage, before: Path, target: Path) -> Path:
    """What a stage starts from: the run before, or its weights under another description."""
    if not stage.changes:
        return before
    from llama4_core.checkpoints.save import write_checkpoint
    from llama4_core.specs.find import spec_from_path
    from llama4_train.checkpoints.runs import stored_model

    stored = stored_model(before)
    spec = respec(stored.spec, **stage.changes)
    if target.is_dir():
        # Written whole or not at all.
        there = spec_from_path(target)
        if there != spec:
            raise TrainingError(
                f"{target}: is of other changes of the model; choose another folder, or remove it "
                "together with the stages from there on"
            )
        return target
    write_checkpoint(
        {**stored.tensors, **stored.aside}, spec, target, "native", carry_from=stored.carried
    )
    return target
