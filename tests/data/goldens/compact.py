"""Folds a listing ``key -> shape`` by layer number, and unfolds it again.

``python compact.py LISTING.json FOLDED.json`` wrote the two files beside this script from listings
of the keys that transformers gives the full-size models on the meta device.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

LAYER = re.compile(r"\.layers\.(\d+)\.")


def fold(listing: dict[str, list[int]]) -> dict[str, list[object]]:
    """``{pattern: [shape, [layers]]}``, the layer number written as ``*``."""
    folded: dict[str, list[object]] = {}
    for key, shape in listing.items():
        found = LAYER.search(key)
        entry = folded.setdefault(LAYER.sub(".layers.*.", key), [shape, []])
        if entry[0] != shape:
            raise ValueError(f"{key} has shape {shape}, other layers {entry[0]}")
        if found:
            entry[1].append(int(found[1]))  # type: ignore[attr-defined]
    return folded


def unfold(folded: dict[str, list[object]]) -> dict[str, tuple[int, ...]]:
    """The inverse of :func:`fold`, with tuples for shapes."""
    return {
        pattern.replace("*", str(layer)): tuple(shape)  # type: ignore[arg-type]
        for pattern, (shape, layers) in folded.items()
        for layer in (layers or [None])  # type: ignore[union-attr]
    }


if __name__ == "__main__":
    lines = [
        f"{json.dumps(pattern)}: {json.dumps(entry)}"
        for pattern, entry in fold(json.loads(Path(sys.argv[1]).read_text())).items()
    ]
    Path(sys.argv[2]).write_text("{\n" + ",\n".join(lines) + "\n}\n")
