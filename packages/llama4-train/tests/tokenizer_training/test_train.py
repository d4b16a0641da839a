"""Learnt tokenizers: both files give the same ids, all text comes back, the same every time."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.format import Llama4Format
from llama4_core.chat.messages import Image, Message, Text
from llama4_core.tokenizers import load_tokenizer, ranks_of
from llama4_core.tokenizers.meta import PATTERN
from llama4_core.tokenizers.specials import SPECIALS
from llama4_train.data.skipping import Skipping
from llama4_train.errors import DataError
from llama4_train.protocols import Piece, Record
from llama4_train.tokenizer_training import SMALL, learn_ranks, texts_of, train_tokenizer
from llama4_train.tokenizer_training.texts import source_texts
from llama4_train.worlds import WorldSource

WORDS = [
    "the house of 1984",
    "the hour of 2024",
    " houses",
    "日本の家",
    "mañana 🦙",
    "x = 12_345\n",
]
SENTENCES = source_texts(WorldSource(world="sentences"), limit=40)
TEXTS = [" ".join(WORDS[n % 6 :] + WORDS[: n % 5]) for n in range(40)] + list(SENTENCES)
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [*WORDS, "<|eot|>", "<|begin_of_text|>", "0123456789", " \n\n\t ", "\r\n", "\u0301"]
)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    learnt = train_tokenizer(TEXTS, folder, vocabulary=2048 + 256 + 60)
    return folder, learnt


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    learnt = train_tokenizer(
        TEXTS, folder, vocabulary=15 + 256 + 60, specials="small", digits="single"
    )
    return load_tokenizer(folder), learnt


def test_both_formats_are_one_tokenizer(full, both):
    folder, learnt = full
    assert {path.name for path in learnt.files} == {
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
    }
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in learnt.files
    )
    ours, metas = both
    assert ours.vocabulary == metas.vocabulary == learnt.vocabulary == 2364
    assert ours.specials == metas.specials
    assert tuple(ours.specials) == learnt.specials == SPECIALS
    assert ours.bos == metas.bos == 316
    # Core takes it for Llama 4's own kind, and turns it into ranks again.
    assert len(ranks_of((folder / "tokenizer.json").read_text())) == learnt.ranks == 316


@pytest.fixture(scope="module")
def both(full):
    folder, _ = full
    return load_tokenizer(folder), load_tokenizer(folder / "tokenizer.model")


@given(text=ANY)
def test_any_text_comes_back(both, text):
    ours, metas = both
    ids = ours.encode(text)
    assert ids == metas.encode(text)
    assert ours.decode(ids) == metas.decode(ids) == text
    assert max(ids[1:], default=0) < 316


@given(text=ANY)
def test_a_small_one_does_as_well(small, text):
    tokenizer, _ = small
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids[0] == tokenizer.bos == 316
    assert max(ids[1:], default=0) < 316


def test_pairs_are_learnt(small):
    tokenizer, learnt = small
    assert learnt.texts == len(TEXTS)
    assert learnt.bytes == sum(len(text.encode()) for text in TEXTS)
    # Words that come often are one or two tokens.
    assert len(tokenizer.encode(" houses", bos=False)) <= 2
    tokens = sum(len(tokenizer.encode(text, bos=False)) for text in TEXTS)
    assert tokens < 0.75 * learnt.bytes


@pytest.mark.parametrize("digits", ["single", "triple"])
def test_the_most_common_pair_is_merged_first(digits):
    regex = pytest.importorskip("regex")
    texts = TEXTS if digits == "single" else ["1984 and 2024 " * 9]
    pattern = PATTERN.replace("{1,3}", "") if digits == "single" else PATTERN
    pairs = Counter(
        data[at : at + 2]
        for text in texts
        for piece in regex.findall(pattern, text)
        for data in [piece.encode()]
        for at in range(len(data) - 1)
    )
    assert pairs[learn_ranks(texts, 257, digits=digits)[256]] == max(pairs.values())


@given(count=st.integers(0, 60))
def test_a_smaller_vocabulary_is_the_front_of_a_larger(small, count):
    more = learn_ranks(TEXTS, 256 + 60)
    assert learn_ranks(TEXTS, 256 + count) == more[: 256 + count]


@given(number=st.integers(0, 10**12))
def test_digits_stay_single(small, number):
    tokenizer, _ = small
    assert len(tokenizer.encode(str(number), bos=False)) == len(str(number))


def test_or_not():
    pairs = learn_ranks(["2024 1984"] * 9, 256 + 3, digits="triple")[256:]
    assert any(pair.isdigit() for pair in pairs)


def test_a_small_one_writes_chats(small):
    tokenizer, learnt = small
    assert learnt.specials == SMALL == tuple(tokenizer.specials)
    assert [path.name for path in learnt.files] == ["tokenizer.json", "tokenizer_config.json"]
    # The order of the large vocabulary, so that nobody has to learn another one.
    assert sorted(SMALL, key=SPECIALS.index) == list(SMALL)
    chat = [
        Message("user", ["What is on ", Image(), "?"]),
        Message("assistant", "A house."),
    ]
    rendered = Llama4Format().render(chat)
    image = [tokenizer.specials[name] for name in SMALL[-6:]]
    ids = Llama4Format().encode(rendered, tokenizer, expand=lambda _: image)
    assert set(ids) >= {tokenizer.specials["<|eot|>"], tokenizer.specials["<|header_start|>"]}


def test_it_is_the_same_every_time(tmp_path):
    program = (
        "import sys; from llama4_train.tokenizer_training import learn_ranks\n"
        "texts = sys.stdin.read().split('\\0')\n"
        "print(b' '.join(learn_ranks(texts, 256 + 120)).hex())"
    )
    found = set()
    for threads, seed in (("1", "1"), ("4", "2")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input="\0".join(TEXTS),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed},
        )
        found.add(done.stdout)
    found.add(b" ".join(learn_ranks(TEXTS, 256 + 120)).hex() + "\n")
    assert len(found) == 1


def test_progress_counts_what_is_read(tmp_path):
    calls = []
    train_tokenizer(
        TEXTS,
        tmp_path,
        vocabulary=300,
        specials="small",
        progress=lambda *done: calls.append(done),
    )
    assert len(calls) == len(TEXTS)
    assert calls[-1] == (len(TEXTS), sum(len(text.encode()) for text in TEXTS))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"vocabulary": 2303}, "expected at least 2,304"),
        ({"vocabulary": "x"}, "vocabulary is 'x'"),
        ({"specials": "smal"}, "did you mean 'small'"),
        ({"digits": "one"}, "digits are 'one'"),
        ({"vocabulary": 90_000}, "tokens, not 87,952"),
        ({"texts": []}, "the texts give 256 tokens"),
        ({"texts": ["a \ud800"]}, "lone surrogate at character 2"),
    ],
)
def test_wrong_settings_write_nothing(tmp_path, settings, said):
    given = {"texts": TEXTS, "vocabulary": 2400, **settings}
    with pytest.raises(DataError, match=said):
        train_tokenizer(given.pop("texts"), tmp_path / "new", **given)
    assert not (tmp_path / "new").exists()


def test_a_tokenizer_is_not_overwritten(tmp_path):
    (tmp_path / "tokenizer.model").write_text("mine")
    with pytest.raises(DataError, match=r"tokenizer\.model is there already"):
        train_tokenizer(TEXTS, tmp_path, vocabulary=300, specials="small")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.model"]


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written to"):
        train_tokenizer(TEXTS, tmp_path / "file" / "x", vocabulary=300, specials="small")


def test_the_texts_of_a_record_are_what_is_tokenised():
    pieces = Record(pieces=(Piece(Text("a"), 0.0), Piece(Image()), Piece(Text("b"))))
    assert texts_of(pieces) == ["a", "b"]
    tool = {"name": "now", "parameters": {"type": "object", "properties": {}}}
    chat = Record(messages=(Message("user", "hi"), Message("assistant", "yes")), tools=(tool,))
    written = texts_of(chat)
    assert "hi" in written
    assert "yes" in written
    assert any(json.dumps(tool["name"]) in text for text in written)
    assert not any("<|" in text for text in written)


def test_a_source_without_an_end_needs_a_limit():
    with pytest.raises(DataError, match="never ends"):
        list(source_texts(WorldSource(world="arithmetic")))
    usable = Skipping()
    assert list(source_texts(WorldSource(world="arithmetic"), usable, 3))
    assert usable.used == 3
