"""``llama4 demo`` and ``llama4 bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import llama4_tiny.plugin
from llama4_core.cli import main
from llama4_core.plugins import Catalogue

TINY = str(Path(__file__).parent / "data" / "tiny-hf")


def without(monkeypatch: pytest.MonkeyPatch, distribution: str) -> None:
    """The catalogue as for somebody who has not installed a package."""
    every = Catalogue.components
    monkeypatch.setattr(
        Catalogue,
        "components",
        lambda self, socket: [x for x in every(self, socket) if x.distribution != distribution],
    )


def test_the_tour_runs_through(capsys: pytest.CaptureFixture[str]) -> None:
    """It explains, generates equal tokens twice, and counts."""
    assert main(["demo", "--random", "0"]) == 0
    out = capsys.readouterr().out
    assert "irope-chunked" in out
    assert "108.642B" in out
    assert "3 x 5 (rows x columns)" in out
    assert "a light tile in place of a dark one: logits before it are the same" in out
    rows = [
        line.split(maxsplit=1)
        for line in out.splitlines()
        if line.startswith(("  eager", "  sdpa"))
    ]
    assert [name for name, _ in rows] == ["eager", "sdpa"]
    assert rows[0][1] == rows[1][1]


def test_the_tour_names_the_package_that_reads_pictures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for somebody who has not installed it."""
    without(monkeypatch, "llama4-vision")
    assert main(["demo", "--random", "0"]) == 0
    assert "pip install llama4-vision" in capsys.readouterr().out


def test_the_tour_says_that_no_trained_model_is_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then, and only then, random weights stand in."""
    without(monkeypatch, "llama4-tiny")
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "pip install llama4-tiny" in out
    assert "random weights" in out
    assert "irope-chunked" in out


def test_the_trained_model_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every answer has its verdict, a box is drawn, and it says which model it was.

    What the weights of today cannot do is in their card; these answers they give surely.
    """
    assert main(["demo", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("== tiny: 5,596,544 trained weights, of llama4-tiny ")
    # Six about the picture, a key, three in words, the call and what is said of its result.
    assert out.count("[right") + out.count("[WRONG") == 12
    for question, answer in (
        ("What colour is the star?", "blue"),
        ("What shape is the red object?", "circle"),
        ("Where is the blue star?", "right"),
        ("Translate to Spanish: The cat eats.", "El gato come."),
        ("12 + 30 =", "42"),
        ("What is the weather in Lima?", 'get_weather({"city": "Lima"})'),
    ):
        assert f"  {question}\n    {answer}   [right]\n" in out
    assert (tmp_path / "box.png").stat().st_size > 0


def test_weights_that_are_missing_are_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is there: nothing random takes its place."""
    monkeypatch.setattr(llama4_tiny.plugin, "FILES", ("nothing.safetensors",))
    assert main(["demo"]) == 2
    assert "has no nothing.safetensors" in capsys.readouterr().err


def test_bench_counts_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Positive rates for both phases, and the cache of rows x tokens."""
    options = ["--prompt", "9", "--steps", "3", "--rows", "2", "--threads", "1", "--json"]
    assert main(["bench", TINY, *options]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["prompt"], found["steps"], found["threads"]) == (2, 9, 3, 1)
    for phase in ("prefill", "decode"):
        assert found[phase]["wall"] > 0
        assert found[phase]["cpu"] > 0
    assert found["cache_bytes"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "0"], "--prompt is 0"),
        (["--rows", "-1"], "--rows is -1"),
        (["--prompt", "100000000"], "the model's context holds"),
    ],
)
def test_bench_refuses_what_it_cannot_time(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line that names the option."""
    assert main(["bench", TINY, *options]) == 2
    assert words in capsys.readouterr().err
