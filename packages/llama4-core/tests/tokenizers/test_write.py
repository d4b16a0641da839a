"""From ranks to tokenizer.json and back, with transformers as the reader that must agree."""

import json
import random

import pytest

from llama4_core.errors import TokenizerError
from llama4_core.tokenizers import load_tokenizer, ranks_of, tokenizer_json, write_tokenizer_json
from llama4_core.tokenizers.specials import SPECIALS
from llama4_core.tokenizers.write import MODEL, missing_files

TEXTS = [
    "The quick brown fox can't jump over 13 lazy dogs!",
    "Où est le café ? Привет, мир! 日本 🦙 \r\n\n\t  x",
    "<|eot|> <|image|>",
    "",
    "a" * 3000,
]


@pytest.fixture(scope="module")
def written(ranks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("huggingface")
    write_tokenizer_json(ranks, folder)
    return folder


@pytest.fixture(scope="module")
def original(model_file):
    return load_tokenizer(model_file, name="meta")


def test_the_same_tokenizer_in_both_formats(written, original):
    other = load_tokenizer(written)
    assert other.vocabulary == original.vocabulary
    assert other.bos == original.bos
    assert dict(other.specials) == dict(original.specials)
    draw = random.Random(1)
    for text in (*TEXTS, *("".join(draw.choices("ab T'sé1\n<|eot|>", k=40)) for _ in range(200))):
        assert other.encode(text) == original.encode(text)
        assert other.encode(text, specials=True) == original.encode(text, specials=True)


def test_transformers_reads_it(written, original):
    transformers = pytest.importorskip("transformers")
    reader = transformers.PreTrainedTokenizerFast.from_pretrained(written)
    for text in TEXTS:
        assert reader(text)["input_ids"] == original.encode(text, specials=True)
    assert reader.bos_token_id == original.specials["<|begin_of_text|>"]
    assert reader.eos_token_id == original.specials["<|eot|>"]
    assert reader.pad_token_id == original.specials["<|finetune_right_pad|>"]
    assert len(reader) == original.vocabulary


def test_ranks_come_back(ranks):
    text = tokenizer_json(ranks)
    assert ranks_of(text) == ranks
    # As converters write it: every split of a token as a merge, as text, in the order of ids.
    content = json.loads(text)
    vocabulary = content["model"]["vocab"]
    content["model"]["merges"] = [
        f"{name[:at]} {name[at:]}"
        for name in sorted(vocabulary, key=vocabulary.get)
        for at in range(1, len(name))
        if name[:at] in vocabulary and name[at:] in vocabulary
    ]
    for token in content["added_tokens"]:
        vocabulary[token["content"]] = token["id"]
    assert ranks_of(json.dumps(content)) == ranks


def edit_order(content):
    merges = content["model"]["merges"]
    merges[0], merges[-1] = merges[-1], merges[0]


def edit_gap(content):
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] += 1


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (edit_order, "order"),
        (edit_gap, "gaps"),
        (lambda c: c["added_tokens"].pop(), "2047 special tokens"),
        (lambda c: c["model"].update(ignore_merges=False), "ignore_merges"),
        (lambda c: c["model"]["merges"].pop(), "merges"),
        (lambda c: c["model"]["merges"].append(["nowhere", "at all"]), "byte-level"),
        (lambda c: c["pre_tokenizer"]["pretokenizers"].pop(0), "splits"),
        (lambda c: c.update(normalizer={"type": "NFC"}), "normalizer"),
        (lambda c: c.update(pre_tokenizer=None), "byte-level"),
        (lambda c: c.update(model=[]), "byte-level"),
    ],
)
def test_what_ranks_cannot_say_is_refused(ranks, edit, words):
    content = json.loads(tokenizer_json(ranks))
    edit(content)
    with pytest.raises(TokenizerError, match=words):
        ranks_of(json.dumps(content), source="a.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"model": {"vocab": []}}'])
def test_what_is_no_tokenizer_is_refused(text):
    with pytest.raises(TokenizerError, match=r"a\.json"):
        ranks_of(text, source="a.json")


def test_the_file_that_is_missing(written, model_file, ranks, tmp_path):
    assert missing_files(written, "tokenizer.json") == {}
    assert missing_files(tmp_path, "tokenizer.json") == missing_files(tmp_path, MODEL) == {}
    found = missing_files(written, MODEL)
    assert found == {MODEL: model_file.read_text()}
    (tmp_path / MODEL).write_text(found[MODEL])
    found = missing_files(tmp_path, "tokenizer.json")
    assert found == {
        name: (written / name).read_text() for name in ("tokenizer.json", "tokenizer_config.json")
    }
    turn = len(ranks) + SPECIALS.index("<|eot|>")
    for eos, name in (((turn, 1), "<|eot|>"), ((len(ranks) + 1,), "<|end_of_text|>")):
        config = missing_files(tmp_path, "tokenizer.json", eos=eos)["tokenizer_config.json"]
        assert json.loads(config)["eos_token"] == name
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert missing_files(tmp_path, "tokenizer.json").keys() == {"tokenizer.json"}


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("tokenizer.json", b"{}", MODEL),
        ("tokenizer.json", b"\xff", MODEL),
        (MODEL, b"damaged", "tokenizer.json"),
    ],
)
def test_what_cannot_be_written_otherwise_is_said(tmp_path, caplog, name, data, wanted):
    (tmp_path / name).write_bytes(data)
    assert missing_files(tmp_path, wanted) == {}
    assert f"no {wanted} is written" in caplog.text


def test_ranks_without_all_bytes_are_refused(tmp_path):
    with pytest.raises(TokenizerError, match="single bytes"):
        write_tokenizer_json([b"a"], tmp_path)
    assert not list(tmp_path.iterdir())
