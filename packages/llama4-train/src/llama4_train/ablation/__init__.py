"""Ablations: several recipes over several seeds, compared pairwise. Imports torch on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Plan": "llama4_train.ablation.plan:Plan",
    "ablate": "llama4_train.ablation.runs:ablate",
    "compare": "llama4_train.ablation.compare:compare",
}

if TYPE_CHECKING:
    from llama4_train.ablation.compare import compare
    from llama4_train.ablation.plan import Plan
    from llama4_train.ablation.runs import ablate

__all__ = ["Plan", "ablate", "compare"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'llama4_train.ablation' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
