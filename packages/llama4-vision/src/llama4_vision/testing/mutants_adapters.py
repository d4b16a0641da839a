"""Bugs of adapters, planted into ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.errors import ModalityError
from llama4_core.model.projection import Projection
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_vision.adapters.pooled import PooledLinear
from llama4_vision.adapters.shuffle import PixelShuffleMlp, pixel_shuffle


class OneMore(PixelShuffleMlp):
    """Ends each piece with a token of its own."""

    def forward(self, features: Tensor) -> Tensor:
        """Appends zeros."""
        return F.pad(super().forward(features), (0, 0, 0, 1))


class WideOutput(PixelShuffleMlp):
    """Answers in float32 whatever its weights are."""

    def forward(self, features: Tensor) -> Tensor:
        """Widens."""
        return super().forward(features).float()


class OwnWidth(PooledLinear):
    """As wide as the encoder."""

    def __init__(self, spec: Any, grid: tuple[int, int], width: int, parts: Any) -> None:
        super().__init__(spec, grid, width, parts)
        self.width = width
        self.fc = Projection(width, width, bias=True)


class BatchMean(PixelShuffleMlp):
    """Subtracts what all pieces have in common."""

    def forward(self, features: Tensor) -> Tensor:
        """Centres."""
        return super().forward(features - 0.01 * features.mean(0))


class ByPlaceInBatch(PixelShuffleMlp):
    """Tells the pieces apart by their number."""

    def forward(self, features: Tensor) -> Tensor:
        """Adds the number."""
        return super().forward(features) + 0.01 * torch.arange(len(features))[:, None, None]


class CornersOnly(PixelShuffleMlp):
    """Takes the first place of each square for all of them."""

    def forward(self, features: Tensor) -> Tensor:
        """Repeats it."""
        shuffled = pixel_shuffle(features, self.grid, self.block)
        first = shuffled[..., : self.inputs[1]].repeat(1, 1, self.block**2)
        return F.gelu(self.fc2(F.gelu(self.fc1(first)))) + 0 * features.sum()


class AnyShape(PixelShuffleMlp):
    """Reshapes whatever comes."""

    def forward(self, features: Tensor) -> Tensor:
        """Reshapes."""
        return super().forward(features.reshape(-1, *self.inputs))


class DropsTheRest(PooledLinear):
    """Leaves out places behind the grid: a class token, or another encoder's."""

    def forward(self, features: Tensor) -> Tensor:
        """Cuts."""
        return super().forward(features[..., : self.inputs[0], :])


class OtherErrors(PooledLinear):
    """Raises an error of another kind."""

    def forward(self, features: Tensor) -> Tensor:
        """Renames the error."""
        try:
            return super().forward(features)
        except ModalityError as error:
            raise RuntimeError(str(error)) from error


class Contiguous(PixelShuffleMlp):
    """Takes it for granted that features lie side by side."""

    def forward(self, features: Tensor) -> Tensor:
        """Reads with the strides of a fresh tensor."""
        fresh = torch.empty(features.shape, device="meta").stride()
        flat = torch.as_strided(features, features.shape, fresh, features.storage_offset())
        return super().forward(flat.nan_to_num())


class InPlace(PixelShuffleMlp):
    """Scales the encoder's features, which a cache may hold."""

    def forward(self, features: Tensor) -> Tensor:
        """Scales in place."""
        return super().forward(features.mul_(0.5))


class Coarse(PixelShuffleMlp):
    """Rounds bfloat16 features to quarters."""

    def forward(self, features: Tensor) -> Tensor:
        """Rounds."""
        out = super().forward(features)
        return (4 * out).round() / 4 if out.dtype == torch.bfloat16 else out


class Frozen(PixelShuffleMlp):
    """Gives the encoder no gradient."""

    def forward(self, features: Tensor) -> Tensor:
        """Detaches, and keeps a gradient of zero."""
        return super().forward(features.detach() + 0 * features)


class Forgets(PixelShuffleMlp):
    """Keeps a scale where no state dict finds it."""

    def __init__(self, spec: Any, grid: tuple[int, int], width: int, parts: Any) -> None:
        super().__init__(spec, grid, width, parts)
        self.scale = 1.0 + torch.rand(())

    def forward(self, features: Tensor) -> Tensor:
        """Scales."""
        return super().forward(features) * self.scale


class NotDrawn(PooledLinear):
    """Has a weight that nothing fills."""

    def __init__(self, spec: Any, grid: tuple[int, int], width: int, parts: Any) -> None:
        super().__init__(spec, grid, width, parts)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Scales."""
        return super().forward(features) * self.scale


class Peeking(PixelShuffleMlp):
    """Looks at a number on the host."""

    def forward(self, features: Tensor) -> Tensor:
        """Branches on data."""
        out = super().forward(features)
        return out if out.abs().sum().item() > 0 else 0 * out


def _mutant(bug: str, check: str, target: type[nn.Module]) -> Mutant:
    return Mutant(bug, check, Subject("adapters", target.__name__, target))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("a token more", "as-many-as-it-says", OneMore),
    _mutant("float32 for bfloat16", "as-many-as-it-says", WideOutput),
    _mutant("as wide as the encoder", "width-of-the-description", OwnWidth),
    _mutant("mean over the batch", "pieces-are-independent", BatchMean),
    _mutant("number of the piece", "piece-order", ByPlaceInBatch),
    _mutant("corner of each square", "every-place-counts", CornersOnly),
    _mutant("any shape", "wrong-features-are-errors", AnyShape),
    _mutant("rest dropped", "wrong-features-are-errors", DropsTheRest),
    _mutant("another kind of error", "wrong-features-are-errors", OtherErrors),
    _mutant("strides ignored", "strides", Contiguous),
    _mutant("features changed in place", "strides", InPlace),
    _mutant("coarse bfloat16", "bfloat16", Coarse),
    _mutant("features detached", "gradients", Frozen),
    _mutant("scale outside of the state", "weights-load-and-draw", Forgets),
    _mutant("weight not drawn", "weights-load-and-draw", NotDrawn),
    _mutant("branch on data", "exports", Peeking),
    _mutant("branch on data", "compiles", Peeking),
)
