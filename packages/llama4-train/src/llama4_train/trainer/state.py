"""Everything that a run is made of between two steps, and how it goes on from that.

The state is taken after a step, so that the next one is the same whether the process lived or not:
weights and buffers, the optimizer, where the data stands, the generators of random numbers, and the
number of the step, which the learning rate follows from.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from llama4_core.errors import CheckpointError
from llama4_core.specs.toml import spec_from_toml, toml_from_spec
from llama4_train.checkpoints.keeper import Keeper
from llama4_train.checkpoints.runs import (
    ASIDE,
    WEIGHTS,
    begin,
    refuse_other,
    resumable,
    running_spec,
    stored_recipe,
)
from llama4_train.checkpoints.same import differing, fingerprint
from llama4_train.checkpoints.trees import first_difference, outline, rebuilt
from llama4_train.errors import TrainingError

if TYPE_CHECKING:
    from llama4_train.trainer.loop import Trainer

OPTIMIZER = "optimizer"
RANDOM = "random"
# Read as JSON; everything else in a checkpoint is a tensor.
VALUES = ("step", "recipe", "fingerprint", "spec", "data", OPTIMIZER, RANDOM)


def opened(trainer: Trainer, folder: Path, resume: bool) -> Keeper:
    """Makes or reopens the folder of a run, and puts the trainer where the run stood.

    Args:
        trainer: put together from the recipe, at step 0.
        folder: of the run.
        resume: go on with what is there, instead of starting anew.

    Raises:
        TrainingError: the folder is in use, holds no run, or one of another recipe or model.
        CheckpointError: the latest checkpoint is damaged, or the disk refuses.
    """
    recipe = trainer.recipe
    if resume:
        place = resumable(folder, recipe, trainer.model)
        if place is not None:
            restore(trainer, place)
    else:
        begin(folder, recipe, trainer.model)
    return Keeper(folder, recipe.checkpoints.keep)


def capture(trainer: Trainer) -> dict[str, Any]:
    """The state of a run: name -> tensor, or JSON value. Tensors are those in use, not copies.

    Raises:
        CheckpointError: the state of the optimizer holds what cannot be stored.
    """
    model, recipe = trainer.model, trainer.recipe
    tensors: dict[str, Tensor] = {
        **{f"{WEIGHTS}{name}": tensor for name, tensor in model.state_dict().items()},
        **{f"{ASIDE}{name}": tensor for name, tensor in model.extra_weights.items()},
    }
    drawn = {
        OPTIMIZER: outline(trainer.parts.optimizer.state_dict(), OPTIMIZER, tensors),
        RANDOM: outline(generators(), RANDOM, tensors),
    }
    return {
        **tensors,
        **drawn,
        "step": trainer.number,
        "recipe": recipe.to_toml(),
        "fingerprint": fingerprint(recipe),
        "spec": toml_from_spec(running_spec(model)),
        "data": trainer.parts.data.state(),
    }


def restore(trainer: Trainer, place: Path) -> None:
    """Puts a trainer where the run stood when the checkpoint ``place`` was taken.

    Raises:
        TrainingError: the checkpoint is of another recipe, model, optimizer or data.
        CheckpointError: it is damaged.
    """
    # Torch's checkpoints take a second to import: nothing that runs without one should wait.
    from llama4_train.checkpoints.whole import contents, read

    held = contents(place)
    model, optimizer = trainer.model, trainer.parts.optimizer
    own = {f"{WEIGHTS}{name}": tensor for name, tensor in model.state_dict().items()}
    state: dict[str, Any] = dict.fromkeys(VALUES)
    read(state, place)
    _refuse(trainer, state, place)
    weights = {name for name in held if name.startswith(WEIGHTS)}
    if weights != own.keys():
        odd = sorted(weights ^ own.keys())[0].removeprefix(WEIGHTS)
        raise TrainingError(
            f"{place}: differs from the model in {odd}; resume with the packages and the recipe "
            "that the run was started with"
        )
    others = {
        name: torch.empty_like(entry, device="cpu")
        for name, entry in held.items()
        if entry is not None and name.startswith((f"{OPTIMIZER}.", f"{RANDOM}."))
    }
    stored = rebuilt(state[OPTIMIZER], others)
    _check_groups(stored, optimizer.state_dict(), place)
    read({**own, **others}, place)
    try:
        optimizer.load_state_dict(stored)
    except (KeyError, RuntimeError, ValueError) as error:
        raise TrainingError(f"{place}: does not fit the optimizer: {_line(error)}") from error
    difference = first_difference(stored, optimizer.state_dict(), OPTIMIZER)
    if difference is not None:
        raise TrainingError(
            f"{place}: the optimizer does not take its own state back as it was: {difference}; "
            "the run cannot be resumed exactly"
        )
    trainer.parts.data.restore(state["data"])
    trainer.number = int(state["step"])
    set_generators(rebuilt(state[RANDOM], others))


def _refuse(trainer: Trainer, state: Mapping[str, Any], place: Path) -> None:
    """Raises where the checkpoint is not of this run."""
    refuse_other(stored_recipe(state["recipe"], place), trainer.recipe, place)
    stored = spec_from_toml(str(state["spec"]), f"{place}, spec")
    keys = differing(stored, running_spec(trainer.model))
    if keys:
        shown = ", ".join(keys[:8]) + (", ..." if len(keys) > 8 else "")
        raise TrainingError(
            f"{place}: is of another model, which differs in {shown}; resume with the model that "
            "the run was started with"
        )
    if type(state["step"]) is not int or state["step"] < 0:
        raise CheckpointError(f"{place}: has step {state['step']!r:.40}; expected a whole number")
    if state["step"] > trainer.recipe.steps:
        raise TrainingError(
            f"{place}: is {state['step']} steps into a run of {trainer.recipe.steps}; raise steps, "
            "or resume from an older checkpoint"
        )


def _check_groups(stored: Any, own: Any, place: Path) -> None:
    """Raises where the optimizers have other groups of parameters."""
    theirs, ours = _groups(stored), _groups(own)
    if theirs != ours:
        raise TrainingError(
            f"{place}: its optimizer has groups of {_counts(theirs)} parameters; expected "
            f"{_counts(ours)}: resume with the packages and the recipe that the run was started "
            "with"
        )


def _groups(tree: Any) -> list[int]:
    """Parameters of each group of an optimizer and of those in it."""
    if isinstance(tree, Mapping):
        if "param_groups" in tree:
            return [len(group["params"]) for group in tree["param_groups"]]
        return [count for value in tree.values() for count in _groups(value)]
    if isinstance(tree, list | tuple):
        return [count for value in tree for count in _groups(value)]
    return []


def _counts(groups: list[int]) -> str:
    return ", ".join(map(str, groups)) or "no"


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def seed_generators(seed: int) -> None:
    """Seeds all global generators: a run is to follow from its recipe alone, dropout included."""
    torch.manual_seed(seed)
    random.seed(seed)
    # Python's and torch's take any whole number.
    numpy.random.seed(seed % 2**32)  # noqa: NPY002 - the global generator is meant


def generators() -> dict[str, Any]:
    """The states of all global generators of random numbers: torch, devices, Python, numpy."""
    drawn: Any = numpy.random.get_state()  # noqa: NPY002 - the global one is meant
    name, keys, *rest = drawn
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [str(name), keys.tolist(), *rest],
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["cuda"] = list(torch.cuda.get_rng_state_all())
    return found


def set_generators(states: Mapping[str, Any]) -> None:
    """Puts the generators where :func:`generators` found them."""
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *rest = states["numpy"]
    state = (name, numpy.array(keys, dtype=numpy.uint32), *rest)
    numpy.random.set_state(state)  # noqa: NPY002 - the global generator is meant
