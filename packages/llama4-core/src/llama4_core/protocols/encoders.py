"""The contracts of encoders and adapters (contract 1 of both).

An encoder turns equally large pieces of an input (the tiles of a picture) into features on a grid;
an adapter turns these into the features that a text model's projection takes. Both are modules of
plain tensors that anybody's model can use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Encoded(NamedTuple):
    """What an encoder returns.

    Attributes:
        features: ``[B, P, W]``, row-major over the grid of ``P = rows * columns`` places.
        hidden: for each of the asked ``out_layers``, the output ``[B, P, W]`` of that block,
            without class tokens and before any final norm.
    """

    features: Tensor
    hidden: tuple[Tensor, ...] = ()


class Encoder(Protocol):
    """An ``nn.Module`` built as ``target(spec: VisionSpec, parts)``.

    Attributes:
        grid: rows and columns of places in one piece.
        width: W, of the features.
    """

    grid: tuple[int, int]
    width: int

    def __call__(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Encodes ``inputs [B, C, height, width]``, each piece for itself.

        Raises:
            ModalityError: another shape, no piece, whole numbers, or a layer that does not exist or
                is asked for twice.
        """


class Adapter(Protocol):
    """An ``nn.Module`` built as ``target(spec: VisionSpec, grid, width, parts)``.

    Attributes:
        tokens: T, features per piece.
        width: A, of the features.
    """

    tokens: int
    width: int

    def __call__(self, features: Tensor) -> Tensor:
        """Maps ``[B, P, W]`` to ``[B, T, A]``, each piece for itself.

        Raises:
            ModalityError: another shape.
        """
