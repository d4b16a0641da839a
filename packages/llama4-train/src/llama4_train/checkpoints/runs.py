"""The folder of a run, and the model that lies in it."""

from __future__ import annotations

import logging
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from llama4_core.assembly.assemble import assemble
from llama4_core.checkpoints.save import carry_files
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec, MoESpec
from llama4_core.specs.toml import spec_from_toml, toml_from_spec
from llama4_core.tokenizers import load_tokenizer
from llama4_train.checkpoints.adapters import fill, merged
from llama4_train.checkpoints.folders import (
    CHECKPOINTS,
    checkpoints,
    disk,
    latest,
    sync_folder,
    write_text,
)
from llama4_train.checkpoints.manifest import MANIFEST
from llama4_train.checkpoints.same import differing_recipes
from llama4_train.errors import TrainingError
from llama4_train.recipe import Recipe

if TYPE_CHECKING:
    from llama4_core.model.transformer import Transformer

log = logging.getLogger(__name__)

RECIPE = "recipe.toml"
MODEL = "model"
SPEC = "spec.toml"
# What the names of tensors begin with.
WEIGHTS = "model."
ASIDE = "aside."


@dataclass(frozen=True)
class StoredModel:
    """A model as a checkpoint holds it.

    Attributes:
        spec: what it is, its routers named as they ran.
        tensors: its state, by the names of the model; adapters are merged.
        aside: weights that no installed package ran.
        carried: folder with tokenizer and licences, or None.
        place: the checkpoint.
    """

    spec: ModelSpec
    tensors: Mapping[str, Tensor]
    aside: Mapping[str, Tensor]
    carried: Path | None
    place: Path


def is_run(path: str | Path) -> bool:
    """Whether there is the folder of a run, or of one of its checkpoints."""
    folder = Path(path).expanduser()
    return (folder / RECIPE).is_file() or (folder / MANIFEST).is_file()


def begin(run: Path, recipe: Recipe, model: Any) -> None:
    """Makes the folder of a new run.

    Raises:
        TrainingError: the folder holds checkpoints already.
        CheckpointError: it cannot be written.
    """
    held = checkpoints(run)
    if held:
        raise TrainingError(
            f"{run}: holds a run of {held[-1][0]} steps; resume it (resume=True, --resume {run}), "
            "or choose another folder"
        )
    with disk(run, "written"):
        run.mkdir(parents=True, exist_ok=True)
        # Of a run that was stopped before its first checkpoint, perhaps of another model.
        shutil.rmtree(run / MODEL, ignore_errors=True)
        _describe(run, recipe, model)
        write_text(run / RECIPE, recipe.to_toml())


def resumable(run: Path, recipe: Recipe, model: Any) -> Path | None:
    """The checkpoint to go on from; None for a run that was stopped before its first one.

    Raises:
        TrainingError: there is no run, or one of another recipe; names the keys that differ.
        CheckpointError: the folder cannot be read or written.
    """
    if not (run / RECIPE).is_file():
        raise TrainingError(
            f"{run}: holds no run to resume (no {RECIPE}); check the folder, or start anew without "
            "resume"
        )
    refuse_other(Recipe.read(run / RECIPE), recipe, run)
    place = latest(run)
    with disk(run, "written"):
        _describe(run, recipe, model)
        write_text(run / RECIPE, recipe.to_toml())
    return place


def refuse_other(stored: Recipe, recipe: Recipe, where: Path) -> None:
    """Raises where a recipe is not the one that a run was started with.

    Raises:
        TrainingError: names the keys.
    """
    keys = differing_recipes(stored, recipe)
    if keys:
        shown = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
        raise TrainingError(
            f"{where}: is of a recipe that differs in {shown}; resume with the recipe in "
            f"{RECIPE}, or start a new run in another folder"
        )


def _describe(run: Path, recipe: Recipe, model: Any) -> None:
    """Puts description, tokenizer and licences beside the checkpoints, once."""
    target = run / MODEL
    if target.is_dir():
        return
    partial = run / f".{MODEL}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    # What is first there stays: the recipe's tokenizer before that of the start.
    if recipe.model.tokenizer is not None:
        carry_files(Path(recipe.model.tokenizer).expanduser(), partial)
    if model.folder is not None:
        carry_files(model.folder, partial)
    (partial / SPEC).write_text(toml_from_spec(running_spec(model)), encoding="utf-8")
    partial.replace(target)
    sync_folder(run)


def running_spec(model: Any) -> ModelSpec:
    """The description of a model as it runs: its dtype, and routers that overrides put in place."""
    layers = list(model.spec.layers)
    for index, layer in enumerate(layers):
        choice = model.report.choices.get(f"layers.{index}.feed_forward.router")
        rows = () if choice is None else choice.rows
        provider = rows[0].provider if rows else None
        known = provider is not None and provider.distribution != "object"
        if isinstance(layer.feed_forward, MoESpec) and provider is not None and known:
            layers[index] = replace(
                layer, feed_forward=replace(layer.feed_forward, router=provider.name)
            )
    dtype = str(model.dtype).removeprefix("torch.")
    return replace(model.spec, layers=tuple(layers), dtype=dtype)


def stored_model(path: str | Path) -> StoredModel:
    """The model of a run's latest checkpoint, or of the checkpoint that ``path`` is.

    Raises:
        CheckpointError: there is no checkpoint, or it is damaged.
    """
    from llama4_train.checkpoints.whole import read_part  # torch's checkpoints: a second to import

    folder = Path(path).expanduser()
    place = folder if (folder / MANIFEST).is_file() else latest(folder)
    if place is None:
        raise CheckpointError(
            f"{folder}: holds no checkpoint; expected the folder of a run that has written one "
            f"({CHECKPOINTS}/step-...), or of a checkpoint"
        )
    state = read_part(place, WEIGHTS, ASIDE, "spec", "recipe")
    carried = place.absolute().parent.parent / MODEL
    spec = spec_from_toml(str(state["spec"]), f"{place}, spec")
    tensors = _without(state, WEIGHTS)
    part = stored_recipe(state["recipe"], place).model
    if part.lora is not None:
        tensors = merged(spec, part, part.lora, tensors, place)
    return StoredModel(
        spec,
        tensors,
        _without(state, ASIDE),
        carried if carried.is_dir() else None,
        place,
    )


def stored_recipe(text: object, place: Path) -> Recipe:
    """The recipe in a checkpoint.

    Raises:
        CheckpointError: it is no TOML.
        RecipeError: a key is unknown or has a wrong value.
    """
    try:
        values = tomllib.loads(str(text))
    except tomllib.TOMLDecodeError as error:
        raise CheckpointError(f"{place}: its recipe is no TOML: {error}") from error
    return Recipe.of(values, f"{place}, recipe")


def _without(state: Mapping[str, Any], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def model_from_run(
    path: str | Path,
    dtype: str = "auto",
    overrides: Mapping[str, Any] | None = None,
    plugins: Sequence[str | Path] = (),
) -> Transformer:
    """The model of a run, to go on from.

    Args:
        path: the run's folder, or one of its checkpoints.
        dtype: of the weights; "auto" as they are stored.
        overrides: slot path globs -> component names or objects.
        plugins: the user's own plugin files.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or parts that overrides put in place
            have other weights.
    """
    stored = stored_model(path)
    spec = stored.spec if dtype == "auto" else replace(stored.spec, dtype=dtype)
    model = assemble(spec, overrides, device="cpu", dtype=spec.dtype, plugins=plugins)
    fill(model, stored.tensors, stored.place)
    model.extra_weights = dict(stored.aside)
    if stored.carried is not None:
        model.folder = stored.carried
        model.tokenizer = load_tokenizer(stored.carried, bos=spec.tokens.bos)
    return model
