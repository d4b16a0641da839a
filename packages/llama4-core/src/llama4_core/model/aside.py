"""The modality that reads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from llama4_core.errors import ModalityError
from llama4_core.protocols.parts import Parts
from llama4_core.specs.model import ModelSpec


class Aside(nn.Module):
    """Stands where no installed package reads an input, or where none is wanted.

    The weights of the modality stay in ``model.extra_weights``, and are written back on save.

    Args:
        spec: of the model.
        parts: not needed.
    """

    kinds: tuple[str, ...] = ()

    def __init__(self, spec: ModelSpec, parts: Parts) -> None:
        super().__init__()
        self.model_name = spec.name
        self.placeholder = -1 if spec.tokens.image is None else spec.tokens.image

    def read(self, parts: Sequence[Any], tokenizer: Any) -> NoReturn:
        """Refuses.

        Raises:
            ModalityError: always; it says which package reads pictures.
        """
        raise self._refusal()

    def forward(self, inputs: Tensor) -> NoReturn:
        """Refuses, as :meth:`read`."""
        raise self._refusal()

    def annotate(self, part: Any, text: str, path: Path) -> NoReturn:
        """Refuses, as :meth:`read`."""
        raise self._refusal()

    def _refusal(self) -> ModalityError:
        return ModalityError(
            f"{self.model_name} was put together without its vision encoder, so it reads no "
            "pictures: pip install llama4-vision, or leave out the override that says 'none'"
        )
