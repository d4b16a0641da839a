"""What generation needs of a model: a small interface, so that anybody's model can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from llama4_core.specs import ModelSpec
from llama4_core.tokenizers.tokenizer import Tokenizer


class CachedContext(Protocol):
    """Keys and values of a batch of growing sequences."""

    def extend(self, lengths: Sequence[int]) -> Any:
        """The context of a forward that adds ``lengths[b]`` tokens to row b."""

    def commit(self, lengths: Sequence[int] | None = None) -> None:
        """Keeps what the last forward added."""


class GenerativeModel(Protocol):
    """What generation needs of a model.

    A model that reads more than text also has ``modalities``
    (:class:`~llama4_core.protocols.modalities.Modality`), takes ``features`` as
    :meth:`llama4_core.model.transformer.Transformer.forward` does, and may have a cache of them
    called ``features`` (:class:`~llama4_core.model.features.FeatureCache`). A model without them is
    never handed any.

    Attributes:
        spec: its description: vocabulary, longest context, stop tokens.
        tokenizer: or None.
        device: where token ids have to be.
    """

    spec: ModelSpec
    tokenizer: Tokenizer | None

    @property
    def device(self) -> Any: ...

    def __call__(self, tokens: Tensor, context: Any, /) -> Any:
        """Ids ``[N]`` to hidden states ``[N, D]`` after the final norm, and routings."""

    def project(self, hidden: Tensor) -> Tensor:
        """Hidden states ``[B, D]`` to float32 logits ``[B, V]``."""

    def cached(self, rows: int, *, capacity: int = 0, cache: Any = "auto") -> CachedContext:
        """An empty cached context for ``rows`` sequences of about ``capacity`` tokens."""
