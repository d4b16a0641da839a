"""How many cases are drawn, and how far results may differ."""

from __future__ import annotations

import os

from hypothesis import settings

from llama4_core.errors import ComponentError

EXAMPLES = 25
"""Cases per check, unless ``LLAMA4_KIT_EXAMPLES`` or a hypothesis profile of your own says else."""

TOLERANCES = {
    # Sums of up to a few hundred float32 products in another order: about 100 roundings of 6e-8
    # relative to the largest term, and an exponential that multiplies the error by its argument.
    "float32": 2e-5,
    # Probabilities are rounded to 8 bits (4e-3) before they are summed, and so is the result.
    "bfloat16": 2e-2,
    # The same with 11 bits (5e-4).
    "float16": 3e-3,
    "float64": 1e-10,
}
"""Largest error per dtype, relative to the largest number of the expected tensor (at least 1)."""

GRADIENT = 10
"""Gradients may differ by so many times a tolerance: they sum differences of products."""


BUDGETS = {
    # A compiled case, and many plans per case.
    "attention_backends": 30.0,
    "feed_forwards": 25.0,
    "expert_backends": 25.0,
}
"""Seconds that all checks of one component may take with 25 cases each, on one free core."""

BUDGET = 15.0
"""The same for every other socket."""


def budget(socket: str) -> float:
    """Seconds that a component of the socket may take; printed beside what it took."""
    return BUDGETS.get(socket, BUDGET) * max(1.0, examples() / EXAMPLES)


def examples() -> int:
    """Cases per check.

    Raises:
        ComponentError: ``LLAMA4_KIT_EXAMPLES`` is not a whole number of at least 1.
    """
    text = os.environ.get("LLAMA4_KIT_EXAMPLES")
    if text is not None:
        if not text.isdecimal() or int(text) < 1:
            raise ComponentError(
                f"LLAMA4_KIT_EXAMPLES is {text!r}; expected a whole number of at least 1"
            )
        return int(text)
    if settings.get_current_profile_name() == "default":
        return EXAMPLES
    return _profile().max_examples


def derandomized() -> bool:
    """Whether the same cases are drawn each time: hypothesis' profile says so, as in CI."""
    return bool(_profile().derandomize)


def _profile() -> settings:
    return settings.get_profile(settings.get_current_profile_name())
