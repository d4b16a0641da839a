"""Regimes: which callable runs for how many tokens, with or without gradients.

A table is frozen at assembly; ``forward`` picks a row by host integers only, so no plugin machinery
runs inside the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Regime:
    """One row: up to ``max_tokens`` tokens (None: any number), ``grad`` (None: either)."""

    max_tokens: int | None
    grad: bool | None
    name: str
    call: Any

    def holds(self, tokens: int, grad: bool) -> bool:
        """Whether this row covers a forward of ``tokens`` tokens."""
        return (self.max_tokens is None or tokens <= self.max_tokens) and (
            self.grad is None or self.grad == grad
        )


@dataclass(frozen=True)
class RegimeTable:
    """Rows in order; the first that holds runs. The last row holds always."""

    rows: tuple[Regime, ...]

    @classmethod
    def always(cls, call: Any, name: str = "object") -> RegimeTable:
        """A table of one row."""
        return cls((Regime(None, None, name, call),))

    def pick(self, tokens: int, grad: bool) -> Any:
        """The callable for this forward."""
        for row in self.rows[:-1]:
            if row.holds(tokens, grad):
                return row.call
        return self.rows[-1].call
