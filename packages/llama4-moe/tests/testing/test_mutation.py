"""Bugs planted by machine into the routers; the score is in the failure message."""

import pytest

from llama4_core.testing import mutation
from llama4_core.testing.registry import checks_of, subjects
from llama4_moe.routers import linear, selection, sigmoid

SUBJECTS = {s.name: s for s in subjects() if s.distribution == "llama4-moe"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"),
    [(linear, "sigmoid-top-k"), (selection, "sigmoid-top-k"), (sigmoid, "sigmoid-top-k-balanced")],
)
def test_routers(module, name):
    found = [(check, SUBJECTS[name]) for check in checks_of("routers")]
    sites = mutation.sites(module, leave=("LinearRouter.reset_parameters",))
    survivors = [site for site in sites if not mutation.caught(site, found, examples=25)]
    listed = "\n".join(f"{s.function} line {s.line}: {s.change}" for s in survivors)
    caught = len(sites) - len(survivors)
    assert caught >= 0.7 * len(sites), f"{caught} of {len(sites)} caught; survivors:\n{listed}"
