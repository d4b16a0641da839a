"""A small byte-level tokenizer, trained here so that no licensed file is needed."""

import json

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers

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
