"""Early fusion and what stands aside: properties 32 and 33."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounterWithBackend

from llama4_core.errors import ModalityError
from llama4_core.model.fusion import fuse

PLACES = st.lists(st.booleans(), min_size=1, max_size=12)
WIDTH = 5


def drawn(places, count=None, seed=0):
    """Places, hidden states with a NaN among them, and features: ``count``, or one a place."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.tensor(places)
    hidden = torch.randn(len(places), WIDTH, generator=generator)
    hidden[0, 0] = float("nan")  # bits are kept, not values that compare equal
    rows = int(mask.sum()) if count is None else count
    return mask, hidden, torch.randn(rows, WIDTH, generator=generator)


@given(places=PLACES, seed=st.integers(0, 99), dtype=st.sampled_from(["float32", "bfloat16"]))
def test_exactly_the_placeholders_change(places, seed, dtype):
    """Property 32: each placeholder gets the next feature, every other row keeps its bits."""
    mask, hidden, features = drawn(places, seed=seed)
    hidden = hidden.to(getattr(torch, dtype))
    before = hidden.clone()
    found = fuse(hidden, mask, features)
    expected = before.clone()
    expected[mask] = features.to(hidden.dtype)
    assert found.dtype == hidden.dtype
    bits = torch.int32 if dtype == "float32" else torch.int16
    assert torch.equal(found.view(bits), expected.view(bits))
    assert torch.equal(hidden.view(bits), before.view(bits)), "the embeddings were written to"


@given(places=PLACES, more=st.integers(-3, 3).filter(bool))
def test_another_number_of_features_is_refused_with_both(places, more):
    count = max(0, sum(places) + more)
    mask, hidden, features = drawn(places, count)
    if count == sum(places):
        return
    with pytest.raises(ModalityError, match=f"got {count} features for {sum(places)} placeholder"):
        fuse(hidden, mask, features)


@pytest.mark.parametrize("shape", [(2, WIDTH + 1), (2,), (1, 2, WIDTH), (0, 1)])
def test_another_width_is_refused(shape):
    mask, hidden, _ = drawn([True, True])
    with pytest.raises(ModalityError, match=rf"\[M, {WIDTH}\]"):
        fuse(hidden, mask, torch.zeros(shape))


@given(places=PLACES, seed=st.integers(0, 99))
def test_gradients_reach_features_and_the_other_rows(places, seed):
    """Each row of the result has exactly one parent; embeddings under a feature get none."""
    mask, hidden, features = drawn(places, seed=seed)
    hidden = hidden.nan_to_num().requires_grad_()
    features.requires_grad_()
    weight = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(seed + 1))
    (fuse(hidden, mask, features) * weight).sum().backward()
    assert torch.equal(hidden.grad, weight.masked_fill(mask[:, None], 0))
    if len(features):
        assert torch.equal(features.grad, weight[mask])


def test_gradcheck():
    mask, hidden, features = drawn([True, False, True, True, False])
    hidden, features = hidden.nan_to_num().double(), features.double()
    hidden.requires_grad_()
    features.requires_grad_()
    assert torch.autograd.gradcheck(lambda h, f: fuse(h, mask, f), (hidden, features))


def test_compiles_to_one_graph_for_any_places():
    """No shape depends on data: equally many features at other places need no new graph."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(fuse, backend=counter, fullgraph=True)
    with torch.no_grad():
        for places in ([True, False, True, False], [False, True, True, False]):
            mask, hidden, features = drawn(places, seed=sum(places[:2]))
            found = compiled(hidden, mask, features)
            expected = fuse(hidden, mask, features)
            assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
    assert counter.frame_count == 1
    hidden.nan_to_num_().requires_grad_()
    features.requires_grad_()
    compiled(hidden, mask, features).sum().backward()
    assert torch.equal(features.grad, torch.ones_like(features))
    torch._dynamo.reset()


def test_the_model_sees_them_from_their_place_on(seeing):
    """What stands before the first feature is untouched, bit for bit; what follows is not."""
    tokens = torch.tensor([1, 290, 290, 2, 290, 290])
    with torch.no_grad():
        features = {290: seeing.vision(torch.tensor([[1.0, 1.0], [2.0, 1.0]])).flatten(0, 1)}
        expected, _ = seeing(tokens, seeing.packed([6]), features)
        plain, _ = seeing(tokens, seeing.packed([6]))
    assert torch.equal(expected[0], plain[0])
    assert (expected[1:] != plain[1:]).any(-1).all()


def test_on_the_meta_device_nothing_is_counted():
    hidden = torch.empty(4, WIDTH, device="meta")
    places = torch.empty(4, dtype=torch.bool, device="meta")
    assert fuse(hidden, places, torch.empty(2, WIDTH, device="meta")).shape == hidden.shape


@pytest.fixture(scope="module")
def models(sighted):
    """With eyes, with their weights aside, and without any: the same text weights."""
    seen, aside, text = sighted(), sighted("none"), sighted(vision=None)
    weights = text.state_dict()
    for model in (seen, aside):
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert not unexpected
        assert all(name.startswith("vision.") for name in missing)
    return seen, aside, text


class TestTextAlone:
    """Property 33: text does not know whether there are eyes."""

    @given(tokens=st.lists(st.integers(0, 280), min_size=1, max_size=20))
    def test_results_are_bit_equal(self, models, tokens):
        seen, aside, text = models
        with torch.no_grad():
            expected = text.logits(tokens)
            assert torch.equal(seen.logits(tokens), expected)
            assert torch.equal(aside.logits(tokens), expected)
        settings = {"max_tokens": 4, "temperature": 1.0, "logprobs": 3, "ignore_eos": True}
        expected = text.generate(tokens, **settings)
        assert seen.generate(tokens, **settings) == expected
        assert aside.generate(tokens, **settings) == expected

    def test_a_chat_is_the_same(self, models):
        seen, aside, text = models
        expected = text.chat("Hello?", max_tokens=4)
        assert seen.chat("Hello?", max_tokens=4) == aside.chat("Hello?", max_tokens=4) == expected

    def test_generation_never_asks_the_modality(self, models):
        seen = models[0]
        seen.vision.reads.clear()
        seen.vision.forwards.clear()
        seen.generate(["a", [1, 2]], max_tokens=2)
        assert not seen.vision.reads
        assert not seen.vision.forwards


class TestAside:
    def test_refuses_and_says_what_to_install(self, sighted, tmp_path):
        model = sighted("none")
        assert model.modalities == (model.vision,)
        calls = (
            lambda: model.vision.read([object()], None),
            lambda: model.vision(torch.zeros(1, 3, 28, 28)),
            lambda: model.vision.annotate(None, "", tmp_path / "x.png"),
            lambda: model.logits([290], torch.zeros(1, 3, 28, 28)),
        )
        for call in calls:
            with pytest.raises(ModalityError, match=r"sighted .*pip install llama4-vision"):
                call()

    def test_a_text_model_refuses_tiles(self, sighted):
        model = sighted(vision=None)
        assert model.modalities == ()
        with pytest.raises(ModalityError, match="sighted is a text model"):
            model.logits([290], torch.zeros(1, 3, 28, 28))
