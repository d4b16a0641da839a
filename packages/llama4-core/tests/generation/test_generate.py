"""The generation loop on an exact fake: properties 48 (greedy), 51 and 54."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import GenerationError
from llama4_core.generation import generate, stream
from llama4_core.generation.sampling import log_probabilities

EOS = 257
PROMPTS = st.lists(st.lists(st.integers(0, 266), min_size=1, max_size=9), min_size=1, max_size=5)
SETTINGS = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(1, 12),
        "temperature": st.sampled_from([0.0, 0.5, 1.0, 2.0]),
        "top_k": st.none() | st.integers(1, 20),
        "top_p": st.none() | st.floats(0.1, 1.0),
        "stop": st.lists(st.sampled_from(["a", "ab", "the", "日", "é", "\ufffd", "0"]), max_size=2),
        "logprobs": st.none() | st.integers(0, 3),
        "prefill_chunk": st.none() | st.integers(1, 10),
    }
)


def naive(model, prompt, count):
    """Greedy continuation by definition: the whole history again for each token."""
    history = list(prompt)
    for _ in range(count):
        history.append(int(model.logits(history).argmax()))
        if history[-1] == EOS:
            break
    return tuple(history[len(prompt) :])


@given(prompts=PROMPTS, count=st.integers(1, 15), chunk=st.none() | st.integers(1, 10))
def test_greedy_is_the_definition(make, prompts, count, chunk):
    model = make()
    found = generate(model, prompts, max_tokens=count, prefill_chunk=chunk)
    for prompt, one in zip(prompts, found, strict=True):
        assert one.tokens == naive(model, prompt, count)
        assert one.prompt_tokens == tuple(prompt)
        assert one.stop_reason == ("stop_token" if one.tokens[-1] == EOS else "length")
        assert one.text == model.tokenizer.decode(one.tokens)


@given(prompts=PROMPTS, settings=SETTINGS, data=st.data())
def test_a_batch_in_any_order_and_chunking_is_each_alone(make, prompts, settings, data):
    seeds = [data.draw(st.integers(0, 99)) for _ in prompts]
    alone = [
        generate(make(), prompt, seed=seed, **{**settings, "prefill_chunk": None})
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    order = data.draw(st.permutations(range(len(prompts))))
    together = generate(
        make(), [prompts[i] for i in order], seed=[seeds[i] for i in order], **settings
    )
    assert together == [alone[i] for i in order]


@given(prompts=PROMPTS, settings=SETTINGS, seed=st.integers(0, 99))
def test_pieces_concatenate_to_the_result(make, prompts, settings, seed):
    whole = generate(make(), prompts, seed=seed, **settings)
    pieces = list(stream(make(), prompts, seed=seed, **settings))
    for row, one in enumerate(whole):
        own = [piece for piece in pieces if piece.row == row]
        assert "".join(piece.text for piece in own) == one.text
        assert tuple(token for piece in own for token in piece.tokens) == one.tokens
        assert [piece.stop_reason for piece in own] == [None] * (len(own) - 1) + [one.stop_reason]
        if settings["logprobs"] is None:
            assert one.logprobs is None
            assert all(piece.logprobs is None for piece in own)
        else:
            assert tuple(x for piece in own for x in piece.logprobs) == one.logprobs
            assert len(one.logprobs) == len(one.tokens)


@given(prompt=PROMPTS.map(lambda prompts: prompts[0]), settings=SETTINGS)
def test_text_is_cut_at_the_first_stop_string(make, prompt, settings):
    free = generate(make(), prompt, **{**settings, "stop": ()})
    bound = generate(make(), prompt, **settings)
    assert bound.tokens == free.tokens[: len(bound.tokens)]
    assert free.text.startswith(bound.text)
    assert not any(stop in bound.text for stop in settings["stop"])
    held = [stop for stop in settings["stop"] if stop in free.text]
    assert (bound.stop_reason == "stop_string") == bool(held)
    if held:
        assert any(free.text.startswith(bound.text + stop) for stop in held)
    else:
        assert bound == free


def test_stop_string_across_tokens_and_characters(model):
    model.say("a", " the", "ba", "bab", EOS)
    found = generate(model, [1], stop="heba")
    assert (found.text, found.stop_reason, len(found.tokens)) == ("a t", "stop_string", 3)


def test_what_might_become_a_stop_string_is_held_back(model):
    model.say("a", "ba", "ab", EOS)
    assert [piece.text for piece in stream(model, [1], stop="abac")] == ["", "", "aba", "ab"]


def test_a_character_is_never_split(model):
    table = model.tokenizer.pieces
    first, second = table.index("日".encode()[:2]), table.index("日".encode()[2:] + b"a")
    model.say("a", first, second, first, EOS)
    pieces = list(stream(model, [1]))
    assert [piece.text for piece in pieces] == ["a", "", "日a", "", "\ufffd"]
    assert pieces[-1].stop_reason == "stop_token"


def test_the_stop_token_is_in_the_tokens_and_not_in_the_text(model):
    model.say("a", "ab", "ba", EOS)
    ab = model.tokenizer.pieces.index(b"ab")
    for ignore in (False, True):
        found = generate(model, [1], stop_tokens=[ab], ignore_eos=ignore)
        assert (found.text, found.tokens[-1], found.stop_reason) == ("a", ab, "stop_token")
    assert generate(model, [1]).text == "aabba"
    assert len(generate(model, [1], ignore_eos=True, max_tokens=9).tokens) == 9


@pytest.mark.parametrize("prompt", [1, 9, 10])
def test_the_context_ends_the_sequence(make, prompt):
    model = make(longest=10, eos=())
    found = generate(model, [5] * prompt, max_tokens=None)
    assert len(found.tokens) + prompt == 10
    assert found.stop_reason == "context"
    assert generate(make(longest=10, eos=()), [5] * prompt, max_tokens=50) == found


def test_a_prompt_that_fills_the_context_does_not_disturb_the_others(make):
    model = make(longest=6, eos=())
    prompts = [[1] * 6, [2, 3], [4] * 6, [5]]
    assert generate(model, prompts, max_tokens=2) == [
        generate(model, prompt, max_tokens=2) for prompt in prompts
    ]
    assert [piece.row for piece in stream(model, prompts, max_tokens=1)] == [0, 2, 1, 3]


def test_length_and_context_at_once_is_length(make):
    assert generate(make(longest=6, eos=()), [1, 2], max_tokens=4).stop_reason == "length"


def test_finished_rows_are_fed_nothing(model):
    generate(model, [[1], [2, 3, 4]], max_tokens=1)
    assert model.forwards == [(1, 3)]
    model.forwards.clear()
    model.say("a", "a", EOS)
    # The script counts from the length of the history: the longer prompt is one token ahead.
    generate(model, [[1], [2, 3]], max_tokens=8)
    assert model.forwards == [(1, 2), (1, 1), (1, 0)]


def test_prefill_in_chunks_reports_progress(model):
    seen = []
    prompts = [[1] * 5, [2] * 2, [3] * 3]
    generate(
        model, prompts, max_tokens=1, prefill_chunk=2, progress=lambda *done: seen.append(done)
    )
    assert model.forwards == [(2, 2, 2), (2, 0, 1), (1, 0, 0)]
    assert seen == [(6, 10), (9, 10), (10, 10)]


def test_seeds(make):
    settings = {"temperature": 1.0, "max_tokens": 8, "ignore_eos": True}
    one, two = generate(make(), [[1], [1]], seed=3, **settings)
    assert one.tokens != two.tokens
    assert generate(make(), [1], seed=3, **settings) == one
    assert generate(make(), [1], seed=4, **settings) == two
    assert generate(make(), [[1], [1]], seed=[4, 3], **settings) == [two, one]
    many = generate(make(), [[1]] * 8, **settings)
    assert len({found.tokens for found in many}) == 8


def test_log_probabilities_are_of_the_plain_distribution(model):
    settings = {"temperature": 2.0, "top_k": 5, "max_tokens": 6, "ignore_eos": True}
    found = generate(model, [1, 2], logprobs=2, **settings)
    history = [1, 2]
    for token, own, alternatives in zip(
        found.tokens, found.logprobs, found.alternatives, strict=True
    ):
        logits = model.logits(history)[None]
        chosen, ids, values = log_probabilities(logits, torch.tensor([token]), 2)
        assert own == chosen.item()
        assert alternatives == tuple(zip(ids[0].tolist(), values[0].tolist(), strict=True))
        history.append(token)
    assert generate(model, [1, 2], logprobs=0, **settings).alternatives is None


def test_strings_begin_with_the_beginning_of_text(model):
    assert generate(model, "ab", max_tokens=1).prompt_tokens == (256, 97, 98)
    assert generate(model, ["a", [5]], max_tokens=1)[1].prompt_tokens == (5,)
    assert generate(model, torch.tensor([5, 6]), max_tokens=1).prompt_tokens == (5, 6)
    assert len(generate(model, torch.tensor([[5, 6], [7, 8]]), max_tokens=1)) == 2


def test_without_a_tokenizer_there_is_no_text(model):
    expected = generate(model, [1], max_tokens=3)
    model.tokenizer = None
    found = generate(model, [1], max_tokens=3)
    assert found.text is None
    assert found.tokens == expected.tokens
    assert all(piece.text == "" for piece in stream(model, [1], max_tokens=3))


def test_inference_mode_does_not_leak_out_of_a_stream(model):
    pieces = stream(model, [1], max_tokens=3, ignore_eos=True)
    next(pieces)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("prompt", "settings", "words"),
    [
        ("", {}, ["prompt 0 is empty"]),
        ([], {}, ["prompt 0 is empty"]),
        (["a", ""], {}, ["prompt 1 is empty"]),
        ([[1], []], {}, ["prompt 1 is empty"]),
        ([1] * 65, {}, ["65", "64", "shorten"]),
        ("a" * 64, {}, ["65", "64"]),
        ([[1], [2, 267]], {}, ["prompt 1", "267", "266"]),
        ([1, -1], {}, ["-1", "266"]),
        ([1, 1.5], {}, ["token id", "1.5"]),
        ([1, True], {}, ["token id"]),
        (torch.tensor([1.0, 2.0]), {}, ["token id"]),
        (5, {}, ["int", "string"]),
        (None, {}, ["NoneType"]),
        (torch.tensor(5), {}, ["Tensor", "list of token ids"]),
        (b"ab", {}, ["bytes", "string"]),
        ([1], {"temperature": math.nan}, ["temperature", "nan"]),
        ([1], {"top_p": 0.0}, ["top_p", "0.0"]),
        ([1], {"max_tokens": 0}, ["max_tokens", "0"]),
        ([1], {"max_tokens": 2.0}, ["max_tokens", "2.0"]),
        ([1], {"prefill_chunk": 0}, ["prefill_chunk", "0"]),
        ([1], {"logprobs": -1}, ["logprobs", "-1"]),
        ([1], {"logprobs": True}, ["logprobs", "True"]),
        ([1], {"seed": -1}, ["seed", "-1"]),
        ([1], {"seed": 1.5}, ["seed", "1.5"]),
        ([1], {"seed": [1, 2]}, ["2 numbers for 1 prompts"]),
        ([[1], [2]], {"seed": [1, "x"]}, ["seed", "'x'"]),
        ([1], {"stop": ""}, ["stop contains ''"]),
        ([1], {"stop_tokens": ["a"]}, ["stop token", "'a'"]),
        ([1], {"stop_tokens": [900]}, ["stop token", "900", "266"]),
    ],
)
def test_bad_input_is_refused_before_the_model_runs(model, prompt, settings, words):
    for call in (generate, stream):
        with pytest.raises(GenerationError) as caught:
            call(model, prompt, **settings)
        assert all(word in str(caught.value) for word in words)
        assert "\n" not in str(caught.value)
    assert not model.forwards


@pytest.mark.parametrize(("prompt", "settings"), [("a", {}), ([1], {"stop": "x"})])
def test_text_without_a_tokenizer_says_what_to_do(model, prompt, settings):
    model.tokenizer = None
    with pytest.raises(GenerationError, match=r"no tokenizer.*tokenizer\.json"):
        generate(model, prompt, **settings)


def test_logits_that_are_no_numbers_are_named(model):
    model.project = lambda hidden: hidden * math.nan
    with pytest.raises(GenerationError, match="row 0 contain nan"):
        generate(model, [1])
