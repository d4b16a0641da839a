"""Tasks by name, from recipes and command lines."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.specs.tables import key_text, value_text
from llama4_train.errors import RecipeError
from llama4_train.evaluation.results import Figure, Result, rows
from llama4_train.evaluation.tasks import TASKS, listing, parse_task, tasks_of
from llama4_train.recipe import Slot

VALUES = st.one_of(
    st.integers(-9, 99),
    st.booleans(),
    st.floats(0.1, 9).map(lambda one: round(one, 3)),
    st.text("ab,]=}' ", min_size=1, max_size=6),
    st.lists(st.integers(0, 9), max_size=3),
    st.lists(st.text("a,]}", max_size=3), max_size=3),
)


@given(st.dictionaries(st.sampled_from(["a", "b", "c.d", "c.e"]), VALUES, max_size=4))
def test_what_a_command_line_spells_is_what_it_means(settings: dict[str, object]) -> None:
    spelt = ",".join(f"{key}={value_text(value)}" for key, value in settings.items())
    expected: dict[str, object] = {}
    for key, value in settings.items():
        head, _, tail = key.partition(".")
        if tail:
            expected.setdefault(head, {})[tail] = value  # type: ignore[index]
        else:
            expected[head] = value
    assert parse_task(f"name:{spelt}") == Slot("name", expected)
    assert all(key_text(key) for key in settings)


def test_plain_words_are_strings() -> None:
    assert parse_task("world:world=scenes,count=3") == Slot(
        "world", {"world": "scenes", "count": 3}
    )
    assert parse_task("perplexity") == Slot("perplexity", {})
    with pytest.raises(RecipeError, match="PATH=VALUE"):
        parse_task("world:scenes")


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("worlds", {}, "'world'"),
        ("world", {"world": "scenes", "cuont": 3}, "'count'"),
        ("world", {}, "world is missing"),
        ("world", {"world": "scene"}, "'scenes'"),
        ("world", {"world": "passkey", "settings": {"lenght": 3}}, "'length'"),
        ("world", {"world": "passkey", "settings": {"seed": 3}}, "beside settings"),
        ("world", {"world": "arithmetic", "count": 0}, "at least 1"),
        ("world", {"world": "arithmetic", "count": "ten"}, "whole number"),
        ("passkey", {"temperatures": ["hot"]}, "SCALE/FLOOR"),
        ("passkey", {"temperatures": ["0.1/0"]}, "floor above 0"),
        ("passkey", {"times": []}, "each once"),
        ("passkey", {"times": [1, 1]}, "each once"),
        ("passkey", {"times": [0]}, "from 1 on"),
        ("passkey", {"style": "shouted"}, "sentence"),
        ("perplexity", {}, "one of them"),
        ("perplexity", {"source": "text", "records": 0}, "at least 1"),
        ("lm-eval", {"tasks": []}, "tasks are empty"),
        ("world", {"world": "arithmetic", "label": "a/b"}, "label of letters"),
    ],
)
def test_wrong_settings_are_one_line(name: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match="(?s)" + said) as caught:
        tasks_of([Slot(name, settings)])
    assert "\n" not in str(caught.value)


def test_labels_are_never_shared() -> None:
    twice = Slot("world", {"world": "arithmetic"})
    with pytest.raises(RecipeError, match="another label"):
        tasks_of([twice, twice])
    found = tasks_of([twice, Slot("world", {"world": "arithmetic", "label": "again"})])
    assert [one.label for one in found] == ["arithmetic", "again"]


def test_every_task_is_listed_with_its_settings() -> None:
    found = listing()
    assert [one["task"] for one in found] == list(TASKS)
    json.dumps(found)
    assert found[1]["settings"]["world"] is None
    assert found[2]["settings"]["times"][-1] == 64


def test_results_go_through_json() -> None:
    figures = (
        Figure("a", "accuracy", 0.0, 7, 0.0, 0.4, 0.25, 0.5, {"unfinished": 0.5}),
        Figure("b", "perplexity", 12.5),
    )
    result = Result("world", "scenes", {"world": "scenes"}, figures)
    assert Result.of(json.loads(json.dumps(result.plain()))) == result
    assert result.flat() == {"scenes.a.accuracy": 0.0, "scenes.b.perplexity": 12.5}
    assert [len(row) for row in rows([result])] == [8, 8, 8]
