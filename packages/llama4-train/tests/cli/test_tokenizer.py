"""``llama4 train tokenizer`` on files, tables and the mixture of a recipe."""

import json

import pytest

from llama4_core.cli.main import main
from llama4_core.tokenizers import load_tokenizer
from llama4_train.errors import DataError
from llama4_train.sources.named import sources_named

RECIPE = """
name = "r"
steps = 1
[model]
start = "nano"
[data]
length = 64
tokens = 128
[[data.sources]]
name = "worlds"
settings = { world = "sentences" }
[[data.sources]]
name = "text"
settings = { files = "FILE", until = "line", epochs = EPOCHS }
"""


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one word, another word, words in 2024\n" * 20)
    return path


def run(*words):
    return main(["train", "tokenizer", *map(str, words)])


def test_files_become_a_tokenizer(tmp_path, text, capsys):
    rows = tmp_path / "b.jsonl"
    rows.write_text('{"text": "jsonl words"}\n' * 9)
    out = tmp_path / "out"
    words = ["--vocabulary", 275, "--specials", "small", "--digits", "single", "--json"]
    assert run(text, rows, "--out", out, *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["vocabulary"] == load_tokenizer(out).vocabulary == 275
    assert told["records"] == 10
    assert told["bytes"] == len(text.read_text()) + 9 * len("jsonl words")
    assert told["files"] == [str(out / "tokenizer.json"), str(out / "tokenizer_config.json")]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_recipe_s_mixture_becomes_one(tmp_path, text, capsys, epochs):
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.replace("FILE", str(text)).replace("EPOCHS", str(epochs)))
    words = ["--recipe", recipe, "--vocabulary", 300, "--specials", "small"]
    if not epochs:
        # None of the sources ends.
        assert run(*words, "--out", tmp_path / "a") == 2
        assert "say how many records" in capsys.readouterr().err
    assert run(*words, "--out", tmp_path / "b", "--records", 30, "--json") == 0
    assert json.loads(capsys.readouterr().out)["records"] == 30
    if epochs:
        assert run(*words, "--out", tmp_path / "c", "--json") == 0
        # Until the 20 lines of the file are used up, of a mixture that is half of it.
        assert 20 < json.loads(capsys.readouterr().out)["records"] < 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected data to learn from"),
        (["a", "--recipe", "b"], "one of them"),
        (["/no/such.txt"], "/no/such.txt does not exist"),
        (["--recipe", "/no/such.toml"], "/no/such.toml"),
        (["{}/a.txt", "--records", "0"], "--records is 0"),
        (["{}/a.txt", "--on-error", "go"], "on_error is 'go'"),
        (["{}/a.txt", "--rows", "tables"], "rows are 'tables'"),
        (["{}/a.jsonl", "--rows", "chat", "--field", "x"], "only rows of text"),
        (["{}/a.txt", "--vocabulary", "3"], "expected at least"),
    ],
)
def test_wrong_words_are_one_line(tmp_path, text, capsys, words, said):
    out = tmp_path / "out"
    assert run(*[word.format(tmp_path) for word in words], "--out", out) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_broken_lines_are_skipped_and_counted(tmp_path, capsys):
    rows = tmp_path / "b.jsonl"
    rows.write_text('{"text": "some words"}\n' * 5 + "{\n" + '{"text": "some words"}\n' * 5)
    words = [rows, "--vocabulary", 275, "--specials", "small"]
    assert run(*words, "--out", tmp_path / "a") == 2
    assert "b.jsonl, line 6" in capsys.readouterr().err
    assert run(*words, "--out", tmp_path / "a", "--on-error", "skip") == 0
    assert "skipped 1 of 11 records" in capsys.readouterr().out


def test_data_is_known_by_its_name():
    assert sources_named(["a.txt", "b/*.jsonl", "c.parquet", "hf:o/n"], field="body") == [
        ("text", {"files": "a.txt"}),
        ("jsonl", {"files": "b/*.jsonl", "field": "body"}),
        ("parquet", {"files": "c.parquet", "rows": "text", "columns": {"field": "body"}}),
        ("hub", {"repo": "hf:o/n", "rows": "text", "columns": {"field": "body"}}),
    ]
    assert sources_named(["b.jsonl"], rows="chat") == [("chat-jsonl", {"files": "b.jsonl"})]
    with pytest.raises(DataError, match="rows are"):
        sources_named(["b.jsonl"], rows="x")
