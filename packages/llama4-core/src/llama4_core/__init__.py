"""Llama 4 models out of parts: the ground floor.

Importing this package does not import torch; what needs it does so on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "assemble": "llama4_core.assembly.assemble:assemble",
    "catalogue": "llama4_core.plugins.catalogue:catalogue",
    "freeze": "llama4_core.model.freezing:freeze",
    "load": "llama4_core.checkpoints.load:load",
    "save": "llama4_core.checkpoints.save:save",
    "train_only": "llama4_core.model.freezing:train_only",
    "unfreeze": "llama4_core.model.freezing:unfreeze",
    "ModelSpec": "llama4_core.specs.model:ModelSpec",
    "Llama4Error": "llama4_core.errors:Llama4Error",
}

if TYPE_CHECKING:
    from llama4_core.assembly.assemble import assemble
    from llama4_core.checkpoints.load import load
    from llama4_core.checkpoints.save import save
    from llama4_core.errors import Llama4Error
    from llama4_core.model.freezing import freeze, train_only, unfreeze
    from llama4_core.plugins.catalogue import catalogue
    from llama4_core.specs.model import ModelSpec

__all__ = [
    "Llama4Error",
    "ModelSpec",
    "__version__",
    "assemble",
    "catalogue",
    "freeze",
    "load",
    "save",
    "train_only",
    "unfreeze",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'llama4_core' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
