"""The slots that two models are compared at, in the order of the data."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Of one layer, in the order in which they are computed; "" is the block's own output. Together
# they cut every way through the block: with all of them fed from one model, each slot of the
# other depends on nothing but its own part.
PARTS = (
    "attention_norm",
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.variant.q",
    "attention.variant.k",
    "attention.mixed",
    "attention",
    "feed_forward_norm",
    "feed_forward.router.logits",
    "feed_forward.router.experts",
    "feed_forward.router.weights",
    "feed_forward.experts",
    "feed_forward.shared_expert",
    "feed_forward",
    "",
)
BEFORE = ("embedding",)
AFTER = ("norm", "logits")

_LAYER = re.compile(r"layers\.(\d+)(?:\.(.+))?\Z")


def split(path: str) -> tuple[int | None, str]:
    """Layer (None outside of the layers) and part of a slot."""
    found = _LAYER.match(path)
    return (int(found[1]), found[2] or "") if found else (None, path)


def comparable(paths: Iterable[str]) -> list[str]:
    """Those of ``paths`` that are slots of a comparison, in the order of the data."""
    order = {}
    for path in paths:
        layer, part = split(path)
        if layer is not None and part in PARTS:
            order[path] = (1, layer, PARTS.index(part))
        elif path in BEFORE:
            order[path] = (0, 0, BEFORE.index(path))
        elif path in AFTER:
            order[path] = (2, 0, AFTER.index(path))
    return sorted(order, key=order.__getitem__)
