"""The kit of encoders and adapters: ours pass it, and every check catches its planted bugs."""

import importlib

import pytest

from llama4_core.testing.check import FAILED, run
from llama4_core.testing.registry import checks_for, subjects
from llama4_core.testing.tests import report

SOCKETS = ("encoders", "adapters")
OURS = [
    subject
    for subject in subjects()
    if subject.distribution == "llama4-vision" and subject.socket in SOCKETS
]
CASES = [(subject, check) for subject in OURS for check in checks_for(subject)]
MUTANTS = [
    mutant
    for socket in SOCKETS
    for mutant in importlib.import_module(f"llama4_vision.testing.mutants_{socket}").MUTANTS
]


@pytest.mark.parametrize(
    ("subject", "check"), CASES, ids=lambda value: getattr(value, "name", None)
)
def test_passes(subject, check):
    report(run(check, subject))


@pytest.mark.parametrize(
    "mutant", MUTANTS, ids=lambda m: f"{m.subject.socket}:{m.check}:{m.bug.replace(' ', '-')}"
)
def test_caught(mutant):
    # Always 25 examples: a mutant that only a hundred find is not caught in practice.
    outcome = mutant.hunt(examples=25)
    assert outcome.status == FAILED, f"{mutant.bug} survives {mutant.check}"


@pytest.mark.parametrize("socket", SOCKETS)
def test_every_check_has_a_mutant(socket):
    hunted = {mutant.check for mutant in MUTANTS if mutant.subject.socket == socket}
    published = importlib.import_module(f"llama4_vision.testing.{socket}").CHECKS
    assert {check.name for check in published} == hunted


def test_all_parts_are_checked():
    assert {(subject.socket, subject.name) for subject in OURS} == {
        ("encoders", "llama4"),
        ("encoders", "siglip"),
        ("adapters", "pixel-shuffle-mlp"),
        ("adapters", "pooled-linear"),
    }
