"""Runs evaluations: one after the other, each result kept as it comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llama4_core.plugins.catalogue import Catalogue, catalogue
from llama4_core.specs.toml import toml_from_spec
from llama4_train.checkpoints.folders import disk, write_text
from llama4_train.errors import EvaluationError
from llama4_train.evaluation.results import Result
from llama4_train.evaluation.tasks import Context, Named, tasks_of
from llama4_train.recipe import Slot

Progress = Callable[[str, int, int], None]
"""Called with the label of the task, and how much of it is done."""

# Numbers of each tensor that tell two models apart without reading all of them.
_LOOKED_AT = 64


def evaluate(
    model: Any,
    slots: Sequence[Slot],
    *,
    known: Catalogue | None = None,
    length: int | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Measures a model; what trains it goes on as if nothing had been.

    Modes of modules, description and all generators of random numbers are afterwards what they
    were.

    Args:
        model: assembled, with a tokenizer.
        slots: tasks, as in :class:`~llama4_train.recipe.EvaluationPart`.
        known: the catalogue.
        length: longest document in training, for tasks that measure in multiples of it.
        progress: called while a task runs.

    Returns:
        ``LABEL.NAME.METRIC`` -> number, such as ``scenes.colour.accuracy``.

    Raises:
        RecipeError: an unknown task or setting.
        EvaluationError: the model cannot be measured so.
    """
    found: dict[str, float] = {}
    tasks = tasks_of(slots)
    for result in evaluations(model, tasks, known=known, length=length, progress=progress):
        found.update(result.flat())
    return found


def evaluations(
    model: Any,
    tasks: Sequence[Named],
    *,
    folder: str | Path | None = None,
    known: Catalogue | None = None,
    length: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Runs tasks in order and gives each result as soon as it is there.

    Args:
        model: as :func:`evaluate`.
        tasks: from :func:`~llama4_train.evaluation.tasks.tasks_of`.
        folder: each result is written there, as ``LABEL.json``; one that is there already, of the
            same model and the same settings, is read and not measured again.
        known: as :func:`evaluate`.
        length: as :func:`evaluate`.
        progress: as :func:`evaluate`.

    Raises:
        EvaluationError: the folder holds a result of the same label but of another model or other
            settings, or a damaged one; or the model cannot be measured so.
        CheckpointError: the folder cannot be written.
    """
    place = None if folder is None else Path(folder)
    identity = fingerprint(model) if place is not None else ""
    kept = {one.label: _stored(place, one, identity, length) for one in tasks}
    for one in tasks:
        stored = kept[one.label]
        if stored is not None:
            yield stored
            continue

        def tell(done: int, total: int, label: str = one.label) -> None:
            if progress is not None:
                progress(label, done, total)

        with undisturbed(model):
            figures = one.task.measure(model, Context(known or catalogue(), length, tell))
        result = Result(one.name, one.label, _json(one.settings), figures)
        if place is not None:
            with disk(place, "written"):
                place.mkdir(parents=True, exist_ok=True)
                values = {**result.plain(), "model": identity, "length": length}
                write_text(_file(place, one.label), json.dumps(values, indent=2) + "\n")
        yield result


@contextmanager
def undisturbed(model: Any) -> Iterator[None]:
    """The model in evaluation mode; afterwards modes and generators are what they were."""
    from llama4_train.trainer.state import generators, set_generators

    modes = {name: module.training for name, module in model.named_modules()}
    random = generators()
    model.eval()
    try:
        yield
    finally:
        set_generators(random)
        for name, module in model.named_modules():
            module.training = modes[name]


def fingerprint(model: Any) -> str:
    """Tells models apart: by description, and by some numbers of each weight."""
    digest = hashlib.sha256(toml_from_spec(model.spec).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        count = tensor.numel()
        if count:
            some = torch.arange(0, count, max(1, count // _LOOKED_AT), device=tensor.device)
            index = torch.unravel_index(some, tensor.shape) if tensor.dim() else ()
            digest.update(repr(tensor[index].tolist()).encode())
    return digest.hexdigest()


def _stored(folder: Path | None, task: Named, identity: str, length: int | None) -> Result | None:
    """The result of a task that an earlier call left, or None.

    Raises:
        EvaluationError: it is of something else, or damaged.
    """
    if folder is None or not _file(folder, task.label).is_file():
        return None
    file = _file(folder, task.label)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        result = Result.of(values)
        of = values["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{file}: is no result of an evaluation ({type(error).__name__}); remove it"
        ) from error
    expected = {"task": task.name, "settings": _json(task.settings), "length": length}
    for name, value in expected.items():
        if values.get(name) != value:
            raise EvaluationError(
                f"{file}: was measured with {name} {values.get(name)}, not {value}; choose another "
                "folder, or give the task another label"
            )
    if of != identity:
        raise EvaluationError(
            f"{file}: was measured of another model, or of other weights; choose another folder"
        )
    return result


def _file(folder: Path, label: str) -> Path:
    return folder / f"{label}.json"


def _json(settings: Any) -> Any:
    """As reading the file gives them back."""
    try:
        return json.loads(json.dumps(settings))
    except TypeError as error:
        raise EvaluationError(
            f"settings {settings!r:.120} cannot be written as JSON: {error}"
        ) from error
