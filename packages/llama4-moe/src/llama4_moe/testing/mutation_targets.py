"""Where bugs are planted by machine in this package, and which checks have to find them."""

from __future__ import annotations

from llama4_core.testing.mutation import Target
from llama4_core.testing.mutation_targets import hunts
from llama4_moe.routers import linear, selection, sigmoid, softmax

_DRAWING = {"LinearRouter.reset_parameters": "how far first weights spread; tested by itself"}

TARGETS: tuple[Target, ...] = (
    Target(linear, hunts("routers", "sigmoid-top-k", "softmax-top-k-renormalised"), _DRAWING),
    Target(
        selection,
        hunts("routers", "sigmoid-top-k"),
        survivors={"if count > _ROUNDS: | Gt -> GtE": "both ways give the same ids; one is faster"},
    ),
    Target(sigmoid, hunts("routers", "sigmoid-top-k-balanced", "sigmoid-top-k")),
    Target(softmax, hunts("routers", "softmax-top-k")),
)
