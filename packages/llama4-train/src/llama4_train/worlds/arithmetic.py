"""The world ``arithmetic``: sums, differences and products of whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from llama4_train.worlds.forms import FORMS, WEIGHTINGS, Turn, build
from llama4_train.worlds.sample import Sample
from llama4_train.worlds.streams import (
    Stream,
    check_name,
    check_number,
    check_range,
    check_stream,
    in_split,
    stream,
)
from llama4_train.worlds.targets import Exact

OPERATIONS = ("+", "-", "x")


@dataclass(frozen=True)
class Arithmetic:
    """``12 + 30 =`` and its result. Numbers are not negative, results may be.

    The number of digits of a problem is that of its longer operand; each number of digits is as
    likely. The other operand has from one digit up to as many.

    Attributes:
        seed, split: see :class:`~llama4_train.worlds.sample.World`.
        form: "pack" or "chat".
        digits: fewest and most, 1 to 9.
        operations: of "+", "-" and "x".
        questions: in a document.
        held_out: one problem of so many never occurs in training, and the held-out split asks these
            alone; 0 for none. Problems of one digit are facts to be known by heart: they belong to
            both splits. What only changes the order of a sum or a product is the same problem.
        weighting: see :data:`~llama4_train.worlds.forms.WEIGHTINGS`.

    Raises:
        DataError: a setting is wrong.
    """

    seed: int = 0
    split: str = "train"
    form: str = "pack"
    digits: tuple[int, int] = (1, 3)
    operations: tuple[str, ...] = OPERATIONS
    questions: int = 6
    held_out: int = 10
    weighting: str = "token"

    name: ClassVar[str] = "arithmetic"

    def __post_init__(self) -> None:
        check_stream(self.seed, self.split)
        check_name("form of arithmetic", self.form, FORMS)
        check_name("weighting of arithmetic", self.weighting, WEIGHTINGS)
        digits = check_range("digits of arithmetic", self.digits, 1, 9)
        for operation in self.operations or ("",):
            check_name("an operation of arithmetic", operation, OPERATIONS)
        check_number("questions of arithmetic", self.questions, 1, 1 << 12)
        # 1 would leave nothing to train on; beyond the limit two digits may have nothing held out.
        if self.held_out != 0:
            check_number("held_out of arithmetic", self.held_out, 2, 100)
        object.__setattr__(self, "digits", digits)
        object.__setattr__(self, "operations", tuple(self.operations))

    def sample(self, index: int) -> Sample:
        """See :class:`~llama4_train.worlds.sample.World`."""
        numbers = stream(self.name, self.seed, self.split, index)
        turns = [self.turn(numbers) for _ in range(self.questions)]
        return build(self, turns, self.form, self.weighting)

    def turn(self, numbers: Stream) -> Turn:
        """One problem."""
        digits = numbers.between(*self.digits)
        operation = numbers.pick(self.operations)
        while True:
            one, other = _number(numbers, digits), _number(numbers, numbers.between(1, digits))
            if numbers.flip():
                one, other = other, one
            if digits == 1 or in_split(_key(one, operation, other), self.held_out, self.split):
                break
        result = str(_result(one, operation, other))
        largest = 10**digits - 1
        choices = {
            "+": range(2 * largest + 1),
            "-": range(-largest, largest + 1),
            "x": range(largest * largest + 1),
        }[operation]
        ask = f"{one} {operation} {other} ="
        return Turn(f"arithmetic-{digits}", ask, result, Exact(result), choices)


def _number(numbers: Stream, digits: int) -> int:
    return numbers.between(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1)


def _key(one: int, operation: str, other: int) -> str:
    if operation != "-" and other < one:
        one, other = other, one
    return f"{one}{operation}{other}"


def _result(one: int, operation: str, other: int) -> int:
    if operation == "+":
        return one + other
    return one - other if operation == "-" else one * other
