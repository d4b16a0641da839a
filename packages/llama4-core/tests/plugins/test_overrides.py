from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import OverrideError
from llama4_core.plugins.overrides import Overrides

SLOTS = [
    "cache",
    *(
        f"layers.{layer}.{tail}"
        for layer in range(12)
        for tail in (
            "attention",
            "attention.variant",
            "attention.backend",
            "feed_forward",
            "feed_forward.router",
            "feed_forward.backend",
        )
    ),
]


def addressed(glob: str) -> list[str]:
    overrides = Overrides({glob: "x"})
    return [slot for slot in SLOTS if overrides.take(slot)]


def layers(*numbers: int, tail: str = "attention.backend") -> list[str]:
    return [f"layers.{number}.{tail}" for number in numbers]


@pytest.mark.parametrize(
    ("glob", "slots"),
    [
        ("cache", ["cache"]),
        ("layers.1.attention.backend", layers(1)),
        ("layers.*.attention.backend", layers(*range(12))),
        ("layers.[1].attention.backend", layers(1)),
        ("layers.[11].attention.backend", layers(11)),
        ("layers.[1,3].attention.backend", layers(1, 3)),
        ("layers.[0-2, 9-11].attention.backend", layers(0, 1, 2, 9, 10, 11)),
        ("layers.1?.attention.backend", layers(10, 11)),
        ("layers.*.feed_forward", layers(*range(12), tail="feed_forward")),
        ("**.router", layers(*range(12), tail="feed_forward.router")),
        ("layers.2.**.backend", ["layers.2.attention.backend", "layers.2.feed_forward.backend"]),
        ("layers.2.attention.**", [s for s in SLOTS if s.startswith("layers.2.attention")]),
        ("layers.3.*.back*", ["layers.3.attention.backend", "layers.3.feed_forward.backend"]),
        ("*", ["cache"]),
        ("**", SLOTS),
        ("layers", []),
        ("*.*.backend", []),
        ("attention.backend", []),
    ],
)
def test_what_a_glob_addresses(glob: str, slots: list[str]) -> None:
    assert addressed(glob) == slots


@given(st.sets(st.integers(0, 11), min_size=1))
def test_index_lists_address_exactly_their_indices(numbers: set[int]) -> None:
    listed = ",".join(str(number) for number in numbers)
    assert addressed(f"layers.[{listed}].attention.backend") == layers(*sorted(numbers))
    low, high = min(numbers), max(numbers)
    assert addressed(f"layers.[{low}-{high}].attention.backend") == layers(*range(low, high + 1))


@pytest.mark.parametrize(
    "glob",
    ["", "layers..backend", "layers.[x]", "layers.[3-1]", "layer[12].x", "a.***", "a.**b", 7, None],
)
def test_malformed_globs_are_errors(glob: object) -> None:
    with pytest.raises(OverrideError, match="override path"):
        Overrides({glob: "x"})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", ["", None, 3, True, ["sdpa"], {"a": 1}])
def test_values_are_names_or_things_that_build_or_run(value: object) -> None:
    with pytest.raises(OverrideError, match="expected the name of a component"):
        Overrides({"cache": value})


def test_two_globs_with_different_values_clash_on_the_slot_they_share() -> None:
    overrides = Overrides({"layers.*.attention.backend": "eager", "**.backend": "sdpa"})
    assert overrides.take("layers.0.feed_forward.backend").value == "sdpa"
    with pytest.raises(OverrideError) as caught:
        overrides.take("layers.0.attention.backend")
    for part in ("layers.0.attention.backend", "'layers.*.attention.backend'", "'**.backend'"):
        assert part in str(caught.value)
    assert "'eager'" in str(caught.value)
    assert "'sdpa'" in str(caught.value)


def test_objects_agree_only_when_they_are_the_same_object() -> None:
    class Router:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None

        def __call__(self) -> None: ...

    one = Router()
    same = Overrides({"a.*": one, "a.b": one})
    assert same.take("a.b").value is one
    with pytest.raises(OverrideError, match=r"both address a\.b"):
        Overrides({"a.*": one, "a.b": Router()}).take("a.b")


def test_equal_names_agree_and_both_globs_count_as_used() -> None:
    overrides = Overrides({"layers.*.attention.backend": "eager", "**.attention.backend": "eager"})
    assert overrides.take("layers.0.attention.backend").value == "eager"
    overrides.check_all_used(SLOTS)


def test_a_glob_that_addresses_nothing_names_the_nearest_slots() -> None:
    overrides = Overrides(
        {"layers.*.attention.backnd": "eager", "layers.[40].attention": "x", "cache": "y"}
    )
    for slot in SLOTS:
        overrides.take(slot)
    with pytest.raises(OverrideError) as caught:
        overrides.check_all_used(SLOTS)
    text = str(caught.value)
    assert "'layers.*.attention.backnd' addresses no slot" in text
    assert "nearest are layers.*.attention.backend" in text
    assert "'layers.[40].attention' addresses no slot" in text
    assert "layers are 0 to 11" in text
    assert "'cache'" not in text


def test_nothing_to_override() -> None:
    overrides = Overrides()
    assert overrides.take("cache") is None
    overrides.check_all_used([])
