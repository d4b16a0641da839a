"""The numbers of a step by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama4_train.trainer.step import Step

Value = float | Sequence[float]

LOAD = "router.load."
"""Before the number of a layer: the share of the step's tokens that each of its experts got."""

VIOLATION = "router.violation."
"""Before the number of a layer: largest share of an expert over the mean share, less 1."""

EVALUATION = "evaluation."
"""Before the name of a task."""


def values_of(step: Step) -> dict[str, Value]:
    """What trackers are told of a step.

    ``loss``, ``learning_rate``, ``gradient_norm``, ``tokens``, ``seconds``, ``flops`` where they
    were counted, the parts of the loss and the figures of health under their own names, the load of
    each layer behind :data:`LOAD`, and the figures of an evaluation behind :data:`EVALUATION`.
    """
    return {
        "loss": step.loss,
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
        "tokens": step.tokens,
        "seconds": step.seconds,
        **({"flops": step.flops} if step.flops else {}),
        **step.parts,
        **{f"{LOAD}{layer}": tuple(shares) for layer, shares in step.loads.items()},
        **{f"{EVALUATION}{name}": value for name, value in step.evaluation.items()},
    }


def loads_of(counts: Sequence[Any]) -> dict[int, tuple[float, ...]]:
    """The shares of a step's visits that each expert got, by layer.

    Args:
        counts: tensors ``[E]`` of visits for each layer; None for dense layers.

    Returns:
        Nothing for layers that no token visited.
    """
    found: dict[int, tuple[float, ...]] = {}
    for layer, count in enumerate(counts):
        visits = [] if count is None else count.tolist()
        total = sum(visits)
        if total:
            found[layer] = tuple(one / total for one in visits)
    return found


def scalars(values: Mapping[str, Value]) -> Iterator[tuple[str, float]]:
    """Names and numbers for trackers without lists: each entry of one is ``name.INDEX``."""
    for name, value in values.items():
        if isinstance(value, Sequence):
            yield from ((f"{name}.{index}", float(one)) for index, one in enumerate(value))
        else:
            yield name, float(value)
