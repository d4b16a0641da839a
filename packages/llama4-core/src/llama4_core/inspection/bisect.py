"""Where two models part: the first slot whose own part, not its inputs, makes the difference.

One model has been recorded (:mod:`llama4_core.inspection.recording`). The other runs once on the
same tokens, and at every slot its value is noted and then **replaced by the recorded one**: each
part of it computes from exactly the inputs that the other model's part had, routing included, so
neither a small difference that has grown on the way nor a flipped expert hides or feigns a fault.
What still differs by more than the arithmetic of the dtype explains is a fault of that very slot.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from llama4_core.errors import ContextError
from llama4_core.inspection.capture import activations
from llama4_core.inspection.hints import Place, hint
from llama4_core.inspection.recording import (
    Recording,
    dtype_name,
    from_document_start,
    record,
    to_own_start,
)
from llama4_core.inspection.routes import flips_of, same_choice
from llama4_core.inspection.slots import comparable, split
from llama4_core.inspection.tolerances import coarser, deviation, tolerance
from llama4_core.model.transformer import Transformer


@dataclass(frozen=True)
class SlotResult:
    """The comparison of one slot, both sides given the same inputs.

    Attributes:
        slot: path.
        deviation: the largest of all tokens, relative to the size of the token's vector; for
            ``router.experts`` the share of tokens that chose other experts far from any tie.
        tolerance: what the dtype explains, at that token.
        token: the first that is beyond (row, position), or None.
        beyond: number of tokens beyond.
    """

    slot: str
    deviation: float
    tolerance: float
    token: tuple[int, int] | None
    beyond: int


@dataclass(frozen=True)
class BisectReport:
    """What :func:`bisect` found.

    Attributes:
        reference, subject: names and dtypes.
        tokens: shape ``[B, T]`` of what was run.
        slots: every comparison, in the order of the data.
        first: the first slot that parts, or None.
        hint: what such a difference usually means.
        flips: slot of a router -> tokens whose experts differ although the inputs are equal, all of
            them, near ties included.
        free_flips: the same without forcing: how far the two routes differ when each model runs on
            its own.
        free_logits: deviation of the logits without forcing.
        free_argmax: share of tokens whose most probable successor is the same without forcing.
        missing: slots that only one side has, which were not compared.
    """

    reference: str
    subject: str
    tokens: tuple[int, int]
    slots: tuple[SlotResult, ...] = field(repr=False)
    first: SlotResult | None
    hint: str
    flips: Mapping[str, int]
    free_flips: Mapping[str, int]
    free_logits: float
    free_argmax: float
    missing: tuple[str, ...]

    @property
    def parted(self) -> tuple[SlotResult, ...]:
        """All slots that part, in the order of the data."""
        return tuple(result for result in self.slots if result.token is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, None for numbers that are not finite."""
        return {"equal": self.first is None, **_plain(asdict(self))}


def bisect(reference: Recording | Transformer, subject: Transformer, tokens: Any) -> BisectReport:
    """Compares slot by slot, in the order of the data.

    Args:
        reference: a model, or a recording of one.
        subject: the model that is run on the reference's activations.
        tokens: ``[T]`` or ``[B, T]``; not used with a recording, which has its own.

    Raises:
        ContextError: the two do not have the same shape.
    """
    if isinstance(reference, Transformer):
        reference = record(reference, tokens)
    _check_layers(reference, subject)
    positions = reference.positions
    paths = comparable(activations(subject))
    found: dict[str, Tensor] = {}

    def swap(value: Tensor, path: str) -> Tensor | None:
        given = reference.values.get(path)
        found[path] = from_document_start(subject, path, value.detach().cpu(), positions)
        if given is None:
            return None
        if given.shape != value.shape:
            raise ContextError(
                f"{path} has shape {list(value.shape)}; the reference has {list(given.shape)}: "
                "compare two models of one shape"
            )
        return to_own_start(subject, path, given, positions).to(value)

    with torch.no_grad():
        subject.logits(reference.tokens, capture=dict.fromkeys(paths, swap))
    shared = [path for path in comparable(reference.values) if path in found]
    dtype = coarser(reference.dtype, dtype_name(subject))
    results, flips = [], {}
    for path in shared:
        given, own = reference.values[path], found[path]
        if path.endswith("router.experts"):
            logits = reference.values.get(path.replace("experts", "logits"))
            flipped, beyond = flips_of(given, own, logits, tolerance(path, dtype, positions))
            flips[path] = int(flipped.sum())
            off, allowed = beyond.double(), torch.zeros(len(beyond), dtype=torch.float64)
        else:
            if path.endswith("router.weights"):
                given, own = same_choice(reference.values, found, path)
            off, allowed = deviation(given, own), tolerance(path, dtype, positions)
        results.append(_result(path, off, allowed, reference.tokens.shape[1]))
    first = next((result for result in results if result.token is not None), None)
    told = "" if first is None else hint(_place(first, reference, found, dtype))
    return BisectReport(
        reference=f"{reference.name} ({reference.dtype})",
        subject=f"{subject.spec.name} ({dtype_name(subject)})",
        tokens=(reference.tokens.shape[0], reference.tokens.shape[1]),
        slots=tuple(results),
        first=first,
        hint=told,
        flips=flips,
        missing=tuple(sorted(found.keys() ^ reference.values.keys())),
        **_free(reference, subject),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_layers(reference: Recording, subject: Transformer) -> None:
    layers = 1 + max((layer for path in reference.values if (layer := split(path)[0]) is not None),
                     default=-1)  # fmt: skip
    if layers != len(subject.layers):
        raise ContextError(
            f"{subject.spec.name} has {len(subject.layers)} layers, {reference.name} has {layers}; "
            "compare two models of one shape"
        )


def _result(path: str, off: Tensor, allowed: Tensor, length: int) -> SlotResult:
    beyond = ~(off <= allowed)  # a NaN is beyond
    index = int(beyond.nonzero()[0]) if bool(beyond.any()) else None
    worst = int((off / allowed.clamp(min=1e-300)).nan_to_num(torch.inf).argmax())
    return SlotResult(
        slot=path,
        deviation=float(off.mean() if path.endswith("router.experts") else off[worst]),
        tolerance=float(allowed[worst]),
        token=None if index is None else (index // length, index % length),
        beyond=int(beyond.sum()),
    )


def _place(
    first: SlotResult, reference: Recording, found: Mapping[str, Tensor], dtype: str
) -> Place:
    layer, part = split(first.slot)
    prefix = "" if layer is None else f"layers.{layer}."
    return Place(
        part=part,
        reference={path.removeprefix(prefix): v for path, v in reference.values.items()
                   if path.startswith(prefix)},
        subject={path.removeprefix(prefix): v for path, v in found.items()
                 if path.startswith(prefix)},
        positions=reference.positions,
        dtype=dtype,
    )  # fmt: skip


def _free(reference: Recording, subject: Transformer) -> dict[str, Any]:
    """How far the two are apart when nothing is forced."""
    routers = [p for p in comparable(activations(subject)) if p.endswith("router.experts")]
    with torch.no_grad():
        logits, routes = subject.logits(reference.tokens, capture=routers)
    given = reference.values["logits"].double()
    own = logits.cpu().double().flatten(0, -2)
    flips = {
        path: int((given_ids.sort(-1).values != routes[path].cpu().sort(-1).values).any(-1).sum())
        for path in routers
        if path in routes
        and (given_ids := reference.values.get(path)) is not None
        and given_ids.shape == routes[path].shape
    }
    return {
        "free_flips": flips,
        "free_logits": float(deviation(given, own).max()),
        "free_argmax": float((given.argmax(-1) == own.argmax(-1)).double().mean()),
    }
