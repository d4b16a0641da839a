"""Passkeys over length and temperature."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llama4_core.errors import DrawingError
from llama4_core.plugins.catalogue import catalogue
from llama4_train.errors import EvaluationError, RecipeError
from llama4_train.evaluation.passkey import PasskeyTask
from llama4_train.evaluation.plot import draw, lengths, write
from llama4_train.evaluation.results import Result
from llama4_train.evaluation.tasks import Context


class Searching:
    """A model that finds keys while its temperature and the length let it; no weights matter."""

    def __init__(self, model: Any, reach: int) -> None:
        self.model = model
        self.reach = reach
        self.asked: list[tuple[int, Any, int]] = []

    def __call__(self, prompts: list[str], **settings: Any) -> list[Any]:
        found = []
        spec = self.model.spec
        temperature = spec.layers[1].attention.temperature
        for prompt in prompts:
            tokens = len(self.model.tokenizer.encode(prompt))
            self.asked.append((tokens, temperature, len(prompts)))
            assert tokens + settings["max_tokens"] <= spec.max_positions
            name = prompt.rsplit("What is the key of the ", 1)[1].partition("?")[0]
            key = prompt.split(f"The key of the {name} is ", 1)[1].partition(".")[0]
            hot = temperature is not None and temperature.scale > 0
            right = tokens <= self.reach * (4 if hot else 1)
            found.append(SimpleNamespace(text=key if right else "0", stop_reason="stop_string"))
        return found


@pytest.fixture
def searching(make: Any, monkeypatch: pytest.MonkeyPatch) -> Searching:
    model = make()
    found = Searching(model, 300)
    monkeypatch.setattr(model, "generate", found, raising=False)
    return found


def test_lengths_and_temperatures(searching: Searching) -> None:
    task = PasskeyTask(
        length=250, times=(1, 4), temperatures=("model", "off", "0.1/16"), count=3, tokens=600
    )
    seen: list[tuple[int, int]] = []
    figures = task.measure(
        searching.model, Context(catalogue(), progress=lambda *now: seen.append(now))
    )
    assert {one.name: one.value for one in figures} == {
        "250": 1.0,
        "250@off": 1.0,
        "250@0.1-16": 1.0,
        "1000": 1.0,
        "1000@off": 0.0,
        "1000@0.1-16": 1.0,
    }
    assert all((one.count, one.chance, one.majority) == (3, 0.25, 1e-4) for one in figures)
    assert [one.facts["length"] for one in figures] == [250] * 3 + [1000] * 3
    # Prompts hold all but the answer, of 4 digits, and its line end: at most 5 tokens.
    assert {length for length, _, _ in searching.asked} <= {*range(245, 250), *range(995, 1000)}
    assert {rows for length, _, rows in searching.asked if length < 300} == {2, 1}
    assert {rows for length, _, rows in searching.asked if length > 300} == {1}
    settings = {one if one is None else (one.scale, one.floor) for _, one, _ in searching.asked}
    assert settings == {(0.5, 4), (0.0, 4), (0.1, 16)}
    assert seen[-1] == (18, 18)
    assert searching.model.spec.max_positions == 96


def test_every_temperature_gets_the_same_texts(
    searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    inner = searching.__call__

    def keep(prompts: list[str], **settings: Any) -> list[Any]:
        asked.append(prompts)
        return inner(prompts, **settings)

    monkeypatch.setattr(searching.model, "generate", keep)
    PasskeyTask(length=250, times=(1,), temperatures=("off", "model"), count=2).measure(
        searching.model, Context(catalogue())
    )
    assert asked[0] == asked[1]
    assert len(set(asked[0])) == 2


def test_the_length_of_training_is_that_of_the_recipe(searching: Searching) -> None:
    task = PasskeyTask(times=(2,), count=1)
    (one,) = task.measure(searching.model, Context(catalogue(), length=130))
    assert one.name == "260"
    with pytest.raises(EvaluationError, match="passkey:length=256"):
        task.measure(searching.model, Context(catalogue()))


def test_a_real_model_reads_far_beyond_its_context(make: Any) -> None:
    model = make()
    (one,) = PasskeyTask(length=128, times=(3,), count=1, temperatures=("0.1/8",)).measure(
        model, Context(catalogue())
    )
    assert one.value == 0  # random weights find nothing
    assert model.spec.max_positions == 96


def test_a_model_without_tokenizer_or_global_layers(make: Any) -> None:
    bare = SimpleNamespace(spec=SimpleNamespace(name="bare"), tokenizer=None)
    with pytest.raises(EvaluationError, match="no tokenizer"):
        PasskeyTask(length=128).measure(bare, Context(catalogue()))
    model = make(layers=make().spec.layers[:1])
    with pytest.raises(RecipeError, match="no position-free layer"):
        PasskeyTask(length=160, times=(1,), count=1, temperatures=("off",)).measure(
            model, Context(catalogue())
        )


def test_the_plot_shows_every_line(searching: Searching, tmp_path: Path) -> None:
    figures = PasskeyTask(
        length=250, times=(4, 1), temperatures=("off", "0.1/16"), count=2
    ).measure(searching.model, Context(catalogue()))
    results = [Result("passkey", "passkey", {}, figures)]
    assert {
        key: [(one.facts["length"], one.value) for one in line]
        for key, line in lengths(results).items()
    } == {
        ("passkey", "off"): [(250, 1.0), (1000, 0.0)],
        ("passkey", "0.1/16"): [(250, 1.0), (1000, 1.0)],
    }
    (axes,) = draw(results, "tiny").axes
    assert axes.get_xscale() == "log"
    drawn = {tuple(line.get_ydata()) for line in axes.get_lines()}
    assert {(1.0, 0.0), (1.0, 1.0)} <= drawn
    write(results, tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(EvaluationError, match="nothing to plot"):
        draw([])
    with pytest.raises(DrawingError, match="ends in"):
        write(results, tmp_path / "lengths.doc")


def test_a_chat_asks_the_same_text_behind_headers(
    searching: Searching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole text is what the user says; the reply may take its digits and the end of turn."""
    heard: list[str] = []
    tokenizer = searching.model.tokenizer

    def generate(prompts: list[list[int]], **settings: Any) -> list[Any]:
        heard.extend(tokenizer.decode(prompt, specials=True) for prompt in prompts)
        longest = max(len(prompt) for prompt in prompts)
        assert longest + settings["max_tokens"] <= searching.model.spec.max_positions
        return [SimpleNamespace(text="0", stop_reason="stop_token") for _ in prompts]

    monkeypatch.setattr(searching.model, "generate", generate)
    task = PasskeyTask(length=300, times=(1,), count=2, form="chat")
    (one,) = task.measure(searching.model, Context(catalogue()))
    assert one.value == 0
    assert [text.count("What is the key of the ") for text in heard] == [1, 1]
    assert all("<|header_start|>assistant<|header_end|>" in text for text in heard)


def test_an_unknown_form_is_refused() -> None:
    """With those that there are."""
    with pytest.raises(RecipeError, match="form is 'letter'; expected one of pack, chat"):
        PasskeyTask(form="letter")
