"""Bugs of encoders, planted into Llama 4's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llama4_core.errors import ModalityError
from llama4_core.protocols.encoders import Encoded
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_vision.encoders.llama4 import Llama4Encoder
from llama4_vision.support import square_images


class KeepsClass(Llama4Encoder):
    """Its features end with a token that is no place."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Repeats the last place."""
        features, hidden = super().forward(inputs, out_layers)
        return Encoded(torch.cat([features, features[:, -1:]], dim=1), hidden)


class WideFeatures(Llama4Encoder):
    """Answers in float32 whatever its weights are."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Widens."""
        features, hidden = super().forward(inputs, out_layers)
        return Encoded(features.float(), hidden)


class Centred(Llama4Encoder):
    """Subtracts what all tiles have in common."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Centres."""
        features, hidden = super().forward(inputs, out_layers)
        return Encoded(features - 0.01 * features.mean(0), hidden)


class Brightness(Llama4Encoder):
    """Stretches pixels to the largest of the batch."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Stretches."""
        return super().forward(inputs / (1 + inputs.abs().amax()), out_layers)


class ByPlaceInBatch(Llama4Encoder):
    """Tells the tiles apart by their number."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Adds the number."""
        features, hidden = super().forward(inputs, out_layers)
        return Encoded(features + 0.01 * torch.arange(len(features))[:, None, None], hidden)


class Cropped(Llama4Encoder):
    """Does not see the last column of pixels."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Blanks it."""
        return super().forward(F.pad(inputs[..., :-1], (0, 1)), out_layers)


class OneChannel(Llama4Encoder):
    """Sees in grey."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Takes the first channel."""
        return super().forward(inputs[:, :1].expand_as(inputs), out_layers)


class Sorted(Llama4Encoder):
    """Gives layers in the order of the blocks."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Sorts."""
        return super().forward(inputs, sorted(out_layers))


class StopsEarly(Llama4Encoder):
    """Returns the last layer that was asked for as its features."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Skips the last norm."""
        features, hidden = super().forward(inputs, out_layers)
        return Encoded(hidden[-1] if hidden else features, hidden)


class SameLayer(Llama4Encoder):
    """Gives the first block for every layer."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Repeats."""
        features, hidden = super().forward(inputs, (0,) if out_layers else ())
        return Encoded(features, hidden * len(out_layers))


class FromTheEnd(Llama4Encoder):
    """Counts negative layers from the end."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Counts."""
        count = len(self.layers)
        return super().forward(inputs, [index + count * (index < 0) for index in out_layers])


class Lenient(Llama4Encoder):
    """Leaves out layers that do not exist."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Filters."""
        known = [index for index in out_layers if index in range(len(self.layers))]
        return super().forward(inputs, list(dict.fromkeys(known)))


class Resizes(Llama4Encoder):
    """Stretches tiles of any size."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Stretches."""
        if inputs.dim() == 4 and len(inputs) and tuple(inputs.shape[2:]) != self.shape[1:]:
            inputs = F.interpolate(inputs, self.shape[1:])
        return super().forward(inputs, out_layers)


class TakesBytes(Llama4Encoder):
    """Converts whole numbers without scaling them."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Converts."""
        return super().forward(inputs.to(self.patch_embedding.weight.dtype), out_layers)


class NothingForNothing(Llama4Encoder):
    """Gives no features for no tiles."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Returns early."""
        if inputs.dim() == 4 and not len(inputs):
            return Encoded(inputs.new_empty(0, self.grid[0] * self.grid[1], self.width))
        return super().forward(inputs, out_layers)


class OtherErrors(Llama4Encoder):
    """Raises an error of another kind."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Renames the error."""
        try:
            return super().forward(inputs, out_layers)
        except ModalityError as error:
            raise ValueError(str(error)) from error


class Contiguous(Llama4Encoder):
    """Takes it for granted that pixels lie side by side."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Reads with the strides of a fresh tensor."""
        fresh = torch.empty(inputs.shape, device="meta").stride()
        flat = torch.as_strided(inputs, inputs.shape, fresh, inputs.storage_offset())
        return super().forward(flat.nan_to_num(), out_layers)


class InPlace(Llama4Encoder):
    """Clamps the caller's pixels."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Clamps in place."""
        return super().forward(inputs.clamp_(-0.9, 0.9), out_layers)


class Counting(Llama4Encoder):
    """Answers differently each time."""

    calls = 0

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Counts."""
        self.calls += 1
        features, hidden = super().forward(inputs, out_layers)
        return Encoded(features * (1 + 1e-5 * self.calls), hidden)


class Coarse(Llama4Encoder):
    """Rounds bfloat16 features to quarters."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Rounds."""
        features, hidden = super().forward(inputs, out_layers)
        if features.dtype == torch.bfloat16:
            features = (4 * features).round() / 4
        return Encoded(features, hidden)


class Frozen(Llama4Encoder):
    """Gives its inputs no gradient."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Detaches, and keeps a gradient of zero."""
        return super().forward(inputs.detach() + 0 * inputs, out_layers)


class FrozenClass(Llama4Encoder):
    """Its class token is never trained."""

    def __init__(self, spec: Any, parts: Any) -> None:
        super().__init__(spec, parts)
        self.norm_pre.register_forward_hook(
            lambda module, inputs, x: torch.cat([x[:-1], x[-1:].detach()])
        )


class Forgets(Llama4Encoder):
    """Keeps a scale where no state dict finds it."""

    def __init__(self, spec: Any, parts: Any) -> None:
        super().__init__(spec, parts)
        self.scale = 1.0 + torch.rand(())

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Scales."""
        features, hidden = super().forward(inputs, out_layers)
        return Encoded(features * self.scale, hidden)


class HalfDrawn(Llama4Encoder):
    """Does not draw its class token."""

    def reset_parameters(self) -> None:
        """Draws the positions only."""
        nn.init.normal_(self.positional_embedding)


class Peeking(Llama4Encoder):
    """Looks at a pixel on the host."""

    def forward(self, inputs: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Branches on data."""
        features, hidden = super().forward(inputs, out_layers)
        return Encoded(features if features.abs().sum().item() > 0 else 0 * features, hidden)


def _mutant(bug: str, check: str, target: type[nn.Module]) -> Mutant:
    return Mutant(bug, check, Subject("encoders", target.__name__, target, square_images))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("class token kept", "features-on-the-grid", KeepsClass),
    _mutant("float32 for bfloat16", "features-on-the-grid", WideFeatures),
    _mutant("mean over the batch", "tiles-are-independent", Centred),
    _mutant("brightness of the batch", "tiles-are-independent", Brightness),
    _mutant("number of the tile", "tile-order", ByPlaceInBatch),
    _mutant("last column unseen", "every-pixel-counts", Cropped),
    _mutant("one channel for all", "every-pixel-counts", OneChannel),
    _mutant("layers sorted", "out-layers", Sorted),
    _mutant("features of the last layer asked for", "out-layers", StopsEarly),
    _mutant("first block for every layer", "out-layers", SameLayer),
    _mutant("layers from the end", "impossible-layers-are-errors", FromTheEnd),
    _mutant("unknown layers left out", "impossible-layers-are-errors", Lenient),
    _mutant("other sizes stretched", "wrong-tiles-are-errors", Resizes),
    _mutant("whole numbers taken", "wrong-tiles-are-errors", TakesBytes),
    _mutant("no tiles taken", "wrong-tiles-are-errors", NothingForNothing),
    _mutant("another kind of error", "wrong-tiles-are-errors", OtherErrors),
    _mutant("strides ignored", "strides", Contiguous),
    _mutant("pixels changed in place", "strides", InPlace),
    _mutant("state per call", "strides", Counting),
    _mutant("coarse bfloat16", "bfloat16", Coarse),
    _mutant("inputs detached", "gradients", Frozen),
    _mutant("class token detached", "gradients", FrozenClass),
    _mutant("scale outside of the state", "weights-load-and-draw", Forgets),
    _mutant("class token not drawn", "weights-load-and-draw", HalfDrawn),
    _mutant("branch on data", "exports", Peeking),
    _mutant("branch on data", "compiles", Peeking),
)
