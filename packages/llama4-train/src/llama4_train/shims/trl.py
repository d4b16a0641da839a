"""Lets the trainers of TRL run on Llama 4.

TRL 1.16 with transformers 5.23 stops at the first step of every trainer, for two reasons, both in
transformers:

- ``Llama4ForCausalLM.base_model`` is the whole model instead of its body: it is looked up as
  ``language_model``, a prefix under which multimodal checkpoints are stored, but the attribute is
  ``model``. TRL projects the body's hidden states itself and finds logits.
- ``Llama4TextConfig`` calls ``num_local_experts`` what TRL's load-balancing loss looks up as
  ``num_experts``.

:func:`mend` says the two right, on the classes, in this process. Nothing of TRL is changed, and
neither is the prefix: with it, ``Llama4ForCausalLM.from_pretrained`` finds the text model in a
multimodal folder.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from llama4_train.errors import TrainingError

_EXPERTS = "num_experts"


class Mend:
    """What :func:`mend` changed; also a context that undoes it at its end.

    Attributes:
        changes: one line each; empty where nothing needed a mend.
    """

    def __init__(self) -> None:
        self.changes: tuple[str, ...] = ()
        self._undo: list[Callable[[], None]] = []

    def undo(self) -> None:
        """Takes back what this mend changed, and nothing else; twice is as once."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Mend:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()

    def _did(self, change: str, undo: Callable[[], None]) -> None:
        self.changes = (*self.changes, change)
        self._undo.append(undo)


def mend() -> Mend:
    """Makes ``base_model`` and ``num_experts`` of transformers' Llama 4 what TRL expects.

    To be called before a trainer is built. Classes that say the two right themselves, by a later
    release or an earlier call, are left alone, so that a second call changes nothing and undoes
    nothing.

    Returns:
        What was changed: keep it to ``undo()``, or use it in a ``with``.

    Raises:
        TrainingError: transformers is not installed, or has no Llama 4.
    """
    try:
        from transformers import Llama4ForCausalLM, Llama4TextConfig
    except ImportError as error:
        raise TrainingError(
            f"Llama 4 of transformers cannot be imported ({error}); pip install 'llama4-train[trl]'"
        ) from error
    done = Mend()
    _mend_base_model(Llama4ForCausalLM, done)
    _mend_experts(Llama4TextConfig, done)
    return done


def _mend_base_model(model: Any, done: Mend) -> None:
    if model.base_model_prefix != "language_model" or "base_model" in vars(model):
        return
    model.base_model = property(_body)
    done._did(
        "Llama4ForCausalLM.base_model is its attribute model, and no longer the model itself",
        lambda: delattr(model, "base_model"),
    )


def _body(self: Any) -> Any:
    """The model without its head."""
    return self.model


def _mend_experts(config: Any, done: Mend) -> None:
    if hasattr(config, _EXPERTS) or _EXPERTS in config.attribute_map:
        return
    before = vars(config).get("attribute_map")
    config.attribute_map = {**config.attribute_map, _EXPERTS: "num_local_experts"}

    def undo() -> None:
        if before is None:
            del config.attribute_map
        else:
            config.attribute_map = before

    done._did("Llama4TextConfig.num_experts is another name of num_local_experts", undo)
