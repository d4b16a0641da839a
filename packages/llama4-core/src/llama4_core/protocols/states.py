"""What a layer keeps between forwards, stated before any tensor exists."""

from __future__ import annotations

from dataclasses import dataclass

from llama4_core.protocols.masks import Chunked, Mask, SlidingWindow, parts_of


@dataclass(frozen=True)
class StateSpec:
    """The memory of one layer for one sequence (one user).

    A softmax layer keeps keys and values: bytes per token, bounded when its mask has a horizon. A
    recurrent mixer keeps a constant state.

    Attributes:
        elements_per_token: numbers kept for each token that may still be seen.
        constant_elements: numbers kept whatever the length.
        mask: decides which tokens may still be seen; None when nothing is kept per token.
        split: what tensor-parallel shards divide: "kv_heads", "heads" or "none".
    """

    elements_per_token: int = 0
    constant_elements: int = 0
    mask: Mask | None = None
    split: str = "none"

    def tokens_kept(self, length: int, *, bounded: bool = True) -> int:
        """Tokens whose entries must be held once ``length`` tokens have been processed.

        The largest number during the growth to ``length``, which is what has to be allocated: a
        chunked layer needs a whole chunk even just after a boundary.
        """
        if self.elements_per_token == 0:
            return 0
        if not bounded or self.mask is None or length == 0:
            return length
        for part in parts_of(self.mask):
            if isinstance(part, Chunked | SlidingWindow):
                length = min(length, part.size)
        return length

    def elements(self, length: int, *, bounded: bool = True) -> int:
        """Numbers held for one sequence of ``length`` tokens."""
        kept = self.tokens_kept(length, bounded=bounded)
        return self.constant_elements + self.elements_per_token * kept
