"""Training of Llama 4 models: recipes, objectives, optimizers, data, exact resume, evaluation.

Importing this package does not import torch; what needs it does so on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Recipe": "llama4_train.recipe:Recipe",
    "Trainer": "llama4_train.trainer.loop:Trainer",
    "train": "llama4_train.trainer.loop:train",
}

if TYPE_CHECKING:
    from llama4_train.recipe import Recipe
    from llama4_train.trainer.loop import Trainer, train

__all__ = ["Recipe", "Trainer", "__version__", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'llama4_train' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
