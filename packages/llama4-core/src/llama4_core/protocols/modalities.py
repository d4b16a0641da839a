"""The contract of a modality (contract 1): another kind of input in the stream of tokens.

A modality reads inputs (pictures, films) on the host, says which tokens stand for them, and turns
them into features. At each of its *placeholder* tokens the text model's embedding is replaced by
the next feature, in order: early fusion. The text model knows no more about it than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from llama4_core.tokenizers.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Reading:
    """One input, read and made ready on the host.

    Attributes:
        key: equal for equal inputs that were processed alike; encoded features are cached by it.
        tokens: ids that stand for the input in the stream, borders and separators included.
        places: how many of ``tokens`` are the placeholder: the rows of the input's features.
        inputs: what the modality's forward takes, ``[B, ...]``; inputs of one modality may be
            concatenated along B.
    """

    key: str
    tokens: tuple[int, ...]
    places: int
    inputs: Tensor


class Modality(Protocol):
    """Another kind of input. An ``nn.Module`` built as ``target(spec: ModelSpec, parts)``.

    One of other kinds than "image" and "video" also has a method ``sample(seed: int)``, which gives
    a small input, another for each seed: the conformance kit reads these.

    Attributes:
        kinds: the parts of a message that it reads, by their class's name in lower case ("image",
            "video"); () for one that only keeps weights aside.
        placeholder: id of the token whose embedding a feature replaces.
    """

    kinds: tuple[str, ...]
    placeholder: int

    def read(self, parts: Sequence[Any], tokenizer: Tokenizer | None) -> list[Reading]:
        """Reads all inputs of one prompt, in order: limits may hold for them together.

        Args:
            parts: :class:`~llama4_core.chat.messages.Image` and its like, of ``kinds``.
            tokenizer: gives the ids of borders and separators.

        Raises:
            ModalityError: an input cannot be read, is too large, or there are too many.
        """

    def __call__(self, inputs: Tensor) -> Tensor:
        """Features ``[B, T, D]`` of ``inputs [B, ...]``, D being the text model's width."""

    def annotate(self, part: Any, text: str, path: Path) -> list[dict[str, Any]]:
        """Draws on the input what ``text`` says about places in it, as a new picture ``path``.

        Returns:
            What was drawn, as plain values.

        Raises:
            ModalityError: the input has no picture, or ``path`` cannot be written.
        """
