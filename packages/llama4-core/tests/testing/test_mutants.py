"""The kit's own test: every check catches the bugs that were planted for it."""

import importlib

import pytest

from llama4_core.testing.check import FAILED
from llama4_core.testing.registry import checks_of

SOCKETS = (
    *("attention_backends", "attention_variants", "mixers", "caches", "models"),
    *("chat_formats", "tool_parsers", "feed_forwards", "checkpoint_formats"),
    *("tokenizers", "samplers", "modalities"),
)
MUTANTS = [
    mutant
    for socket in SOCKETS
    for mutant in importlib.import_module(f"llama4_core.testing.mutants_{socket}").MUTANTS
]


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
    assert {check.name for check in checks_of(socket)} == hunted
