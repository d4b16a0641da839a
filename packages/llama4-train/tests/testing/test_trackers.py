"""Our trackers pass the kit, and the kit catches the bugs that were planted for it."""

import pytest

from llama4_core.testing.check import FAILED, run
from llama4_core.testing.registry import checks_for, subjects
from llama4_core.testing.tests import report
from llama4_train.testing.mutants_trackers import MUTANTS
from llama4_train.testing.trackers import CHECKS

OURS = [
    subject
    for subject in subjects()
    if subject.distribution == "llama4-train" and subject.socket == "trackers"
]
CASES = [(subject, check) for subject in OURS for check in checks_for(subject)]


@pytest.mark.parametrize(
    ("subject", "check"), CASES, ids=lambda value: getattr(value, "name", None)
)
def test_passes(subject, check):
    report(run(check, subject))


def test_there_are_these_trackers():
    names = {subject.name for subject, _ in CASES}
    assert names == {"jsonl", "progress", "tensorboard", "wandb", "carbon"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.check}:{m.bug.replace(' ', '-')}")
def test_caught(mutant):
    # Always 25 examples: a mutant that only a hundred find is not caught in practice.
    outcome = mutant.hunt(examples=25)
    assert outcome.status == FAILED, f"{mutant.bug} survives {mutant.check}"


def test_every_check_has_a_mutant():
    assert {check.name for check in CHECKS} == {mutant.check for mutant in MUTANTS}
