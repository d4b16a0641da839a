"""Counted operations against torch's own counter, and pairs against their definition."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from llama4_core.assembly.assemble import assemble
from llama4_core.errors import SpecError
from llama4_core.model.initialise import initialise
from llama4_core.plugins.catalogue import catalogue
from llama4_core.protocols.masks import Causal, Chunked, Place, SlidingWindow
from llama4_core.specs.find import spec_named
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import (
    DenseSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
    VisionSpec,
)
from llama4_train.flops import forward_flops, training_flops, visible_pairs

LOOP = {"layers.*.feed_forward.backend": "loop"}
VISION = VisionSpec(32, 2, 2, 48, 28, 7, 3, 0.5, 24, 20, 1e4, 1e-5)


def tiny(experts, top_k, layers, chunk, width=32, vision=None):
    return ModelSpec(
        name="counted",
        vocabulary=61,
        width=width,
        norm_eps=1e-5,
        max_positions=512,
        tied=False,
        layers=llama4_layers(
            layers,
            heads=4,
            kv_heads=2,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=chunk,
            qk_norm=True,
            temperature=TemperatureSpec(0.1, 64),
            position_free=every(4, layers),
            moe_layers=every(2, layers),
            moe=MoESpec(experts, top_k, 24, 40, "sigmoid-top-k"),
            dense=DenseSpec(56),
        ),
        dtype="float32",
        vision=vision,
        tokens=TokenIds(image=None if vision is None else 60),
    )


def built(spec, overrides=LOOP):
    model = assemble(spec, overrides, device="cpu")
    initialise(model, seed=0)
    return model.train()


def counted(model, lengths):
    """Operations of products and of attention in one forward and backward, by torch's counter."""
    tokens = torch.randint(
        0, model.spec.vocabulary, (sum(lengths),), generator=torch.Generator().manual_seed(0)
    )
    with FlopCounterMode(display=False) as counter:
        hidden, _ = model(tokens, model.packed(lengths))
        F.linear(hidden, model.head.weight).square().mean().backward()
    by_kind = {"attention": 0, "products": 0}
    for operation, count in counter.get_flop_counts()["Global"].items():
        by_kind["attention" if "attention" in str(operation) else "products"] += count
    return by_kind


@pytest.mark.parametrize(
    ("experts", "top_k", "layers", "chunk", "lengths"),
    [(8, 1, 4, 16, (40, 24)), (4, 2, 2, None, (33,)), (16, 1, 2, 8, (5, 1, 50))],
)
def test_products_of_tiny_models_are_those_of_torch(experts, top_k, layers, chunk, lengths):
    """Only active experts: with all of them the count would be 2 to 8 times as high."""
    spec = tiny(experts, top_k, layers, chunk)
    # On a CPU torch 2.13 counts nothing for its own attention: what is left are the products.
    got = counted(built(spec), lengths)
    expected = training_flops(spec, lengths)
    assert got["products"] == expected.products


def test_products_of_nano_are_those_of_torch():
    spec = spec_named("nano", catalogue())
    lengths = (40, 24)
    got = counted(built(spec), lengths)
    assert got["products"] == training_flops(spec, lengths).products


def test_attention_is_that_of_torch_where_it_computes_every_pair():
    """The reference multiplies whole squares; of these the visible pairs are the lower half."""
    spec, length = tiny(4, 1, 2, None), 48
    model = built(spec, {**LOOP, "layers.*.attention.backend": "sdpa"})
    flash = counted(model, (length,))
    model.zero_grad()
    with sdpa_kernel(SDPBackend.MATH):
        whole = counted(model, (length,))
    expected = training_flops(spec, (length,))
    squares = expected.attention * length**2 // visible_pairs(length)
    assert flash["products"] == expected.products
    assert sum(whole.values()) - sum(flash.values()) == squares


def test_pictures_are_those_of_torch():
    spec = tiny(4, 1, 2, None, vision=VISION)
    model = built(spec)
    (eyes,) = model.modalities
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        eyes(torch.randn(3, 3, 28, 28))
    expected = forward_flops(spec, (), tiles=3)
    assert counter.get_total_flops() == expected.total
    assert forward_flops(spec, (5,)).total + expected.total == (
        forward_flops(spec, (5,), tiles=3).total
    )


@given(
    st.integers(0, 40),
    st.one_of(st.none(), st.integers(1, 50)),
    st.one_of(st.none(), st.integers(1, 50)),
)
def test_visible_pairs_are_those_of_the_masks(length, chunk, window):
    mask = Causal()
    if chunk is not None:
        mask = mask & Chunked(chunk)
    if window is not None:
        mask = mask & SlidingWindow(window)
    pairs = sum(
        bool(mask.visible(Place(query, 0), Place(key, 0)))
        for query in range(length)
        for key in range(length)
    )
    assert visible_pairs(length, chunk, window) == pairs


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 20))
def test_documents_add_up(lengths, chunk):
    spec = tiny(4, 1, 4, chunk)
    apart = [training_flops(spec, [length]) for length in lengths]
    together = training_flops(spec, lengths)
    assert together.total == sum(one.total for one in apart)
    # One long document has more pairs, and as many products.
    long = training_flops(spec, [sum(lengths)])
    assert long.products == together.products
    assert long.attention >= together.attention


def test_by_hand():
    """One dense layer: D 2, a head of 2, width 3, vocabulary 5; 4 tokens in chunks of 3."""
    spec = replace(tiny(4, 1, 2, 3), vocabulary=5, width=2)
    attention = replace(spec.layers[0].attention, heads=1, kv_heads=1, head_dim=2)
    layer = replace(spec.layers[0], attention=attention, feed_forward=DenseSpec(3))
    spec = replace(spec, layers=(layer,))
    found = forward_flops(spec, [4])
    # q, k, v, o: 4 x 2 x 2; feed-forward 3 x 2 x 3; head 5 x 2; two operations, four tokens.
    assert found.products == 2 * 4 * (16 + 18 + 10)
    # Pairs: 1 + 2 + 3 and 1; each 2 x 2 operations for the score and as many for the value.
    assert found.attention == 7 * 8
    assert training_flops(spec, [4]).total == 3 * found.total
    assert forward_flops(spec, [4], targets=1).products == found.products - 3 * 2 * 10


def test_what_only_a_component_knows_is_refused():
    spec = tiny(4, 1, 2, None)
    other = replace(spec.layers[0].attention, mixer="scan")
    mixed = replace(spec, layers=(replace(spec.layers[0], attention=other),))
    with pytest.raises(SpecError, match="only the mixer 'scan' itself knows its arithmetic"):
        training_flops(mixed, [4])
    with pytest.raises(SpecError, match="counted has no encoder of pictures; got 2 tiles"):
        training_flops(spec, [4], tiles=2)
    foreign = replace(spec, vision=replace(VISION, encoder="siglip"))
    with pytest.raises(SpecError, match="only the encoder 'siglip' itself knows"):
        training_flops(foreign, [4], tiles=2)
