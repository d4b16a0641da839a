"""Every format gives back the model that was written, for random models."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import SpecError
from llama4_core.specs.huggingface import huggingface_from_spec, spec_from_huggingface
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.meta import meta_from_spec, spec_from_meta
from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    MoESpec,
    RopeScaling,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
    VisionSpec,
)
from llama4_core.specs.presets import PRESETS, maverick, preset
from llama4_core.specs.toml import spec_from_toml, toml_from_spec

small = st.integers(1, 9)
positive = st.floats(1e-6, 1e9, allow_nan=False)
tokens = st.integers(0, 500)


@st.composite
def scalings(draw, original=None):
    low = draw(st.floats(0.1, 8))
    return RopeScaling(
        factor=draw(positive),
        low_frequency_factor=low,
        high_frequency_factor=draw(st.sampled_from([low, low + 3.0])),
        original_length=original or draw(st.integers(1, 9000)),
    )


@st.composite
def visions(draw):
    width = 8 * draw(small)
    adapter = draw(st.integers(1, 40))
    return VisionSpec(
        width=width,
        layers=draw(small),
        heads=draw(small),
        mlp_width=4 * width,
        image_size=14 * draw(small),
        patch_size=14,
        channels=3,
        shuffle_ratio=0.5,
        adapter_width=adapter,
        adapter_output=adapter,
        theta=10_000.0,
        norm_eps=1e-5,
    )


@st.composite
def llama4s(draw, listed=True):
    """A random Llama 4; ``listed``: arbitrary layer lists, a thing that params.json cannot say."""
    count = draw(st.integers(1, 9))
    if listed:
        chosen = st.sets(st.integers(0, count - 1)).map(lambda found: tuple(sorted(found)))
        free, moe_layers = draw(chosen), draw(chosen)
        tied, scaling = draw(st.booleans()), draw(st.none() | scalings())
        dense, expert = draw(st.integers(1, 99)), draw(st.integers(1, 99))
        whole = tuple(sorted(set(draw(chosen)) - set(free)))
    else:
        free = every(draw(st.none() | st.integers(1, count)), count)
        moe_layers = every(draw(st.none() | st.integers(1, count)), count)
        tied, whole = False, ()
        scaling = draw(
            st.none()
            | st.builds(RopeScaling, positive, st.just(1.0), st.floats(1, 9), st.just(8192))
        )
        expert = draw(st.integers(1, 99))
        dense = 2 * expert
    groups = draw(small)
    vision = draw(st.none() | visions())
    rotary_exists = len(free) < count
    return ModelSpec(
        name=draw(st.text(min_size=1)),
        vocabulary=draw(st.integers(1, 1 << 40)),
        width=draw(st.integers(1, 500)),
        norm_eps=draw(positive),
        max_positions=draw(st.integers(1, 1 << 40)),
        tied=tied,
        layers=llama4_layers(
            count,
            heads=groups * draw(small),
            kv_heads=groups,
            head_dim=2 * draw(small),
            rope=RopeSpec(draw(positive), scaling),
            chunk=draw(st.none() | st.integers(1, 9000)),
            qk_norm=draw(st.booleans()),
            temperature=draw(st.none() | st.builds(TemperatureSpec, positive, positive)),
            position_free=free,
            moe_layers=moe_layers,
            moe=MoESpec(
                draw(st.integers(3, 9)), draw(st.integers(1, 3)), expert, expert, "sigmoid-top-k"
            ),
            dense=DenseSpec(dense),
            unchunked=whole if rotary_exists else (),
        ),
        vision=vision,
        tokens=TokenIds(
            bos=draw(st.none() | tokens),
            eos=tuple(draw(st.lists(tokens, max_size=3))),
            pad=draw(st.none() | tokens),
            image=draw(tokens) if vision else None,
            image_start=draw(st.none() | tokens) if vision else None,
            image_end=draw(st.none() | tokens) if vision else None,
        ),
        dtype=draw(st.sampled_from(["float32", "bfloat16", "float16"])),
    )


@given(llama4s())
def test_huggingface_gives_back_the_model(spec):
    config = json.loads(json.dumps(huggingface_from_spec(spec)))
    found = spec_from_huggingface(config)
    assert found == spec
    assert huggingface_from_spec(found) == config


@given(llama4s(listed=False))
def test_params_json_gives_back_the_model(spec):
    params = json.loads(json.dumps(meta_from_spec(spec)))
    found = spec_from_meta(params, tokens=spec.tokens, name=spec.name, dtype=spec.dtype)
    assert found == spec
    assert meta_from_spec(found) == params


names = st.sampled_from(["siglip", "somebody/other", "pooled-linear"])


@given(llama4s(), st.booleans(), names, names)
def test_toml_gives_back_the_model(spec, illustrative, encoder, adapter):
    spec = replace(spec, illustrative=illustrative)
    assert spec_from_toml(toml_from_spec(spec)) == spec
    if spec.vision is not None:
        spec = replace(spec, vision=replace(spec.vision, encoder=encoder, adapter=adapter))
    assert spec_from_toml(toml_from_spec(spec)) == spec


free_tables = st.dictionaries(
    st.text(),
    st.recursive(
        st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, min_size=1, max_size=3)
        ),
        max_leaves=5,
    ),
    max_size=4,
)


@given(free_tables)
def test_toml_keeps_what_came_with_a_foreign_file(source):
    source = {key: value for key, value in source.items() if value != {}}
    found = spec_from_toml(toml_from_spec(replace(preset("nano"), source=source)))
    assert found.source == source


def test_toml_keeps_parts_that_only_we_have():
    attention = AttentionSpec(
        "capped-sink", 4, 2, 8, rope=RopeSpec(1e4), window=7, soft_cap=30.0, sink=True
    )
    linear = AttentionSpec("none", 4, 4, 8, mixer="gated-linear")
    moe = MoESpec(4, 2, 5, 0, "softmax-top-k", weight_on="output")
    layers = (LayerSpec(attention, moe), LayerSpec(linear, DenseSpec(3)))
    spec = replace(preset("nano"), layers=layers)
    assert spec_from_toml(toml_from_spec(spec)) == spec
    with pytest.raises(SpecError, match="'capped-sink'"):
        huggingface_from_spec(spec)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_pass_through_every_format(name):
    spec = preset(name)
    assert spec_from_toml(toml_from_spec(spec)) == spec
    published = replace(spec, illustrative=False)
    assert spec_from_huggingface(huggingface_from_spec(spec)) == published
    params = meta_from_spec(spec)
    assert spec_from_meta(params, tokens=spec.tokens, name=name, dtype=spec.dtype) == published


def test_toml_writes_the_repeating_pattern_once():
    text = toml_from_spec(maverick())
    assert "repeat = 12" in text
    assert text.count("[[layers.pattern]]") == 4  # period of interval 4 and step 2


TOML = toml_from_spec(preset("nano"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vocabulary =", "vocabluary =", "unknown key 'vocabluary' .did you mean 'vocabulary'"),
        ("width = 384", "", "width is missing"),
        ("width = 384", "width = true", "width is True; expected a whole number"),
        ("tied = false", "tied = 0", "tied is 0; expected true or false"),
        ("chunk = 256", "chunks = 256", "unknown key 'chunks' .did you mean 'chunk'"),
        ("repeat = 2", "repeat = 0", "repeat is 0; expected a whole number of at least 1"),
        ("repeat = 2", "repeat = 1000000000000", "has 4000000000000 layers; expected at most"),
        ("count = 3", "count = 1000000000000", "has 1000000000000 layers; expected at most"),
        ("norm_eps = 1e-05", "norm_eps = nan", "norm_eps is nan"),
        ("scale = 0.1", "scale = inf", "scale is inf; expected a finite number"),
        ("count = 3", "count = -3", "count is -3"),
        ("heads = 6,", "heads = 5,", "not a multiple of kv_heads"),
        ('kind = "moe"', 'kind = ["moe"]', r"kind is \['moe'\]; expected one of"),
        ('kind = "moe"', 'kind = "mow"', "kind is 'mow'; expected one of 'dense', 'moe'"),
        ("[layers]", "[layers", "this is no TOML"),
        ("repeat = 2", "repeats = 2", "unknown key 'repeats' .did you mean 'repeat'"),
    ],
)
def test_toml_errors_name_the_key(old, new, message):
    assert old in TOML
    with pytest.raises(SpecError, match=message):
        spec_from_toml(TOML.replace(old, new))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "sliding-window", "window": 4}, "attention variant 'sliding-window'"),
        ({"window": 4}, "a window of 4"),
        ({"soft_cap": 3.0}, "a soft cap of 3.0"),
        ({"sink": True}, "a learned sink"),
        ({"mixer": "gated-linear"}, "mixer 'gated-linear'"),
        ({"temperature": TemperatureSpec(0.1, 4)}, "a temperature together with positions"),
        ({"heads": 12}, "differ in number of heads"),
        ({"chunk": 9}, "differ in chunk"),
        ({"qk_norm": False}, "differ in QK norm"),
        ({"rope": RopeSpec(7.0)}, "differ in rotary encoding"),
    ],
)
@pytest.mark.parametrize("write", [huggingface_from_spec, meta_from_spec])
def test_foreign_formats_refuse_what_they_cannot_say(write, change, message):
    spec = preset("nano")
    first = replace(spec.layers[0], attention=replace(spec.layers[0].attention, **change))
    with pytest.raises(SpecError, match=message):
        write(replace(spec, layers=(first, *spec.layers[1:])))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"router": "softmax-top-k"}, "router 'softmax-top-k'"),
        ({"weight_on": "output"}, "a router weight on the output"),
        ({"shared_width": 7}, "shared width 7"),
        ({"experts": 9}, "differ in mixture of experts"),
    ],
)
@pytest.mark.parametrize("write", [huggingface_from_spec, meta_from_spec])
def test_foreign_formats_refuse_other_mixtures(write, change, message):
    spec = preset("nano")
    first = replace(spec.layers[0], feed_forward=replace(spec.layers[0].feed_forward, **change))
    with pytest.raises(SpecError, match=message):
        write(replace(spec, layers=(first, *spec.layers[1:])))


@pytest.mark.parametrize("write", [huggingface_from_spec, meta_from_spec])
@pytest.mark.parametrize("slot", ["encoder", "adapter"])
def test_another_encoder_or_adapter_is_refused_by_name(write, slot):
    spec = preset("scout")
    write(spec)
    other = replace(spec, vision=replace(spec.vision, **{slot: "other"}))
    with pytest.raises(SpecError, match=rf"vision\.{slot} is 'other'.*native format"):
        write(other)


@pytest.mark.parametrize("slot", ["encoder", "adapter"])
@pytest.mark.parametrize("value", ["", None, 3])
def test_an_encoder_has_a_name(slot, value):
    with pytest.raises(SpecError, match=rf"VisionSpec\.{slot} is"):
        replace(preset("scout").vision, **{slot: value})


def test_toml_without_the_names_means_llama4():
    """Folders written before there was a choice."""
    text = toml_from_spec(preset("scout"))
    lines = [line for line in text.splitlines() if not line.startswith(("encoder", "adapter ="))]
    assert len(lines) == len(text.splitlines()) - 2
    assert spec_from_toml("\n".join(lines)) == preset("scout")
