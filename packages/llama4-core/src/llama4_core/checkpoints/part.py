"""The image encoder of a checkpoint, for whoever wants nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from llama4_core.checkpoints.formats import checkpoint_format, detect, read_spec
from llama4_core.checkpoints.joined import gathered
from llama4_core.checkpoints.keys import (
    PROJECTOR,
    VISION,
    check_keys,
    of_foreign_vision,
    vision_rows,
)
from llama4_core.checkpoints.load import resolve
from llama4_core.checkpoints.shards import map_folder, read_json
from llama4_core.errors import CheckpointError, SpecError
from llama4_core.hub.resolve import cached
from llama4_core.hub.settings import repo_of
from llama4_core.plugins.catalogue import catalogue
from llama4_core.specs import ModelSpec, VisionSpec

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight

NUMBERS = "vision.json"
"""Beside the weights of an extracted encoder: its numbers."""


def vision_part(
    path: str | Path,
    *,
    revision: str | None = None,
    format: str | None = None,  # noqa: A002 - the public name of the argument
    max_positions: int | None = None,
) -> tuple[VisionSpec, int, dict[str, Tensor]]:
    """The numbers and weights of the image encoder in a checkpoint.

    Nothing is read but headers and, later, what is used of the returned tensors: these are views of
    the mapped files. Only what Meta's format cuts over several shards is joined in memory.

    Args:
        path: a folder with a whole checkpoint in any installed format; a folder that
            ``llama4 extract CHECKPOINT --part vision`` wrote; the name of a model that ships with
            its weights; or a repository ``org/name`` that is complete in the local cache.
        revision: branch, tag or commit of a repository.
        format: of a whole checkpoint, as in :func:`llama4_core.load`; None finds out, except that
            "meta" has to be asked for.
        max_positions: longest context, for a params.json that does not say it.

    Returns:
        The numbers; the width D of the text model that the projection leads into; and the weights
        by name, ``encoder.*``, ``adapter.*`` and ``projector.weight [D, A]``.

    Raises:
        CheckpointError: there is no such checkpoint, it has no encoder, or weights are missing, too
            many, misshapen or damaged.
        SpecError: the description is not understood.
    """
    folder = _folder(path, revision, pickles=format == "meta")
    if (folder / NUMBERS).is_file():
        for name, given in (("format", format), ("max_positions", max_positions)):
            if given is not None:
                raise CheckpointError(
                    f"{name} is {given!r}, but {folder} holds an encoder alone, which has none; "
                    "leave it out"
                )
        return _extracted(folder)
    form: Any = detect(folder) if format is None else checkpoint_format(format)
    if format is not None and not form.detect(folder):
        raise CheckpointError(f"{folder}: does not look like the format {format}")
    spec = read_spec(form, folder, max_positions)
    if spec.vision is None:
        raise CheckpointError(
            f"{folder}: describes the text model {spec.name}, which has no image encoder; expected "
            "a multimodal checkpoint"
        )
    held = _weights(form, folder, spec)
    _check(held, spec.vision, spec.width, folder)
    return spec.vision, spec.width, {name: gathered(weight) for name, weight in held.items()}


def _folder(path: str | Path, revision: str | None, *, pickles: bool) -> Path:
    place = Path(path).expanduser()
    entries = catalogue().components("models")
    installed = {name for entry in entries for name in (entry.name, entry.full_name)}
    elsewhere = not place.exists() and str(path) not in installed
    repo = repo_of(str(path), revision) if elsewhere else None
    if repo is not None:
        found = cached(repo, pickles=pickles)
        if found is None:
            # A download would fetch the text model too, which is a hundred times as large.
            raise CheckpointError(
                f"{repo}: is no folder here, and not complete in the local cache; fetch the "
                f"encoder alone with `llama4 extract {repo} --part vision OUT` and load OUT"
            )
        return found
    resolved = resolve(path, revision=revision)
    if not isinstance(resolved, Path):
        raise CheckpointError(
            f"{path} is a shape, not weights; expected a folder with a checkpoint"
        )
    return resolved


def _weights(form: Any, folder: Path, spec: ModelSpec) -> dict[str, Weight]:
    whole: Mapping[str, Weight] = (
        form.weights(folder, spec) if hasattr(form, "weights") else form.tensors(folder, spec)
    )
    return {
        name.removeprefix(VISION): weight
        for name, weight in whole.items()
        if name.startswith(VISION)
    }


def _extracted(folder: Path) -> tuple[VisionSpec, int, dict[str, Tensor]]:
    vision = _numbers(folder / NUMBERS)
    held = map_folder(folder)
    # Only the projection says how wide the text model is.
    width = held[PROJECTOR].shape[0] if PROJECTOR in held and held[PROJECTOR].dim() == 2 else 0
    _check(held, vision, width, folder)
    return vision, width, held


def _numbers(path: Path) -> VisionSpec:
    values = read_json(path)
    known = [field.name for field in fields(VisionSpec)]
    for name in values:
        if name not in known:
            raise CheckpointError(f"{path}: {name!r} is not one of {', '.join(known)}")
    try:
        return VisionSpec(**values)
    except (SpecError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}; extract the encoder again") from error


def _check(held: Mapping[str, Weight], vision: VisionSpec, width: int, folder: Path) -> None:
    """Compares what is there with what the description accounts for."""
    projector = held.get(PROJECTOR)
    if projector is None or len(projector.shape) != 2 or projector.shape[0] != width:
        got = "is missing" if projector is None else f"has {list(projector.shape)}"
        raise CheckpointError(
            f"{folder}: {PROJECTOR} {got}; expected [{width or 'text width'}, "
            f"{vision.adapter_output}], so fetch or extract the encoder again"
        )
    expected = {row.ours: row.shape for row in vision_rows(vision, width)}
    check_keys(
        {
            name: tuple(weight.shape)
            for name, weight in held.items()
            if name in expected or not of_foreign_vision(vision, name)
        },
        expected,
        str(folder),
    )
    for name, weight in held.items():
        if not weight.dtype.is_floating_point:
            raise CheckpointError(
                f"{folder}: {name} is stored as {weight.dtype}; expected floating-point numbers"
            )
