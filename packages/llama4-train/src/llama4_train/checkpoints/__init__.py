"""Checkpoints of runs: what is stored, how it is written, and how a model leaves a run.

A run's folder holds ``recipe.toml``, ``model/`` (its description and tokenizer) and
``checkpoints/step-NNNNNNNN/``, one complete folder for each checkpoint that is kept.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Keeper": "llama4_train.checkpoints.keeper:Keeper",
    "Reader": "llama4_train.checkpoints.storage:Reader",
    "Writer": "llama4_train.checkpoints.storage:Writer",
    "export": "llama4_train.checkpoints.exports:export",
    "latest": "llama4_train.checkpoints.folders:latest",
    "model_from_run": "llama4_train.checkpoints.runs:model_from_run",
    "read": "llama4_train.checkpoints.whole:read",
    "write": "llama4_train.checkpoints.whole:write",
}

if TYPE_CHECKING:
    from llama4_train.checkpoints.exports import export
    from llama4_train.checkpoints.folders import latest
    from llama4_train.checkpoints.keeper import Keeper
    from llama4_train.checkpoints.runs import model_from_run
    from llama4_train.checkpoints.storage import Reader, Writer
    from llama4_train.checkpoints.whole import read, write

__all__ = ["Keeper", "Reader", "Writer", "export", "latest", "model_from_run", "read", "write"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'llama4_train.checkpoints' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
