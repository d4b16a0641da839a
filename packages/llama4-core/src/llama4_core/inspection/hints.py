"""What a difference at a slot usually means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from llama4_core.inspection.tolerances import deviation, tolerance


@dataclass(frozen=True)
class Place:
    """A slot where two models part, and what lies around it.

    Attributes:
        part: of the layer, such as "attention.mixed", or of the model.
        reference, subject: the layer's values by part. The subject's were all computed from the
            reference's inputs.
        positions: ``[N]``.
        dtype: the coarser of both.
    """

    part: str
    reference: Mapping[str, Tensor]
    subject: Mapping[str, Tensor]
    positions: Tensor
    dtype: str

    def beyond(self, part: str) -> Tensor:
        """``[N]``: tokens that part at ``part``; all False where it is not on both sides."""
        if part not in self.reference or part not in self.subject:
            return torch.zeros_like(self.positions, dtype=torch.bool)
        off = deviation(self.reference[part], self.subject[part])
        return ~(off <= tolerance(f"layers.0.{part}", self.dtype, self.positions))


def hint(place: Place) -> str:
    """One sentence about the likely cause."""
    a, b = place.reference[place.part], place.subject[place.part]
    if not bool(torch.isfinite(b.double()).all()) and bool(torch.isfinite(a.double()).all()):
        return "the second has values that are not finite: overflow, or memory never filled"
    last = place.part.rpartition(".")[2]
    if last in ("q", "k") and ".variant." in place.part:
        return _encoding(place)
    if last.endswith("norm"):
        return _norm(a, b)
    if last == "mixed":
        return _mixed(place)
    if last == "weights":
        return _gates(place)
    if last == "experts" and place.part.endswith("router.experts"):
        return "equal logits, other experts: the rule of selection (top-k, bias, capacity)"
    if place.part == "feed_forward.experts":
        return _experts(place)
    return {
        "embedding": "other embedding rows: weights, or their order",
        "logits": _weights(a, b, "the router's weights" if "router" in place.part else "the head"),
        "shared_expert": "the shared expert: weights, activation, or gate and up swapped",
        "feed_forward": "the feed-forward: weights, activation, gate and up swapped, or how routed "
        "and shared part are joined",
        "": "the residual sum of the block",
    }.get(last, _weights(a, b, "the projection's weights"))


def _norm(a: Tensor, b: Tensor) -> str:
    ratio = (a.double() * b.double()).sum(-1) / a.double().square().sum(-1)
    rest = deviation(a, b.double() / ratio[:, None])
    if bool((rest <= deviation(a, b) / 4).all()):
        return (
            f"each token is scaled by one factor ({float(ratio.min()):.7f} to "
            f"{float(ratio.max()):.7f}), nothing else: the norm's eps"
        )
    return "the norm's weight, or the order of cast and weight"


def _weights(a: Tensor, b: Tensor, what: str) -> str:
    left, right = a.double().flatten(1).sort(-1).values, b.double().flatten(1).sort(-1).values
    if float(deviation(left, right).max()) < 1e-5:
        return f"{what}: the same numbers in another order (layout of rows or heads)"
    return f"{what}: other values, another layout, or another arithmetic (check dtype and scale)"


def _encoding(place: Place) -> str:
    """What happened to q and k between projection and attention."""
    q, k = place.beyond("attention.variant.q"), place.beyond("attention.variant.k")
    name = "attention.variant.q" if bool(q.any()) else "attention.variant.k"
    a, b = place.reference[name].double(), place.subject[name].double()
    plain = place.reference.get(f"attention.{name[-1]}_proj")
    # bfloat16's half steps already bend directions by 2e-3
    near = 1e-4 if place.dtype == "float32" else 2e-2
    if _bend(a, b) < near:
        ratio = (b.norm(dim=-1) / a.norm(dim=-1).clamp(min=1e-30)).flatten(1)
        even = bool(((ratio.amax(1) - ratio.amin(1)) <= near * ratio.amax(1)).all())
        if even and not bool(k.any()):
            start = int(place.positions[q].min())
            return (
                f"q is scaled by a factor of its position, first at position {start}, and k is "
                "equal: the temperature (on or off, its floor, its count of positions)"
            )
        return "q and k keep their directions but not their lengths: the QK norm, or its eps"
    if plain is not None:
        flat = plain.double().reshape(a.shape)
        turned = [_bend(flat, side) > near for side in (a, b)]
        if turned[0] != turned[1]:
            who = "the first" if turned[0] else "the second"
            return f"only {who} rotates: one layer has RoPE and the other has none (NoPE phase)"
    pairs = [F.normalize(side.unflatten(-1, (-1, 2)).norm(dim=-1), dim=-1) for side in (a, b)]
    if float((pairs[0] - pairs[1]).abs().max()) < near:
        differing = _pairs(a, b, near / 10 if place.dtype == "float32" else near / 2)
        slow = bool(differing.any()) and not bool(differing[0])
        return (
            f"pairs {_listed(differing)} turn at another speed: "
            + ("the RoPE scaling of slow pairs" if slow else "RoPE's base or scaling")
            + ", or positions that start elsewhere"
        )
    return "rotated, but not pair by pair alike: RoPE's layout (interleaved or half-split)"


def _bend(a: Tensor, b: Tensor) -> float:
    """Largest distance of two directions, over tokens and heads."""
    return float((F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).norm(dim=-1).max())


def _pairs(a: Tensor, b: Tensor, rounding: float) -> Tensor:
    """``[K / 2]``: pairs that differ by more than rounding, measured against whole heads."""
    gap = F.normalize(a, dim=-1) - F.normalize(b, dim=-1)
    return gap.unflatten(-1, (-1, 2)).norm(dim=-1).flatten(0, 1).amax(0) > rounding


def _listed(which: Tensor) -> str:
    numbers = which.nonzero().flatten().tolist()
    if not numbers:
        return "(none alone)"
    return f"{numbers[0]} to {numbers[-1]} of {len(which)}"


def _mixed(place: Place) -> str:
    beyond = place.beyond("attention.mixed")
    first = int(place.positions[beyond].min())
    if first == 0:
        return (
            "with equal q, k and v already the first token differs, which sees only itself: a "
            "sink, the heads' grouping or order, or the backend"
        )
    return (
        f"equal q, k and v, and equal before position {first}: the mask (chunk or window size, "
        f"where chunks begin; {first} may be such a border), or the scale of the scores"
    )


def _gates(place: Place) -> str:
    logits = place.reference.get("feed_forward.router.logits")
    ids = place.reference.get("feed_forward.router.experts")
    if logits is None or ids is None:
        return "the routing weights"
    chosen = ids.clamp(min=0)
    rules = {
        "a sigmoid": logits.double().sigmoid().gather(-1, chosen),
        "a softmax over all experts": logits.double().softmax(-1).gather(-1, chosen),
        "a softmax over the chosen experts": logits.double().gather(-1, chosen).softmax(-1),
        "1": torch.ones_like(chosen, dtype=torch.float64),
    }
    same = (ids == place.subject["feed_forward.router.experts"]).all(-1)
    if not bool(same.any()):  # the same experts, but in another order
        return "equal logits and experts, other weights"
    names = []
    for side in (place.reference, place.subject):
        weights = side["feed_forward.router.weights"][same].double()
        fits = [rule for rule, value in rules.items()
                if bool((value[same] - weights).abs().max() < 1e-2)]  # fmt: skip
        names.append(fits[0] if fits else "something else")
    return f"equal logits, other weights: the first takes {names[0]}, the second {names[1]}"


def _experts(place: Place) -> str:
    weights = place.reference.get("feed_forward.router.weights")
    text = (
        "equal tokens and routing: the weight on the experts' output instead of their input, the "
        "order of experts, or of gate and up"
    )
    if weights is None or weights.shape[-1] != 1:
        return text
    # E(s x) and s E(x) agree where s is 1, and part the more the farther it is from 1.
    a, b = (s["feed_forward.experts"] for s in (place.reference, place.subject))
    own = (a.double() - b.double()).norm(dim=-1) / a.double().norm(dim=-1).clamp(min=1e-30)
    away = (1 - weights[:, 0].double()).abs()
    ranks = torch.stack([own.argsort().argsort(), away.argsort().argsort()]).double()
    if own.numel() > 2 and float(torch.corrcoef(ranks)[0, 1]) > 0.7:
        return (
            "the farther a token's weight is from 1, the more the experts differ: the weight is "
            "applied to their output instead of their input"
        )
    return text
