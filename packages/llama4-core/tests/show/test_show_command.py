"""``llama4 show``: text without matplotlib, a file with ``--out``, numbers with ``--json``."""

from __future__ import annotations

import json
import sys

import pytest

from llama4_core.cli import main
from llama4_core.specs.presets import preset


@pytest.fixture
def llama4(capsys):
    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_masks_of_a_model_say_how_they_were_drawn(llama4):
    code, out, _ = llama4("show", "mask", "guard-text", "--length", "5")
    assert code == 0
    assert "causal · layers 0-47" in out
    assert "drawn with" not in out
    code, out, _ = llama4("show", "mask", "scout", "--length", "6", "--chunk", "2")
    assert code == 0
    assert "causal&chunked:2 · layers 0-2" in out
    assert "drawn with chunks of 2; those of scout have 8192 positions" in out


def test_a_mask_that_is_spelled_out_as_json(llama4):
    code, out, _ = llama4("show", "mask", "causal&window:1", "--documents", "2,1", "--json")
    assert code == 0
    (found,) = json.loads(out)
    assert found["seen"] == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert found["documents"] == [2, 1]


@pytest.mark.parametrize("words", [["irope", "scout"], ["accounting", "maverick"]])
def test_numbers_and_text_of_the_other_pictures(llama4, words):
    code, out, _ = llama4("show", *words)
    assert code == 0
    assert words[1] in out
    code, out, _ = llama4("show", *words, "--json")
    assert code == 0
    assert json.loads(out)["name"] == words[1]


def test_routing_of_a_model_with_random_weights(llama4):
    pytest.importorskip("llama4_moe")
    code, out, _ = llama4("show", "routing", "nano", "--random", "0", "--tokens", "1,2,3", "--json")
    assert code == 0
    found = json.loads(out)
    assert [len(layer["experts"]) for layer in found["layers"]] == [3] * 8
    assert all(sum(layer["counts"]) == 3 for layer in found["layers"])


def test_a_text_needs_a_tokenizer(llama4):
    pytest.importorskip("llama4_moe")
    code, _, err = llama4("show", "routing", "nano", "text", "--random", "0")
    assert code == 2
    assert "no tokenizer; pass --tokens" in err


def test_of_a_repository_only_the_description_is_read(llama4, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    class Remote:
        def __init__(self, name):
            assert name == "someone/a-model"
            self.spec = preset("nano")

    monkeypatch.setattr("llama4_core.hub.remote.RemoteCheckpoint", Remote)
    code, out, _ = llama4("show", "irope", "someone/a-model")
    assert code == 0
    assert out.startswith("nano: 8 layers")


def test_a_file_is_written_in_place_of_the_text(llama4, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "mask.png"
    code, out, _ = llama4("show", "mask", "causal", "--length", "4", "--out", str(file))
    assert code == 0
    assert out == f"Wrote {file}\n"
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mask", "scuot"], "did you mean 'scout'"),
        (["mask", "causal&x"], "'x' is no mask"),
        (["mask", "causal", "--documents", "3,x"], "--documents got '3,x'"),
        (["mask", "causal", "--out", "mask.jpeg"], "ends in .png"),
        (["routing", "nano", "--random", "0"], "either a text or --tokens"),
        (["irope", "scuot"], "did you mean 'scout'"),
    ],
)
def test_errors_are_one_line(llama4, words, message):
    code, out, err = llama4("show", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_file_without_matplotlib_names_the_extra(llama4, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    code, _, err = llama4("show", "irope", "nano", "--out", str(tmp_path / "x.png"))
    assert code == 2
    assert "llama4-core[plot]" in err
    code, out, _ = llama4("show", "irope", "nano")
    assert code == 0
    assert "CCCG" in out
