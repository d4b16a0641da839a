"""Results by Python's own arithmetic."""

import operator
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import DataError
from llama4_train.worlds import world
from llama4_train.worlds.arithmetic import Arithmetic

APPLY = {"+": operator.add, "-": operator.sub, "x": operator.mul}
PROBLEM = re.compile(r"(\d+) ([+x-]) (\d+) =")


def problems(sample):
    for question in sample.questions:
        one, operation, other = PROBLEM.fullmatch(question.prompt[0].text[:-1]).groups()
        yield question, int(one), operation, int(other)


@given(
    index=st.integers(0, 10**9),
    split=st.sampled_from(["train", "held-out"]),
    low=st.integers(1, 4),
    more=st.integers(0, 3),
)
def test_results_are_right_and_operands_have_the_digits_that_were_asked_for(
    index, split, low, more
):
    sample = Arithmetic(split=split, digits=(low, low + more)).sample(index)
    assert len(sample.questions) == 6
    for question, one, operation, other in problems(sample):
        right = APPLY[operation](one, other)
        assert question.answer == str(right)
        digits = max(len(str(one)), len(str(other)))
        assert question.kind == f"arithmetic-{digits}"
        assert low <= digits <= low + more
        assert right in question.choices
        assert question.accept(f" {right}\n")
        assert not question.accept(str(right + 1))


def test_held_out_problems_never_occur_in_training_in_any_order():
    def asked(split):
        found = set()
        for index in range(1500):
            sample = Arithmetic(split=split, digits=(1, 2)).sample(index)
            for question, one, operation, other in problems(sample):
                if question.kind != "arithmetic-1":
                    if operation != "-":
                        one, other = sorted((one, other))
                    found.add((one, operation, other))
        return found

    train, held = asked("train"), asked("held-out")
    assert len(train) > 3000
    assert len(held) > 500
    assert not train & held


def test_facts_of_one_digit_are_in_both_splits():
    for split in ("train", "held-out"):
        facts = {
            rest
            for index in range(600)
            for _, *rest in problems(Arithmetic(split=split, digits=(1, 1)).sample(index))
            for rest in [tuple(rest)]
        }
        assert len(facts) == 300


def test_operations_can_be_chosen():
    sample = Arithmetic(operations=["x"], questions=20).sample(0)
    assert {operation for _, _, operation, _ in problems(sample)} == {"x"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"digits": (0, 2)}, "digits of arithmetic"),
        ({"digits": 2}, "two whole numbers"),
        ({"operations": ["*"]}, "an operation of arithmetic is '\\*'"),
        ({"held_out": 1}, "held_out of arithmetic is 1"),
        ({"questions": 0}, "questions of arithmetic is 0"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(DataError, match=words):
        world("arithmetic", **settings)
