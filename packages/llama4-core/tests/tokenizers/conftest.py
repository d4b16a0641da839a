"""Small byte-level tokenizers, trained here so that no licensed file is needed."""

import itertools
import json
import random
from collections import Counter

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers

from llama4_core.tokenizers import write_ranks

SPECIALS = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot|>")
WORDS = [
    "the cat sat on the mat",
    "Hello, world! 1234",
    "naïve café – 日本語 🦙",
    "<|eot|> <added>",
]
# Cuts words and runs of other characters, as the pattern of Llama 4 does.
PATTERN = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+")


def build() -> tokenizers.Tokenizer:
    built = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(PATTERN, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    built.train_from_iterator(WORDS * 4, trainer)
    built.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    bos = SPECIALS[0]
    built.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, built.token_to_id(bos))]
    )
    return built


@pytest.fixture(scope="session")
def library() -> tokenizers.Tokenizer:
    """The library's own object, an oracle."""
    return build()


@pytest.fixture(scope="session")
def content(library) -> str:
    return library.to_str()


@pytest.fixture
def folder(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content, encoding="utf-8")
    settings = {"bos_token": {"content": SPECIALS[0]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return tmp_path


CORPUS = (
    "The quick brown fox can't jump over 13 lazy dogs, and the dogs don't mind; they'll sleep. "
    "Où est le café déjà ouvert ? Привет, мир! 你好，世界。これはテストです。 안녕하세요 "
    "🦙🦙 👨\u200d👩\u200d👧 "
    "def f(x):\n    return {'a': x ** 2}\r\n\t# 1234567\n\n   AAAA aaaa ----==== "
    # Tokens across the borders of the split, so that ids tell where it is.
    "!\n/ !\n/ !\n/ 's! 's! a1 a1 1a 1a !a !a \nA \nA /A /A 12345 12345 "
) * 2


def train(size: int) -> tuple[bytes, ...]:
    """Ranks: the bytes in a mixed order, then the most frequent neighbours, joined."""
    ranks = [bytes((byte,)) for byte in range(256)]
    random.Random(0).shuffle(ranks)
    words = [[bytes((byte,)) for byte in word.encode()] for word in CORPUS.split(" ")]
    words += [[b" ", *word] for word in words] + [[b" "] * n for n in (2, 3, 8, 40)]
    while len(ranks) < size:
        pairs = Counter(pair for word in words for pair in itertools.pairwise(word))
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        if left + right not in ranks:
            ranks.append(left + right)
        for word in words:
            at = 0
            while at < len(word) - 1:
                if (word[at], word[at + 1]) == (left, right):
                    word[at : at + 2] = [left + right]
                at += 1
    return tuple(ranks)


@pytest.fixture(scope="session")
def ranks() -> tuple[bytes, ...]:
    """450 tokens by rank."""
    return train(450)


@pytest.fixture(scope="session")
def model_file(ranks, tmp_path_factory):
    """A file as Meta's tokenizer.model."""
    file = tmp_path_factory.mktemp("meta") / "tokenizer.model"
    write_ranks(ranks, file)
    return file
