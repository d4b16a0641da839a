"""The kit's own test: every check catches the bugs that were planted for it."""

import importlib

import pytest

from llama4_core.testing.check import FAILED

SOCKETS = ("routers", "expert_backends", "feed_forwards")
MUTANTS = [
    mutant
    for socket in SOCKETS
    for mutant in importlib.import_module(f"llama4_moe.testing.mutants_{socket}").MUTANTS
]


@pytest.mark.parametrize(
    "mutant",
    [
        # Starts two processes, some ten seconds each time.
        pytest.param(m, marks=[pytest.mark.slow] if m.check == "data-parallel" else [])
        for m in MUTANTS
    ],
    ids=lambda m: f"{m.subject.socket}:{m.check}:{m.bug.replace(' ', '-')}",
)
def test_caught(mutant):
    # Always 25 examples: a mutant that only a hundred find is not caught in practice.
    outcome = mutant.hunt(examples=25)
    assert outcome.status == FAILED, f"{mutant.bug} survives {mutant.check}"


@pytest.mark.parametrize("socket", SOCKETS)
def test_every_check_has_a_mutant(socket):
    hunted = {mutant.check for mutant in MUTANTS if mutant.subject.socket == socket}
    published = importlib.import_module(f"llama4_moe.testing.{socket}").CHECKS
    assert {check.name for check in published} == hunted
