"""Where bugs are planted by machine in this package, and which checks have to find them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from llama4_core.contexts import cached, caches, ledger
from llama4_core.protocols import masks
from llama4_core.protocols.masks import (
    Causal,
    Chunked,
    Everything,
    Mask,
    Place,
    SameDocument,
    SlidingWindow,
)
from llama4_core.testing.check import Check, Subject, check
from llama4_core.testing.compare import holds
from llama4_core.testing.ledgers import ledger_by_hand, lengths_by_hand, turns_by_hand
from llama4_core.testing.mutation import Target
from llama4_core.testing.registry import checks_of, make_subject

Hunts = Callable[[], Sequence[tuple[Check, Subject]]]


def _places() -> st.SearchStrategy[Place]:
    return st.builds(Place, st.integers(0, 9), st.integers(0, 2))


@check(
    why="the definition that everything else is compared with",
    cases=lambda subject: st.tuples(_places(), _places(), st.integers(1, 4)),
)
def masks_by_hand(subject: Subject, case: tuple[Place, Place, int]) -> None:
    """Masks equal their definitions; conjunctions have one form; horizons are the lowest key."""
    query, key, size = case
    same = query.document == key.document
    past = key.position <= query.position
    chunk = query.position // size == key.position // size
    recent = key.position > query.position - size
    holds(bool(Everything().visible(query, key)), "Everything hides a key")
    holds(SameDocument().visible(query, key) == same, "SameDocument")
    joined = Causal() & SameDocument() & Chunked(size) & SlidingWindow(size)
    holds(joined.visible(query, key) == (same and past and chunk and recent), "a conjunction")
    for whole in (Everything(), SameDocument(), Causal()):
        holds(whole.horizon(query.position) == 0, f"{whole} has a horizon")
    for part in (Chunked(size), SlidingWindow(size)):
        both: Mask = Causal() & part
        seen = range(query.position + 1)
        visible = [j for j in seen if both.visible(Place(query.position, 0), Place(j, 0))]
        for each in (part.horizon(query.position), both.horizon(query.position)):
            holds(each == min(visible), f"the horizon of {part} is {each}")
    holds(Everything() & Causal() == Causal() == Causal() & Causal(), "repeats stay")
    holds(Everything() & Everything() == Everything(), "everything and everything")
    holds(
        Causal() & Chunked(size) == Chunked(size) & Causal(), "the order of a conjunction matters"
    )


def hunts(socket: str, *names: str) -> Hunts:
    """The checks of a socket on registered components, the quick ones first."""
    return lambda: sorted(
        ((each, make_subject(socket, name)) for name in names for each in checks_of(socket)),
        key=lambda hunt: hunt[0].examples is not None,
    )


def _mask_hunts() -> Sequence[tuple[Check, Subject]]:
    subjects = [
        make_subject("attention_variants", name) for name in ("irope-chunked", "sliding-window")
    ]
    law = [each for each in checks_of("attention_variants") if each.name == "mask-law"]
    return [(masks_by_hand, subjects[0]), *((each, s) for s in subjects for each in law)]


TARGETS: tuple[Target, ...] = (
    Target(masks, _mask_hunts, leave={"_positive": "wording of refused sizes; tested by itself"}),
    Target(caches, hunts("caches", "full", "bounded")),
    Target(
        ledger,
        lambda: [(ledger_by_hand, make_subject("caches", "bounded"))],
        survivors={
            "return max((end - begin for end, begin in zip(ends, self.start, strict=True)), "
            "default=0) | 0 -> 1": "there is always a row: the default is never taken",
        },
        # A case takes a millisecond, and a drop needs several steps to come about.
        examples=200,
    ),
    Target(
        cached,
        lambda: [
            (lengths_by_hand, make_subject("caches", "bounded")),
            (turns_by_hand, make_subject("caches", "bounded")),
            *hunts("caches", "bounded")(),
            *hunts("mixers", "gated-linear")(),
        ],
        survivors={
            "capacity: int = 0, | 0 -> 1": "one slot expected instead of none: the first step "
            "makes room for what it needs either way",
            "cache = make_cache(rows, kind.kv_heads, kind.head_dim, 0, dtype, device) | 0 -> 1": (
                "a slot too many until the first step resizes"
            ),
        },
    ),
)
