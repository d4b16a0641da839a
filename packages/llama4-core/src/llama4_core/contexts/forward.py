"""What the contexts of one forward have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llama4_core.errors import ContextError
from llama4_core.protocols.routing import RoutingInfo


class ForwardFacts:
    """Positions, documents and shared tensors of one forward.

    Args:
        starts: position of each document's first token.
        lengths: tokens of each document, back to back in the stream; 0 is allowed.
        device: of the stream.
        training: the model is being trained.
        generator: source of randomness for routers, or None.
        forced: per layer ``[N, K]`` expert ids to use in place of the routers' choices, or None.
    """

    def __init__(
        self,
        starts: Sequence[int],
        lengths: Sequence[int],
        device: torch.device,
        *,
        training: bool = False,
        generator: torch.Generator | None = None,
        forced: Sequence[Tensor | None] | None = None,
    ) -> None:
        positions = [
            torch.arange(start, start + length)
            for start, length in zip(starts, lengths, strict=True)
        ]
        self.count = sum(lengths)
        self.positions = torch.cat(positions).to(device)
        self.documents = torch.repeat_interleave(
            torch.arange(len(lengths)), torch.tensor(list(lengths), dtype=torch.int64)
        ).to(device)
        self.training = training
        self.generator = generator
        self.forced = forced

    def begin(
        self, tokens: Tensor, shared: Mapping[str, Tensor], views: Sequence[LayerFacts]
    ) -> None:
        """Called by the model: the tokens of this forward, and what all layers share.

        Raises:
            ContextError: the number of tokens is not the one that the context was made for, or
                the forced routings are not one per layer.
        """
        if tokens.dim() != 1 or tokens.shape[0] != self.count:
            raise ContextError(
                f"the model got tokens of shape {list(tokens.shape)}; this context was made for "
                f"[{self.count}]: pass the documents back to back in one flat tensor"
            )
        if self.forced is not None and len(self.forced) != len(views):
            raise ContextError(
                f"forced has {len(self.forced)} entries; expected one per layer, {len(views)}: "
                "expert ids [N, K], or None where the router is to choose"
            )
        info = self._info(tokens, None)
        for index, view in enumerate(views):
            forced = self.forced[index] if self.forced is not None else None
            view.shared = shared
            view.info = info if forced is None else self._info(tokens, forced)

    def _info(self, tokens: Tensor, forced: Tensor | None) -> RoutingInfo:
        return RoutingInfo(
            positions=self.positions,
            documents=self.documents,
            tokens=tokens,
            training=self.training,
            generator=self.generator,
            forced=forced,
        )


class LayerFacts:
    """What every layer's view holds; the views of each kind of context add how tokens meet.

    Plain attributes and no layer number: a compiled block then serves all layers.
    """

    shared: Mapping[str, Tensor]
    info: RoutingInfo

    def __init__(self, facts: ForwardFacts) -> None:
        self.positions = facts.positions


def checked_lengths(lengths: Sequence[int], what: str, least: int) -> tuple[int, ...]:
    """``lengths`` as a tuple of ints of at least ``least``.

    Raises:
        ContextError: names the first that is not.
    """
    for index, length in enumerate(lengths):
        if not isinstance(length, int) or isinstance(length, bool) or length < least:
            raise ContextError(
                f"{what} {index} has length {length!r}; expected a whole number of at least {least}"
            )
    return tuple(lengths)
