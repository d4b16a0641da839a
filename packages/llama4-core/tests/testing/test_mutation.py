"""Bugs planted by machine into masks, caches and the ledger; failures list the survivors."""

import dataclasses

import pytest

from llama4_core.testing.mutation import Target, score
from llama4_core.testing.mutation_targets import TARGETS


def name(target):
    return target.module.__name__.rpartition(".")[2]


# One file each time; all of them, and the table of the docs, by `nox -s slow`.
@pytest.mark.parametrize(
    "target",
    [
        pytest.param(t, id=name(t), marks=[] if name(t) == "masks" else [pytest.mark.slow])
        for t in TARGETS
    ],
)
def test_found_or_explained(target):
    found = score(target)
    assert found.share >= 0.9, found.explain()
    assert not found.unexplained, found.explain()
    assert not found.outdated, found.explain()


def test_a_check_that_always_fails_finds_nothing():
    masks = next(target for target in TARGETS if name(target) == "masks")

    def broken():
        check, subject = masks.hunts()[0]

        def fails(subject, case):
            raise ValueError("always")

        return [(dataclasses.replace(check, body=fails), subject)]

    with pytest.raises(AssertionError, match="fails without a bug"):
        score(Target(masks.module, broken))
