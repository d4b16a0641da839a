"""Checks of the socket models: shapes by name, and folders with weights by their descriptions."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from llama4_core.errors import ComponentError
from llama4_core.plugins.catalogue import catalogue
from llama4_core.specs.find import spec_from_path
from llama4_core.specs.layers import every
from llama4_core.specs.model import ModelSpec
from llama4_core.testing.check import Check, Refused, Subject, check
from llama4_core.testing.compare import holds


def _spec(subject: Subject) -> ModelSpec:
    found: Any = subject.build()
    return found if isinstance(found, ModelSpec) else spec_from_path(found)


def _once(subject: Subject) -> st.SearchStrategy[None]:
    _spec(subject)
    return st.none()


@check(
    properties=(10, 12),
    why="position-free layers at the wrong places move logits more than any other mistake, and the "
    "model still runs",
    cases=_once,
    examples=1,
)
def layer_pattern(subject: Subject, case: None) -> None:
    """Layers i with (i + 1) divisible by the interval have no position; temperature only there."""
    layers = _spec(subject).layers
    softmax = [layer.attention for layer in layers if layer.attention.mixer == "softmax"]
    free = tuple(i for i, a in enumerate(softmax) if a.variant == "nope-global")
    if free:
        expected = every(free[0] + 1, len(softmax))
        holds(free == expected, f"layers {free} have no position; expected {expected}")
    for index, attention in enumerate(softmax):
        if attention.temperature is not None:
            holds(attention.rope is None, f"layer {index} has a rotation and a temperature")
        if attention.qk_norm:
            holds(attention.rope is not None, f"layer {index} norms q and k without a rotation")


def _installed(subject: Subject) -> st.SearchStrategy[None]:
    """A shape of a package may need parts of another, which need not be installed."""
    known = catalogue()
    for kind in {layer.feed_forward.kind for layer in _spec(subject).layers}:
        try:
            known.find("feed_forwards", kind)
        except ComponentError as error:
            raise Refused(str(error)) from error
    return st.none()


@check(
    why="a shape that cannot be assembled is a name without a model",
    cases=_installed,
    examples=1,
)
def assembles(subject: Subject, case: None) -> None:
    """The description assembles on the meta device, and its text form is itself without vision."""
    from llama4_core.assembly.assemble import assemble

    spec = _spec(subject).text_only()
    model = assemble(spec)
    holds(len(model.layers) == len(spec.layers), "the model has another number of layers")
    holds(all(p.is_meta for p in model.parameters()), "a parameter holds memory")


CHECKS: tuple[Check, ...] = (layer_pattern, assembles)
