"""What the pictures show is what the model computes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.assembly.assemble import assemble
from llama4_core.errors import DrawingError
from llama4_core.model.initialise import initialise
from llama4_core.protocols.masks import Causal, Chunked, SameDocument, SlidingWindow
from llama4_core.show import accounting, irope, masks, routing
from llama4_core.show.drawing import bar, levels, save, segments
from llama4_core.specs.accounting import account
from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    RopeScaling,
    RopeSpec,
    TemperatureSpec,
)
from llama4_core.specs.presets import preset


def tiny(*, interval: int = 2, vocabulary: int = 32) -> ModelSpec:
    """Four layers: chunked, position-free, chunked, position-free; no experts."""
    rope = RopeSpec(1e4, RopeScaling(16.0, 1.0, 1.0, 16))
    chunked = AttentionSpec("irope-chunked", 2, 1, 8, rope=rope, chunk=4)
    free = AttentionSpec("nope-global", 2, 1, 8, temperature=TemperatureSpec(0.1, 8))
    layers = tuple(
        LayerSpec(free if (i + 1) % interval == 0 else chunked, DenseSpec(8)) for i in range(4)
    )
    return ModelSpec("tiny", vocabulary, 16, 1e-5, 64, False, layers, dtype="float32")


# --- masks ----------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.integers(1, 5),
    st.sampled_from(["causal", "causal&chunked", "causal&window"]),
)
def test_a_picture_is_the_definition_written_out(documents, size, kind):
    name = kind if kind == "causal" else f"{kind}:{size}"
    drawn = masks.picture(masks.parse_mask(name), documents)
    stream = [(p, d) for d, n in enumerate(documents) for p in range(n)]
    for (i, a), row in zip(stream, drawn.seen, strict=True):
        for (j, b), cell in zip(stream, row, strict=True):
            expected = a == b and j <= i
            if "chunked" in kind:
                expected = expected and i // size == j // size
            if "window" in kind:
                expected = expected and i - j < size
            assert cell == expected


def test_text_shows_a_block_for_each_seen_pair():
    drawn = masks.picture(Causal() & Chunked(2), [4])
    assert masks.text([drawn]).splitlines() == [
        "causal&chunked:2",
        "   0",
        "0  ██· · ·",
        "1  ████· ·",
        "2  · · ██·",
        "3  · · ████",
    ]


@pytest.mark.parametrize(
    "mask", [Causal(), Causal() & Chunked(3), SlidingWindow(2) & SameDocument() & Causal()]
)
def test_a_description_reads_back(mask):
    assert masks.parse_mask(masks.describe(mask)) == mask


@pytest.mark.parametrize("text", ["chunked", "causal:3", "diagonal", "causal&", "window:x"])
def test_a_misspelt_mask_says_what_there_is(text):
    with pytest.raises(DrawingError, match="chunked:SIZE"):
        masks.parse_mask(text)


@pytest.mark.parametrize("documents", [[], [0], [3, 0], [masks.LONGEST + 1]])
def test_a_picture_needs_a_size_that_can_be_seen(documents):
    with pytest.raises(DrawingError, match="at least 1 token"):
        masks.picture(Causal(), documents)


def test_masks_of_a_model_cover_its_layers():
    found = masks.masks_of(assemble(masks.shrunk(tiny(), 3)))
    assert found == {Causal() & Chunked(3): [0, 2], Causal(): [1, 3]}


# --- positions ------------------------------------------------------------------------------------


def test_pattern_rotations_and_temperature_of_scout():
    found = irope.irope(preset("scout"))
    assert found.attention == "CCCG" * 12
    assert found.feed_forward == "M" * 48
    (rotation,) = found.rotations
    for pair, (plain, scaled) in enumerate(zip(rotation.plain, rotation.scaled, strict=True)):
        # Two roundings of a double, and those of the power.
        assert plain == pytest.approx(2 * math.pi * 500_000 ** (2 * pair / 128), rel=1e-12)
        assert scaled == pytest.approx(plain * (16 if plain > 8192 else 1), rel=1e-12)
    (temperature,) = found.temperatures
    assert temperature.positions[-1] == irope.LAST - 1
    for position, factor in zip(temperature.positions, temperature.factors, strict=True):
        expected = 1 + 0.1 * math.log((position + 1) // 8192 + 1)
        # The factors are float32.
        assert factor == pytest.approx(expected, rel=1e-6)


def test_maverick_alternates_and_guard_has_no_chunks():
    assert irope.irope(preset("maverick")).feed_forward == "DM" * 24
    guard = irope.irope(preset("guard"))
    assert set(guard.attention) == {"R"}
    assert "without positions" not in irope.text(guard)


# --- routing --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixture():
    """Two layers of the nano model's width: enough to have routings."""
    pytest.importorskip("llama4_moe")
    spec = preset("nano")
    from dataclasses import replace

    model = assemble(replace(spec, layers=spec.layers[2:4], vocabulary=64), device="cpu")
    initialise(model, 0)
    return model


def test_visits_are_those_that_the_forward_returns(mixture):
    tokens = [3, 1, 4, 1, 5, 9]
    found = routing.follow(mixture, tokens)
    with torch.inference_mode():
        _, routings = mixture(torch.tensor(tokens), mixture.packed([6]))
    for drawn, real in zip(found.layers, routings, strict=True):
        assert drawn.visits == tuple(map(tuple, real.experts.tolist()))
        counted = [sum(e in ids for ids in drawn.visits) for e in range(drawn.experts)]
        assert list(drawn.counts) == counted
    words = routing.text(found)
    assert "6 tokens through 2 layers" in words
    assert max(map(len, words.splitlines())) <= 100


def test_routing_needs_experts_and_known_tokens(mixture):
    with pytest.raises(DrawingError, match="outside the vocabulary"):
        routing.follow(mixture, [64])
    dense = assemble(tiny(), device="cpu")
    initialise(dense, 0)
    with pytest.raises(DrawingError, match="no layer with experts"):
        routing.follow(dense, [1])


# --- accounting -----------------------------------------------------------------------------------


def test_costs_are_the_accounting():
    costs = accounting.costs_of(preset("scout"))
    found = account(preset("scout"))
    assert sum(costs.parts.values()) == found.total
    by_length = {x.length: x for x in costs.growth}
    assert all(by_length[x.length] == x for x in found.cache)
    assert f"{found.cache[-1].bounded / 2**30:.2f} GiB" in accounting.text(costs)


# --- drawing --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=9), st.integers(1, 80))
def test_segments_fill_the_bar_and_follow_the_sizes(sizes, width):
    found = segments(sizes, width)
    assert sum(found) == width
    for size, cells in zip(sizes, found, strict=True):
        assert abs(cells - size / sum(sizes) * width) <= 1  # largest remainders round by under 1


def test_the_largest_remainder_gets_the_cell_that_is_left():
    assert segments([0.9, 1.1, 8], 10) == [1, 1, 8]


def test_bars_show_the_least_share_and_nothing_for_nothing():
    assert bar(0, 3) == "   "
    assert bar(1e-9, 3).strip()
    assert bar(1, 3) == "███"
    assert levels([0, 1, 8]) == "·▁█"
    assert levels([0, 0]) == "··"


def test_pictures_are_files_and_equal_each_time(tmp_path, mixture):
    pytest.importorskip("matplotlib")
    figures = {
        "mask": lambda: masks.draw([masks.picture(Causal() & Chunked(3), [5, 4])]),
        "irope": lambda: irope.draw(irope.irope(tiny())),
        "positions": lambda: irope.draw(irope.irope(preset("guard"))),
        "routing": lambda: routing.draw(routing.follow(mixture, [1, 2, 3])),
        "accounting": lambda: accounting.draw(accounting.costs_of(tiny())),
    }
    for name, make in figures.items():
        save(make(), tmp_path / f"{name}.svg")
        assert (tmp_path / f"{name}.svg").read_bytes().startswith(b"<?xml")
    save(figures["mask"](), tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "mask.svg").read_bytes()
