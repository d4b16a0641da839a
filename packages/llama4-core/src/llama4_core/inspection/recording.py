"""The activations of a whole run, kept to compare another model with: today's or yesterday's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama4_core.checkpoints.safetensors_file import map_tensors, read_header, write_file
from llama4_core.errors import CheckpointError, ContextError
from llama4_core.inspection.capture import activations
from llama4_core.inspection.slots import comparable, split
from llama4_core.model.rotary import frequencies
from llama4_core.model.transformer import Transformer
from llama4_core.model.variants import Rotary

FORMAT = "llama4-recording-1"


@dataclass(frozen=True)
class Recording:
    """What every slot of a model gave for some tokens.

    Attributes:
        name: of the model, for people.
        dtype: that it ran in.
        tokens: ``[B, T]`` int64; each row a document.
        values: slot -> ``[B * T, ...]``, rows back to back. Rotated q and k are turned as if
            positions counted from the start of the document, whatever the model does.
    """

    name: str
    dtype: str
    tokens: Tensor
    values: Mapping[str, Tensor] = field(repr=False)

    @property
    def positions(self) -> Tensor:
        """``[B * T]`` position of each token in its document."""
        rows, length = self.tokens.shape
        return torch.arange(length).repeat(rows)

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file.

        Raises:
            CheckpointError: it cannot be written.
        """
        tensors = {"tokens": self.tokens, **self.values}
        facts = {"format": FORMAT, "name": self.name, "dtype": self.dtype}
        write_file(Path(path), tensors, facts)

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Reads what :meth:`save` wrote; the values are mapped, not copied.

        Raises:
            CheckpointError: the file is damaged, or not a recording.
        """
        header = read_header(Path(path))
        facts = header.metadata
        if facts.get("format") != FORMAT or not {"name", "dtype"} <= facts.keys():
            raise CheckpointError(
                f"{path}: has format {facts.get('format')!r}; expected a recording "
                f"({FORMAT!r}), as `llama4 bisect MODEL --save FILE` writes it"
            )
        values = map_tensors(header)
        tokens = values.pop("tokens", None)
        if tokens is None or tokens.dim() != 2 or tokens.dtype != torch.int64:
            raise CheckpointError(f"{path}: has no tokens [B, T] of int64; record it again")
        wrong = [slot for slot, v in values.items() if v.shape[:1] != (tokens.numel(),)]
        if wrong or not comparable(values):
            raise CheckpointError(
                f"{path}: {wrong[0] if wrong else 'nothing'} fits its {tokens.numel()} tokens; "
                "record it again"
            )
        return cls(facts["name"], facts["dtype"], tokens, values)


def record(model: Transformer, tokens: Any, name: str = "") -> Recording:
    """Runs ``model`` on ``tokens [T]`` or ``[B, T]`` and keeps every slot."""
    rows = as_rows(tokens)
    paths = comparable(activations(model))
    with torch.no_grad():
        _, values = model.logits(rows, capture=paths)
    placed = Recording(name or model.spec.name, dtype_name(model), rows, {})
    kept = {
        path: from_document_start(model, path, values[path].detach().cpu(), placed.positions)
        for path in paths
        if path in values
    }
    return Recording(placed.name, placed.dtype, rows, kept)


def as_rows(tokens: Any) -> Tensor:
    """``[B, T]`` int64 on the CPU.

    Raises:
        ContextError: another shape, or no tokens.
    """
    ids = torch.as_tensor(tokens)
    if ids.dim() not in (1, 2) or ids.numel() == 0 or ids.is_floating_point():
        raise ContextError(
            f"tokens have shape {list(ids.shape)} and dtype {ids.dtype}; expected whole numbers of "
            "shape [T] or [B, T], at least one"
        )
    return ids.long().cpu().reshape(-1, ids.shape[-1])


def dtype_name(model: Transformer) -> str:
    """For example "bfloat16"."""
    return str(model.dtype).removeprefix("torch.")


def from_document_start(model: Transformer, path: str, values: Tensor, positions: Tensor) -> Tensor:
    """Rotated q or k, turned to positions that count from the start of the document.

    A chunked layer may count from the start of each chunk instead: all its queries and keys are
    then turned by one angle per chunk, which no score shows. Other values are returned as they are.
    """
    return _turned(model, path, values, positions, 1)


def to_own_start(model: Transformer, path: str, values: Tensor, positions: Tensor) -> Tensor:
    """The inverse of :func:`from_document_start`."""
    return _turned(model, path, values, positions, -1)


def _turned(
    model: Transformer, path: str, values: Tensor, positions: Tensor, direction: int
) -> Tensor:
    layer, part = split(path)
    if layer is None or not part.startswith("attention.variant."):
        return values
    variant = model.get_submodule(path.rpartition(".")[0])
    rotary = getattr(variant, "rotary", None)
    if not isinstance(rotary, Rotary) or rotary.modulo is None:
        return values
    starts = positions - positions % rotary.modulo
    turn = torch.tensor(frequencies(rotary.spec, rotary.head_dim), dtype=torch.float64)
    angles = direction * starts.double()[:, None] * turn
    # In float64, and kept in float32 at least, so that there and back changes no bfloat16 value.
    pairs = torch.view_as_complex(values.double().unflatten(-1, (-1, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    kept = torch.promote_types(values.dtype, torch.float32)
    return torch.view_as_real(turned).flatten(-2).to(kept)
