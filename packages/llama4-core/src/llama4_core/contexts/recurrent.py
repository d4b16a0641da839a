"""Recurrences over ragged batches, and their state between forwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from llama4_core.protocols.views import Scan


def grouped_scan(
    inputs: Mapping[str, Tensor],
    scan: Scan,
    lengths: Sequence[int],
    states: Sequence[Tensor | None] | None,
) -> tuple[Tensor, list[Tensor | None]]:
    """Runs ``scan`` over documents of different lengths, those of equal length at once.

    Args:
        inputs: ``{name: [N, ...]}``, documents back to back.
        scan: see :data:`~llama4_core.protocols.views.Scan`.
        lengths: of the documents; 0 is allowed.
        states: per document ``[...]`` or None for an empty one; None for all empty.

    Returns:
        Outputs ``[N, ...]``, and each document's state afterwards (unchanged for length 0).
    """
    starts = [sum(lengths[:row]) for row in range(len(lengths))]
    after: list[Tensor | None] = list(states) if states is not None else [None] * len(lengths)
    groups: dict[tuple[int, bool], list[int]] = {}
    for row, length in enumerate(lengths):
        if length:
            groups.setdefault((length, after[row] is None), []).append(row)
    pieces: list[Tensor | None] = [None] * len(lengths)
    for (length, empty), rows in groups.items():
        batch = {
            name: torch.stack([value[starts[row] : starts[row] + length] for row in rows])
            for name, value in inputs.items()
        }
        before = None if empty else torch.stack([_present(after[row]) for row in rows])
        outputs, state = scan(before, batch)
        for place, row in enumerate(rows):
            pieces[row] = outputs[place]
            after[row] = state[place]
    return torch.cat([piece for piece in pieces if piece is not None]), after


def _present(state: Tensor | None) -> Tensor:
    if state is None:
        raise RuntimeError("a row without a state was grouped with rows that have one")
    return state


class RecurrentState:
    """The state of one recurrent layer: committed, at the tip, and what lies between.

    The inputs of provisional tokens are kept until commit, so that any prefix of them can be
    folded into the committed state exactly as if the rest had never been seen.
    """

    def __init__(self, rows: int) -> None:
        self.committed: list[Tensor | None] = [None] * rows
        self.tip: list[Tensor | None] = [None] * rows
        self._pending: list[tuple[tuple[int, ...], Mapping[str, Tensor]]] = []
        self._scan: Scan | None = None

    def extend(self, inputs: Mapping[str, Tensor], scan: Scan, lengths: tuple[int, ...]) -> Tensor:
        """Advances the tip over provisional tokens."""
        outputs, self.tip = grouped_scan(inputs, scan, lengths, self.tip)
        self._pending.append((lengths, inputs))
        self._scan = scan
        return outputs

    def commit(self, kept: Sequence[int]) -> None:
        """Keeps the first ``kept[row]`` provisional tokens of each row."""
        for row, count in enumerate(kept):
            provided = sum(lengths[row] for lengths, _ in self._pending)
            if count == provided:
                self.committed[row] = self.tip[row]
            elif count:
                self.committed[row] = self._replay(row, count)
        self.tip = list(self.committed)
        self._pending = []

    def _replay(self, row: int, count: int) -> Tensor | None:
        state, left = self.committed[row], count
        for lengths, inputs in self._pending:
            taken = min(left, lengths[row])
            if taken and self._scan is not None:
                first = sum(lengths[:row])
                piece = {name: value[first : first + taken] for name, value in inputs.items()}
                _, states = grouped_scan(piece, self._scan, [taken], [state])
                state, left = states[0], left - taken
        return state

    @property
    def nbytes(self) -> int:
        """Bytes of committed state."""
        return sum(state.nbytes for state in self.committed if state is not None)
