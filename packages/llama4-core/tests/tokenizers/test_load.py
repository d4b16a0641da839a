"""Which component reads a folder: the catalogue decides."""

import pytest

from llama4_core import catalogue
from llama4_core.errors import ComponentError, TokenizerError
from llama4_core.plugins import Catalogue, Component, builtin, hookimpl
from llama4_core.tokenizers import load_tokenizer, write_tokenizer_json
from llama4_core.tokenizers.formats import MetaFormat
from llama4_core.tokenizers.huggingface import HuggingFaceTokenizer
from llama4_core.tokenizers.meta import MetaTokenizer


def test_a_tokenizer_json_comes_before_a_tokenizer_model(model_file, ranks, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model_file.read_bytes())
    assert isinstance(load_tokenizer(tmp_path), MetaTokenizer)
    write_tokenizer_json(ranks, tmp_path)
    assert isinstance(load_tokenizer(tmp_path), HuggingFaceTokenizer)
    assert isinstance(load_tokenizer(tmp_path, name="meta"), MetaTokenizer)


def test_files_by_their_own_name(model_file, ranks, tmp_path):
    mine = tmp_path / "mine.model"
    mine.write_bytes(model_file.read_bytes())
    assert load_tokenizer(mine).vocabulary == len(ranks) + 2048
    write_tokenizer_json(ranks, tmp_path)
    assert isinstance(load_tokenizer(tmp_path / "tokenizer.json"), HuggingFaceTokenizer)


def test_beginning_of_text_can_be_named(model_file):
    tokenizer = load_tokenizer(model_file.parent, bos="<|eot|>")
    assert tokenizer.bos == tokenizer.specials["<|eot|>"]


@pytest.mark.parametrize("installed", [True, False])
def test_tiktoken_runs_it_where_it_is_installed(model_file, installed, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Component,
        "refusal",
        lambda self, problem: None if installed or "tiktoken" not in self.requires else "not here",
    )
    build = MetaFormat.__init__
    monkeypatch.setattr(
        MetaFormat,
        "__init__",
        lambda self, engine="tokenizers": asked.append(engine) or build(self, engine),
    )
    load_tokenizer(model_file)
    assert asked == [("tiktoken" if installed else "tokenizers")]


def test_a_sentencepiece_model_is_no_file_of_ranks(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    assert load_tokenizer(tmp_path) is None
    with pytest.raises(TokenizerError, match="holds nothing that the tokenizer 'meta' reads"):
        load_tokenizer(tmp_path, name="meta")


def test_a_damaged_file_is_an_error_and_not_overlooked(model_file, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(model_file.read_bytes()[:700])
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(TokenizerError, match="single bytes"):
        load_tokenizer(tmp_path)


def test_unknown_names(model_file):
    with pytest.raises(ComponentError, match="installed are"):
        load_tokenizer(model_file, name="nobody")
    with pytest.raises(TokenizerError, match="'tokenizers' or 'tiktoken'"):
        MetaFormat("sentencepiece")


class Plugin:
    @hookimpl
    def llama4_tokenizers(self):
        module = "llama4_core.testing.mutants_tokenizers"
        yield Component("greedy", f"{module}:DetectsEverything", priority=1000)


def test_third_parties_are_asked_only_by_name(tmp_path):
    plugins = [("core", "llama4-core", "1", builtin), ("more", "stranger", "1", Plugin())]
    known = Catalogue.from_plugins(plugins)
    assert not known.problems
    assert load_tokenizer(tmp_path, known=known) is None
    with pytest.raises(TokenizerError, match="cannot be read"):
        load_tokenizer(tmp_path, known=known, name="greedy")


def test_the_components_say_what_they_are():
    names = [entry.name for entry in catalogue().components("tokenizers")]
    assert {"huggingface", "meta", "meta-tiktoken"} <= set(names)
