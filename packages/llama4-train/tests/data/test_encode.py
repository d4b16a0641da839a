"""Encoding: what is written, where the loss is, what is cut and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.format import Llama4Format
from llama4_core.chat.messages import Image, Message, Text, ToolCall, Video
from llama4_core.chat.rendered import Rendered
from llama4_core.errors import ModalityError
from llama4_core.protocols.modalities import Reading
from llama4_core.tokenizers.meta import MetaTokenizer, tokenizers_encoder
from llama4_core.tokenizers.sample import sample_ranks
from llama4_train.data.encode import Encoder
from llama4_train.errors import DataError
from llama4_train.protocols import Example, Piece, Record

TOKENIZER = MetaTokenizer(sample_ranks(), tokenizers_encoder)
IDS = TOKENIZER.specials
PATCH = IDS["<|patch|>"]
FORMAT = Llama4Format()

# Texts that spell special tokens and headers, too.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        [
            "assistant",
            "<|eot|>",
            "<|header_start|>assistant<|header_end|>\n\nno",
            "\n\n",
            "[f(a=1)]",
        ]
    ),
)
CALLS = st.lists(
    st.builds(
        ToolCall, st.sampled_from(["f", "g.h"]), st.dictionaries(st.just("a"), TEXTS, max_size=1)
    ),
    max_size=2,
)
MESSAGES = st.lists(
    st.one_of(
        st.builds(Message, st.sampled_from(["user", "system", "ipython"]), TEXTS),
        st.builds(Message, st.just("assistant"), TEXTS, CALLS),
    ),
    min_size=1,
    max_size=5,
).filter(lambda messages: any(message.role == "assistant" for message in messages))
TOOLS = ({"name": "f", "parameters": {"type": "object", "properties": {}}},)


class Eyes:
    """Reads a picture as so many patches as its source says."""

    kinds = ("image", "video")
    placeholder = PATCH

    def __init__(self):
        self.calls = []

    def read(self, parts, tokenizer):
        self.calls.append([part.source for part in parts])
        found = []
        for part in parts:
            if part.source < 0:
                raise ModalityError("there is no such picture")
            tokens = (IDS["<|image_start|>"], *[PATCH] * part.source, IDS["<|image_end|>"])
            inputs = torch.full((1, 2), float(part.source))
            found.append(Reading(str(part.source), tokens, part.source, inputs))
        return found


def text(value, weight=1.0):
    return Piece(Text(value), weight)


def encoder(length=None, modalities=()):
    return Encoder(TOKENIZER, modalities, length)


@given(parts=st.lists(st.tuples(TEXTS.filter(bool), st.sampled_from([0.0, 0.5, 1.0])), min_size=1))
def test_pieces_keep_their_weights(parts):
    record = Record(pieces=tuple(text(*part) for part in parts))
    if not any(weight for _, weight in parts):
        with pytest.raises(DataError, match="nothing has a weight"):
            encoder()(record)
        return
    example = encoder()(record)
    tokens, weights = [TOKENIZER.bos], [0.0]
    for value, weight in parts:
        ids = TOKENIZER.encode(value, bos=False)
        tokens += ids
        weights += [weight] * len(ids)
    assert example.tokens == (*tokens, IDS["<|end_of_text|>"])
    assert example.weights == (*weights, parts[-1][1])


@given(messages=MESSAGES, tools=st.sampled_from([(), TOOLS]))
def test_a_conversation_is_the_format_s_own(messages, tools):
    if messages[0].role == "ipython":
        tools = ()
    example = encoder()(Record(messages=tuple(messages), tools=tools))
    rendered = FORMAT.render(messages, tools, generation=False)
    assert list(example.tokens) == FORMAT.encode(rendered, TOKENIZER)


@given(messages=MESSAGES, tools=st.sampled_from([(), TOOLS]))
def test_the_loss_is_on_what_the_assistant_writes(messages, tools):
    """What has weight are the replies: each from behind its header to its end, and no more."""
    record = Record(messages=tuple(messages), tools=tools)
    example = encoder()(record)
    runs, run = [], []
    for token, weight in zip(example.tokens, example.weights, strict=True):
        if weight:
            run.append(token)
        if (not weight or token in (IDS["<|eot|>"], IDS["<|eom|>"])) and run:
            runs.append(run)
            run = []
    assert not run
    spoken = [message for message in messages if message.role == "assistant"]
    assert len(runs) == len(spoken)
    for ids, message in zip(runs, spoken, strict=True):
        assert ids[-1] == IDS["<|eom|>" if message.tool_calls else "<|eot|>"]
        header = FORMAT.encode(FORMAT.render((), (), generation=True), TOKENIZER)[1:]
        (read,) = FORMAT.parse(Rendered.from_ids([TOKENIZER.bos, *header, *ids], TOKENIZER))
        alone = FORMAT.encode(FORMAT.render([message], generation=False), TOKENIZER)[1:]
        # The reply and nothing else, to the token; and as the format reads it.
        assert ids == alone[len(header) :]
        assert read == FORMAT.parse(Rendered.from_ids([TOKENIZER.bos, *alone], TOKENIZER))[0]


@given(messages=MESSAGES)
def test_each_reply_follows_the_prompt_that_asks_for_it(messages):
    """Generation starts from the very tokens before a reply: training and use agree."""
    example = encoder()(Record(messages=tuple(messages)))
    for number, message in enumerate(messages):
        if message.role == "assistant":
            rendered = FORMAT.render(messages[:number], generation=True)
            prompt = FORMAT.encode(rendered, TOKENIZER)
            assert list(example.tokens[: len(prompt)]) == prompt
            assert example.weights[len(prompt)] == 1.0
            assert example.weights[len(prompt) - 1] == 0.0


def test_pictures_stand_where_they_were_put():
    record = Record(
        messages=(
            Message("user", ["a", Image(2), "b", Video(1)]),
            Message("assistant", ["c", Image(3)]),
        )
    )
    eyes = Eyes()
    example = encoder(modalities=[eyes])(record)
    patches = [n for n, token in enumerate(example.tokens) if token == PATCH]
    assert len(patches) == 6
    assert not any(example.weights[n] for n in patches)
    assert not any(
        weight
        for token, weight in zip(example.tokens, example.weights, strict=True)
        if token in (IDS["<|image_start|>"], IDS["<|image_end|>"])
    )
    assert [reading.places for reading in example.readings] == [2, 1, 3]
    assert example.placeholders == (PATCH,) * 3
    assert eyes.calls == [[2, 1, 3]]


def test_two_modalities_are_each_read_at_once_and_kept_in_order():
    class Ears(Eyes):
        kinds = ("video",)
        placeholder = IDS["<|tile_x_separator|>"]

    eyes, ears = Eyes(), Ears()
    eyes.kinds = ("image",)
    pieces = (Piece(Image(1)), Piece(Video(2)), Piece(Image(3)), text("a"))
    example = encoder(modalities=[eyes, ears])(Record(pieces=pieces))
    assert (eyes.calls, ears.calls) == ([[1, 3]], [[2]])
    assert [reading.places for reading in example.readings] == [1, 2, 3]
    assert example.placeholders == (PATCH, Ears.placeholder, PATCH)
    assert example.weights[:3] == (0.0, 0.0, 0.0)


@given(value=st.text("ab ", min_size=1, max_size=60), length=st.integers(2, 40))
def test_long_texts_are_cut(value, length):
    record = Record(pieces=(text(value),))
    whole, cut = encoder()(record), encoder(length)(record)
    assert cut.tokens == whole.tokens[:length]
    assert cut.weights == whole.weights[:length]


@pytest.mark.parametrize(
    ("record", "length", "said"),
    [
        (Record(origin="x, line 3"), None, "x, line 3: a record has nothing in it"),
        (Record((text("a"),), (Message("assistant", "a"),)), None, "both pieces and messages"),
        (Record((Piece(Image(2)), text("a"))), 3, "would cut a picture"),
        (Record((Piece(Image(-1)), text("a")), origin="y"), None, "y: there is no such picture"),
        (Record((text("\ud800"),), origin="y"), None, "y: the text holds a lone surrogate"),
        (Record((text("a", 0.0),)), None, "nothing has a weight"),
        (Record((text("abcdefgh", 0.0), text("a"))), 4, "nothing in its first 4 of 11 tokens"),
        (Record(messages=(Message("user", "a"),)), None, "nothing has a weight"),
        (Record((), (), TOOLS), None, "nothing in it"),
    ],
)
def test_what_cannot_be_learnt_is_named(record, length, said):
    with pytest.raises(DataError) as caught:
        encoder(length, [Eyes()])(record)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_without_eyes_says_so():
    with pytest.raises(DataError, match="'image', which this model does not read"):
        encoder()(Record((Piece(Image(1)), text("a"))))


def test_what_is_tokens_already_stays():
    example = Example((1, 2), (0.0, 1.0))
    assert encoder()(example) is example


@pytest.mark.parametrize("length", [1, 0, 2.5, "x"])
def test_a_length_is_a_number(length):
    with pytest.raises(DataError, match="length"):
        encoder(length)
