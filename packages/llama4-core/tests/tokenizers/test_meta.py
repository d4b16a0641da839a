"""Llama 4's tokenizer from ranks: tokenizers, tiktoken and the stream agree on any text."""

import json
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama4_core.errors import TokenizerError
from llama4_core.tokenizers import load_tokenizer
from llama4_core.tokenizers.merges import merges
from llama4_core.tokenizers.meta import MetaTokenizer, tiktoken_encoder, tokenizers_encoder
from llama4_core.tokenizers.specials import SPECIALS

tiktoken = pytest.importorskip("tiktoken")

STRINGS = 3000
# Where splitting is difficult, and where two libraries' tables of Unicode might differ.
HARD = [
    *("'s", "'S", "'\u017f", "'LL", "'\ufb06", "n't", "the", " the", "The", "THE", "McDonald"),
    *(
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\x0b",
        "\x85",
        "\u2028",
        "\u3000",
        "\ufeff",
        "\0",
        "/",
        "//\n",
        "!\n/",
    ),
    *("1", "1234", "٣", "½", "²", "é", "e\u0301", "\u0301", "ǅ", "ʰ", "ª", "İ", "ß", "日本", "🦙"),
    *("<|eot|>", "<|image|>", "<|", "|>", "<|reserved_special_token_903|>", "👨\u200d👩\u200d👧"),
]


def strings(count, seed=4):
    """Random texts of Unicode: difficult pieces among characters of any plane."""
    draw = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(draw.randrange(1, 24)):
            kind = draw.random()
            if kind < 0.5:
                parts.append(draw.choice(HARD))
            else:
                limit = 0x80 if kind < 0.6 else 0x3000 if kind < 0.8 else 0x110000
                number = draw.randrange(limit)
                parts.append(chr(number) if not 0xD800 <= number < 0xE000 else "\ufffd")
        yield "".join(parts)


@pytest.fixture(scope="module")
def ours(model_file):
    return load_tokenizer(model_file, name="meta")


@pytest.fixture(scope="module")
def theirs(model_file):
    return load_tokenizer(model_file, name="meta-tiktoken")


def test_three_thousand_strings(ours, theirs, ranks):
    """Both engines, tiktoken on its own, decoding and streaming; no special token by spelling."""
    own = tiktoken.Encoding(
        "own",
        # From the public description, not from our code.
        pat_str=r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+""",  # noqa: E501
        mergeable_ranks={token: rank for rank, token in enumerate(ranks)},
        special_tokens=dict(ours.specials),
    )
    for text in strings(STRINGS):
        ids = ours.encode(text, bos=False)
        assert ids == theirs.encode(text, bos=False) == own.encode_ordinary(text), text
        assert max(ids) < len(ranks), text
        assert ours.decode(ids) == text
        stream = ours.stream()
        assert "".join([*map(stream.feed, ids), stream.finish()]) == text
        marked = ours.encode(text, bos=False, specials=True)
        assert marked == theirs.encode(text, bos=False, specials=True), text
        assert marked == own.encode(text, allowed_special="all"), text
        assert ours.decode(marked, specials=True) == text


@settings(max_examples=30)
@given(
    tokens=st.sets(st.text("ab c", min_size=2, max_size=7), max_size=40),
    texts=st.lists(st.text("ab c", min_size=1, max_size=40), min_size=1, max_size=30),
    seed=st.integers(0, 2**32),
)
def test_any_table_of_ranks(tokens, texts, seed):
    """Not only trained ones: in any order, also with tokens that no merge reaches."""
    ranks = [bytes((byte,)) for byte in range(256)] + sorted(map(str.encode, tokens))
    random.Random(seed).shuffle(ranks)
    ours, theirs = tokenizers_encoder(ranks), tiktoken_encoder(ranks)
    # Each token as a word of its own too: found whole, whether or not a merge reaches it.
    for text in (*texts, *tokens):
        assert list(ours(text)) == list(theirs(text))


def test_merges_of_a_trained_table(ranks):
    """One for each token, of two tokens that come before it."""
    found = merges(ranks)
    rank = {token: number for number, token in enumerate(ranks)}
    assert [left + right for left, right in found] == [t for t in ranks if len(t) > 1]
    assert all(max(rank[left], rank[right]) < rank[left + right] for left, right in found)


@pytest.mark.parametrize("unit", ["a", " ", "1", "A", "\n", "!", "日", "\u0301", " a"])
def test_a_run_of_one_character(ours, theirs, unit):
    text = unit * 120_000
    ids = ours.encode(text)
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == text


def test_a_special_token_is_never_cut(ours):
    """Also where a long text is: the cut goes through the middle of the name."""
    name = "<|header_start|>"
    for text in ("ab " * 133_332 + name, "a" * 24_990 + name):
        assert ours.encode(text, specials=True)[-1] == ours.specials[name]


def test_names_and_sizes(ours, theirs, ranks):
    for tokenizer in (ours, theirs):
        assert tokenizer.vocabulary == len(ranks) + 2048
        assert list(tokenizer.specials.values()) == list(range(len(ranks), len(ranks) + 2048))
        assert tuple(tokenizer.specials) == SPECIALS
        assert tokenizer.bos == len(ranks)
        assert tokenizer.encode("") == [len(ranks)]
        assert tokenizer.decode([len(ranks) - 1]) == ranks[-1].decode("utf-8", "replace")


def test_a_rank_that_spells_a_special_token_is_refused(ranks):
    with pytest.raises(TokenizerError, match=r"'<\|eot\|>'.*special tokens only"):
        MetaTokenizer([*ranks, b"<|eot|>"], tokenizers_encoder)


@pytest.mark.parametrize("bos", ["<|nowhere|>", -1, 10**6])
def test_an_unknown_beginning_of_text_is_refused(ranks, bos):
    with pytest.raises(TokenizerError, match="beginning of text"):
        MetaTokenizer(ranks, tokenizers_encoder, bos=bos)


GOLDENS = Path(__file__).parent / "goldens.json"


@pytest.mark.skipif(
    "LLAMA4_TOKENIZER_MODEL" not in os.environ,
    reason="LLAMA4_TOKENIZER_MODEL names no tokenizer.model of Llama 4",
)
@pytest.mark.parametrize("name", ["meta", "meta-tiktoken"])
def test_the_published_vocabulary(name):
    """Ids of the real file, which its licence keeps out of this repository."""
    goldens = json.loads(GOLDENS.read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(os.environ["LLAMA4_TOKENIZER_MODEL"], name=name)
    assert tokenizer.vocabulary == goldens["n_words"]
    for spelling, number in goldens["special_tokens"].items():
        assert tokenizer.specials[spelling] == number
    for sample in goldens["samples"]:
        text = sample["text"]
        assert tokenizer.encode(text, bos=False) == sample["ids_plain"], sample["name"]
        marked = tokenizer.encode(text, bos=False, specials=True)
        assert marked == sample["ids_special_allowed"], sample["name"]
        assert tokenizer.decode(marked, specials=True) == text
