"""Evaluation of models: tasks by name, figures with intervals. Imports torch on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "Figure": "llama4_train.evaluation.results:Figure",
    "Result": "llama4_train.evaluation.results:Result",
    "evaluate": "llama4_train.evaluation.run:evaluate",
    "evaluations": "llama4_train.evaluation.run:evaluations",
    "parse_task": "llama4_train.evaluation.tasks:parse_task",
    "tasks_of": "llama4_train.evaluation.tasks:tasks_of",
}

if TYPE_CHECKING:
    from llama4_train.evaluation.results import Figure, Result
    from llama4_train.evaluation.run import evaluate, evaluations
    from llama4_train.evaluation.tasks import parse_task, tasks_of

__all__ = ["Figure", "Result", "evaluate", "evaluations", "parse_task", "tasks_of"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'llama4_train.evaluation' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
