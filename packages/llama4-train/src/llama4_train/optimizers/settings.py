"""What the settings and parameters of our optimizers have to be."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llama4_train.errors import RecipeError
from llama4_train.optimizers.roles import ROLES
from llama4_train.protocols import Parameter


def check_parameters(parameters: Sequence[Parameter]) -> None:
    """Refuses what no optimizer could train.

    Raises:
        RecipeError: there are no parameters, or one has an unknown role.
    """
    if not parameters:
        raise RecipeError("no parameter is trained; check the globs of model.train")
    for one in parameters:
        if one.role not in ROLES:
            raise RecipeError(
                f"{one.name} has the role {one.role!r}; expected one of {', '.join(ROLES)}"
            )


def at_least_zero(name: str, value: float) -> None:
    """Refuses negative numbers, infinity and NaN.

    Raises:
        RecipeError: ``value`` is one of these.
    """
    if not 0 <= value < math.inf:
        raise RecipeError(f"{name} is {value}; expected a number of at least 0")


def share(name: str, value: float) -> None:
    """Refuses what is no factor of a running mean.

    Raises:
        RecipeError: ``value`` is not at least 0 and below 1.
    """
    if not 0 <= value < 1:
        raise RecipeError(f"{name} is {value}; expected a number of at least 0 and below 1")


def pair(name: str, values: Sequence[float]) -> tuple[float, float]:
    """Two factors of running means.

    Raises:
        RecipeError: there are not two, or one is not at least 0 and below 1.
    """
    if len(values) != 2:
        raise RecipeError(f"{name} has {len(values)} numbers; expected two, such as [0.9, 0.95]")
    for value in values:
        share(name, value)
    return values[0], values[1]
