"""Generation with real models: cached is uncached, a batch is each alone; transformers agrees."""

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import llama4_core
from llama4_core.model.initialise import initialise
from llama4_core.specs import ModelSpec, MoESpec, RopeSpec, TemperatureSpec
from llama4_core.specs.layers import every, llama4_layers

TINY = Path(__file__).parent / "data" / "tiny-hf"
VOCABULARY = 97


@pytest.fixture(scope="module")
def model():
    """Scout's pattern with a chunk of 8 tokens, so that short texts cross several."""
    spec = ModelSpec(
        name="test",
        vocabulary=VOCABULARY,
        width=32,
        norm_eps=1e-5,
        max_positions=128,
        tied=False,
        layers=llama4_layers(
            4,
            heads=4,
            kv_heads=2,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=8,
            qk_norm=True,
            temperature=TemperatureSpec(scale=0.1, floor=8),
            position_free=every(4, 4),
            moe_layers=every(1, 4),
            moe=MoESpec(4, top_k=1, width=16, shared_width=16, router="sigmoid-top-k"),
            dense=None,
        ),
        dtype="float32",
    )
    made = llama4_core.assemble(spec, device="cpu")
    initialise(made, 0)
    return made


def check_greedy(model, prompt, tokens):
    """Each token wins in one uncached forward over the whole text."""
    with torch.no_grad():
        logits = model.logits([*prompt, *tokens])[len(prompt) - 1 : -1]
    best = logits.topk(2)
    # Orders of float32 sums differ by about 1e-6; a closer race may go either way.
    assume(float((best.values[:, 0] - best.values[:, 1]).min()) > 1e-4)
    assert best.indices[:, 0].tolist() == list(tokens)


PROMPTS = st.lists(
    st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=20), min_size=1, max_size=4
)


@given(prompts=PROMPTS, count=st.integers(1, 12), chunk=st.none() | st.integers(1, 12))
def test_cached_ragged_and_chunked_equals_uncached(model, prompts, count, chunk):
    found = model.generate(prompts, max_tokens=count, prefill_chunk=chunk)
    for prompt, one in zip(prompts, found, strict=True):
        assert len(one.tokens) == count
        check_greedy(model, prompt, one.tokens)


def test_log_probabilities_equal_a_whole_forward(model):
    prompt = [3, 1, 4, 1, 5]
    found = model.generate(prompt, max_tokens=20, temperature=1.0, seed=5, logprobs=0)
    with torch.no_grad():
        table = model.logits([*prompt, *found.tokens]).log_softmax(-1)
    own = table[range(len(prompt) - 1, len(prompt) + 19), list(found.tokens)]
    # Two paths through four float32 layers.
    torch.testing.assert_close(torch.tensor(found.logprobs), own, rtol=0, atol=2e-5)


def test_every_cache_gives_the_same_tokens(model):
    prompts = [[1, 2, 3], list(range(20))]
    bounded, full = (
        model.generate(prompts, max_tokens=20, cache=cache) for cache in ("bounded", "full")
    )
    assert bounded == full


def test_a_model_that_has_generated_can_be_trained(model):
    model.generate([1, 2, 3], max_tokens=3)
    loss = model.logits([1, 2, 3]).logsumexp(-1).sum()
    loss.backward()
    assert model.embedding.weight.grad is not None
    model.zero_grad()


def test_running_out_of_context(model):
    found = model.generate([7] * 120, max_tokens=None)
    assert len(found.tokens) == 8
    assert found.stop_reason == "context"


@pytest.fixture(scope="module")
def tiny():
    return llama4_core.load(TINY)


def test_greedy_text_is_that_of_transformers(tiny):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    prompt = tiny.tokenizer.encode("The north wind and the sun")
    expected = theirs.generate(
        torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=None
    )[0, len(prompt) :].tolist()
    ours = llama4_core.load(TINY, dtype="float32")
    found = ours.generate("The north wind and the sun", max_tokens=24, ignore_eos=True)
    assert list(found.tokens) == expected


def test_tokenizer_is_that_of_transformers(tiny):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(TINY / "tokenizer.json"))
    for text in ("The sun, 1234!", "naïve 日本 🦙\n\n  x", "say <|eot|> <|header_start|>user"):
        assert tiny.tokenizer.encode(text, bos=False, specials=True) == theirs.encode(
            text, add_special_tokens=False
        )
        plain = tiny.tokenizer.encode(text, bos=False)
        assert plain == theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert tiny.tokenizer.decode(plain) == text
