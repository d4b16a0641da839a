"""Bugs planted by machine into masks, caches and the ledger; failures list the survivors."""

import pytest
from hypothesis import strategies as st

from llama4_core.contexts import caches, ledger
from llama4_core.protocols import masks
from llama4_core.protocols.masks import Causal, Chunked, Everything, Place, SameDocument
from llama4_core.testing import mutation
from llama4_core.testing.check import check
from llama4_core.testing.registry import checks_of, make_subject


def places():
    return st.builds(Place, st.integers(0, 9), st.integers(0, 2))


@check(
    why="the definition that everything else is compared with",
    cases=lambda subject: st.tuples(places(), places(), st.integers(1, 4)),
)
def masks_by_hand(subject, case):
    """Masks without a variant of their own equal their definitions."""
    query, key, size = case
    same = query.document == key.document
    past = key.position <= query.position
    chunk = query.position // size == key.position // size
    assert Everything().visible(query, key)
    assert SameDocument().visible(query, key) == same
    assert (Causal() & SameDocument() & Chunked(size)).visible(query, key) == (
        same and past and chunk
    )
    assert Everything().horizon(query.position) == SameDocument().horizon(query.position) == 0
    assert Everything() & Causal() == Causal() == Causal() & Causal()
    assert Everything() & Everything() == Everything()


def hunts(socket, *names):
    return [
        (each, make_subject(socket, name))
        for name in names
        for each in checks_of(socket)
        if each.examples is None
    ]


def score(module, found, leave=()):
    places = mutation.sites(module, leave=leave)
    survivors = [site for site in places if not mutation.caught(site, found, examples=25)]
    listed = "\n".join(f"{s.function} line {s.line}: {s.change}" for s in survivors)
    caught = len(places) - len(survivors)
    return caught / len(places), f"{caught} of {len(places)} caught; survivors:\n{listed}"


def test_masks():
    variants = hunts("attention_variants", "irope-chunked", "sliding-window")
    found = [(masks_by_hand, variants[0][1])]
    found += [(each, subject) for each, subject in variants if each.name == "mask-law"]
    # Messages of refused sizes are tested with the masks themselves.
    share, report = score(masks, found, leave=("_positive",))
    # `both` sorts a conjunction's masks: one or two parts at its edges are equivalent.
    assert share >= 0.9, report


def test_caches():
    share, report = score(caches, hunts("caches", "full"), leave=("HeadMajorCache.__init__",))
    assert share == 1.0, report


@pytest.mark.slow
def test_ledger():
    # How much room is added is policy: those sites change speed and slack, not results.
    share, report = score(ledger, hunts("caches", "bounded"), leave=("Ledger._grown",))
    assert share >= 0.7, report
