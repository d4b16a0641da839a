"""The model ``tiny``: a folder of weights inside this package. Imports without torch."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from llama4_core.errors import CheckpointError
from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl

FILES = (
    "spec.toml",
    "model.safetensors.index.json",
    "model-00001-of-00001.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What the folder has to hold: a checkpoint in the native format, and its tokenizer."""

MODELS = (
    Component(
        "tiny",
        "llama4_tiny.plugin:folder",
        "5.6M trained weights: small pictures, boxes, passkeys, sums, tools",
    ),
)


@hookimpl
def llama4_models() -> tuple[Component, ...]:
    """The one model of this package."""
    return MODELS


def folder() -> Path:
    """Where the weights lie.

    Raises:
        CheckpointError: a file is missing, or the package is no folder (weights are mapped from
            files, which a zip archive has none of).
    """
    place = files("llama4_tiny") / "data"
    if not isinstance(place, Path):
        raise CheckpointError(
            f"llama4-tiny lies in {place}, from which nothing can be mapped; expected a folder: "
            "pip install llama4-tiny"
        )
    missing = [name for name in FILES if not (place / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{place}: this installation of llama4-tiny has no {', '.join(missing)}; reinstall it, "
            "or in a checkout write the weights with recipes/tiny/ship.py"
        )
    return place
