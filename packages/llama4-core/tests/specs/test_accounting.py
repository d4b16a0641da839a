"""The arithmetic of sizes against published figures and against definitions."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import SpecError
from llama4_core.specs.accounting import LENGTHS, account
from llama4_core.specs.model import AttentionSpec
from llama4_core.specs.presets import PRESETS, preset

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "total", "text", "active"),
    [("scout", 108.642, 107.770, 17.173), ("maverick", 401.584, 400.712, 17.185)],
)
def test_published_models_have_their_sizes(name, total, text, active):
    costs = account(preset(name))
    assert round(costs.total / 1e9, 3) == total
    assert round(costs.text / 1e9, 3) == text
    assert round(costs.active / 1e9, 3) == active
    assert account(preset(f"{name}-text")).total == costs.text


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (
            "scout",
            {
                "routed_experts": 96_636_764_160,
                "shared_experts": 6_039_797_760,
                "dense_feed_forward": 0,
                "attention": 3_019_898_880,
                "router": 3_932_160,
            },
        ),
        (
            "maverick",
            {
                "routed_experts": 386_547_056_640,
                "shared_experts": 3_019_898_880,
                "dense_feed_forward": 6_039_797_760,
                "attention": 3_019_898_880,
                "router": 15_728_640,
            },
        ),
    ],
)
def test_parts(name, parts):
    found = account(preset(name)).parts
    assert {key: found[key] for key in parts} == parts
    assert found["embedding"] == found["head"] == 1_034_485_760
    assert found["norms"] == 496_640
    # 811.1M, 39.8M and 21.0M in the published breakdown.
    assert found["vision_encoder"] == 811_115_008
    assert found["vision_adapter"] == 39_845_888
    assert found["vision_projector"] == 20_971_520


@pytest.mark.parametrize(
    ("name", "bf16", "fp8", "int4"),
    [("scout", 217.3, 120.6, 66.5), ("maverick", 803.2, 416.6, 231.0)],
)
def test_weight_bytes(name, bf16, fp8, int4):
    costs = account(preset(name))
    assert round(costs.weight_bytes["bf16"] / 1e9, 1) == bf16
    assert round(costs.weight_bytes["int4"] / 1e9, 1) == int4
    # The published fp8 figure counts the elements only; ours adds the scales.
    elements = costs.weight_bytes["fp8"] - costs.scale_bytes["fp8"]
    assert round(elements / 1e9, 1) == fp8


def test_row_scales_explain_the_size_of_the_published_fp8_checkpoint():
    """Meta keeps the last layer of Maverick in bf16; its files have 432.97 GB."""
    costs = account(preset("maverick"))
    routed_per_layer = costs.parts["routed_experts"] // 24
    scales_per_layer = costs.scale_bytes["fp8"] // 24
    size = costs.weight_bytes["fp8"] + routed_per_layer - scales_per_layer
    assert size / 1e9 == pytest.approx(432.97, abs=0.02)  # the figure itself is rounded


@pytest.mark.parametrize("name", ["scout", "maverick"])
def test_cache_of_one_user(name):
    costs = account(preset(name))
    found = {entry.length: (entry.full / GIB, entry.bounded / GIB) for entry in costs.cache}
    assert tuple(found) == LENGTHS
    assert found[8192] == (1.5, 1.5)
    assert found[128 * 1024] == (24.0, 7.125)
    assert found[1024 * 1024] == (192.0, 49.125)
    assert found[10 * 1024 * 1024] == (1920.0, 481.125)
    assert costs.cache_bytes_per_token == 48 * 1024


def test_behemoth_has_the_three_public_numbers():
    spec = preset("behemoth")
    costs = account(spec)
    assert spec.illustrative
    assert costs.active == pytest.approx(288e9, rel=0.01)
    assert costs.total == pytest.approx(2e12, rel=0.05)
    assert spec.layers[0].feed_forward.experts == 16


@pytest.mark.parametrize(
    ("name", "size"), [("nano", 30e6), ("mini", 150e6), ("small", 500e6), ("guard", 12e9)]
)
def test_other_presets_have_about_the_size_that_they_claim(name, size):
    assert account(preset(name)).total == pytest.approx(size, rel=0.12)


@pytest.mark.parametrize("name", PRESETS)
def test_parts_add_up(name):
    costs = account(preset(name))
    assert sum(costs.parts.values()) == costs.total
    assert costs.active <= costs.text <= costs.total
    assert costs.weight_bytes["bf16"] == 2 * costs.total


def test_tied_head_is_counted_once():
    spec = preset("nano")
    tied = account(replace(spec, tied=True))
    assert account(spec).total - tied.total == spec.vocabulary * spec.width
    assert tied.parts["head"] == 0


def test_dense_models_have_nothing_to_pack():
    costs = account(preset("guard"))
    assert costs.active == costs.text
    assert costs.weight_bytes["int4"] == costs.weight_bytes["bf16"]


def with_attention(attention):
    spec = preset("nano")
    layers = tuple(replace(layer, attention=attention) for layer in spec.layers)
    return account(replace(spec, layers=layers))


@given(window=st.integers(1, 20_000))
def test_a_window_bounds_the_cache(window):
    costs = with_attention(AttentionSpec("sliding-window", 6, 2, 64, window=window))
    per_token = 8 * 2 * 2 * 64 * 2
    for entry in costs.cache:
        assert entry.full == per_token * entry.length
        assert entry.bounded == per_token * min(entry.length, window)
    assert costs.cache_bytes_per_token == 0


def test_a_recurrent_mixer_keeps_a_constant_state():
    costs = with_attention(AttentionSpec("none", 6, 6, 64, mixer="gated-linear"))
    state = 8 * 6 * 64**2 * 4  # float32
    assert {(entry.bounded, entry.full) for entry in costs.cache} == {(state, state)}
    assert costs.cache_bytes_per_token == 0
    assert costs.parts["attention"] == 8 * (4 * 384 * 384 + 384 * 6)


def test_an_unknown_mixer_is_not_guessed():
    with pytest.raises(SpecError, match="mixer 'convolution' are not known"):
        with_attention(AttentionSpec("none", 6, 6, 64, mixer="convolution"))


def with_parts(spec, **parts):
    return replace(spec, vision=replace(spec.vision, **parts))


def test_another_encoder_is_not_counted_and_said():
    spec = preset("scout")
    known = account(spec)
    assert known.unknown == ()
    costs = account(with_parts(spec, encoder="other"))
    assert costs.unknown == ("vision_encoder 'other'",)
    assert costs.total == known.total - known.parts["vision_encoder"]
    assert costs.parts["vision_adapter"] == known.parts["vision_adapter"]
    assert costs.text == known.text


def test_another_adapter_leaves_the_projection_open_too():
    spec = preset("scout")
    known = account(spec)
    costs = account(with_parts(spec, adapter="other"))
    assert costs.unknown == ("vision_adapter 'other'", "vision_projector")
    assert costs.total == known.text + known.parts["vision_encoder"]
    both = account(with_parts(spec, adapter="other", encoder="another"))
    assert both.total == both.text == known.text
    assert len(both.unknown) == 3
