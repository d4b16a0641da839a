"""The spec of a folder, a file or a name, without touching any weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.errors import SpecError
from llama4_core.specs.model import ModelSpec

if TYPE_CHECKING:
    from llama4_core.plugins.catalogue import Catalogue


TEXT_ONLY = "-text"
"""What a model's name ends in when its text model alone is meant: ``scout-text``."""


def is_named(name: str, known: Catalogue) -> bool:
    """Whether the catalogue has the model ``name``, or the one whose text model it names."""
    return not {name, name.removesuffix(TEXT_ONLY)}.isdisjoint(_installed(known))


def _installed(known: Catalogue) -> set[str]:
    entries = known.components("models")
    return {entry.name for entry in entries} | {entry.full_name for entry in entries}


def spec_named(name: str, known: Catalogue) -> ModelSpec:
    """The description of a model of the catalogue; ``NAME-text`` is its text model alone.

    Raises:
        ComponentError: the catalogue has no such model.
        SpecError: the model is a folder, and that cannot be understood.
    """
    base = name if name in _installed(known) else name.removesuffix(TEXT_ONLY)
    built = known.find("models", base).component.build()
    spec = built if isinstance(built, ModelSpec) else spec_from_path(built)
    return spec if base == name else replace(spec.text_only(), name=name)


def spec_from_path(path: str | Path, *, max_positions: int | None = None) -> ModelSpec:
    """The model that a folder, ``spec.toml``, ``config.json`` or ``params.json`` describes.

    In a folder the first of these three that is there is read. An unnamed model gets the name of
    its folder.

    Args:
        path: folder or file.
        max_positions: longest context, for a ``params.json`` without it.

    Raises:
        SpecError: nothing of the kind is there, or it cannot be understood; or ``max_positions`` is
            given for a file that says it itself.
    """
    place = Path(path)
    if place.is_dir():
        file = next((place / name for name in _READERS if (place / name).is_file()), None)
        if file is None:
            raise SpecError(f"{place} has none of {', '.join(_READERS)}; expected one of them")
    elif place.is_file():
        file = place
    else:
        raise SpecError(f"{place} does not exist; expected a folder or file that describes a model")
    if file.suffix == ".toml":
        return _READERS["spec.toml"](file, max_positions)
    reader = _READERS.get(file.name)
    if reader is None:
        raise SpecError(f"{file} is not one of {', '.join(_READERS)}, or another .toml file")
    return reader(file, max_positions)


def _toml(file: Path, max_positions: int | None) -> ModelSpec:
    from llama4_core.specs.toml import read_toml

    _says_itself(file, max_positions)
    return read_toml(file)


def _huggingface(file: Path, max_positions: int | None) -> ModelSpec:
    from llama4_core.specs.huggingface import spec_from_huggingface

    _says_itself(file, max_positions)
    config = _json(file)
    named = isinstance(config, dict) and config.get("_name_or_path")
    return spec_from_huggingface(config, str(file), name=named or folder_name(file.parent))


def _meta(file: Path, max_positions: int | None) -> ModelSpec:
    from llama4_core.specs.meta import spec_from_meta

    return spec_from_meta(
        _json(file), str(file), max_positions=max_positions, name=folder_name(file.parent)
    )


_READERS: dict[str, Callable[[Path, int | None], ModelSpec]] = {
    "spec.toml": _toml,
    "config.json": _huggingface,
    "params.json": _meta,
}


def _says_itself(file: Path, max_positions: int | None) -> None:
    if max_positions is not None:
        raise SpecError(
            f"{file} says its longest context itself, and max_positions is {max_positions}; leave "
            "it (--max-positions) out: it is for a params.json that says nothing"
        )


def folder_name(folder: Path) -> str:
    """The name of a model that does not say its own: its folder's, or its repository's."""
    place = folder.resolve()
    # In the cache of Hugging Face: models--org--name/snapshots/<commit>.
    if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
        return place.parent.parent.name.rpartition("--")[2]
    return place.name or "llama4"


def _json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{file}: cannot be read as JSON: {error}") from error
