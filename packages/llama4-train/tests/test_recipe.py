"""Recipes: read, written, changed by path; what is wrong is said by name."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.plugins.overrides import Named
from llama4_train.errors import RecipeError
from llama4_train.recipe import (
    DataPart,
    ModelPart,
    Recipe,
    SchedulePart,
    Slot,
    SourcePart,
    parse_change,
)

BASE = Recipe(
    name="base",
    steps=100,
    model=ModelPart("nano", overrides={"layers.*.attention.backend": "eager"}),
    data=DataPart(64, 256, (SourcePart("worlds", 2.0, settings={"world": "recall"}),)),
    optimizer=Slot("muon", {"lr": 0.02, "adamw_lr": 1e-3}),
    schedule=SchedulePart("wsd", 5, 10, 0.1),
)


@given(
    steps=st.integers(20, 10**6),
    weights=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4),
    clip=st.just(0.0) | st.floats(1e-3, 10),
    globs=st.lists(st.sampled_from(("vision", "layers.*.attention", "**")), unique=True),
)
def test_toml_gives_the_recipe_back(tmp_path_factory, steps, weights, clip, globs):
    sources = tuple(SourcePart("worlds", one, f"w{i}") for i, one in enumerate(weights))
    recipe = Recipe(
        "drawn",
        steps,
        ModelPart("nano", train=tuple(globs)),
        DataPart(8, 16, sources),
        clip=clip,
    )
    file = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    file.write_text(recipe.to_toml())
    assert Recipe.read(file) == recipe


def test_changes_by_path_leave_the_rest():
    changed = BASE.override(
        {"optimizer.settings.lr": 0.1, "data.sources.0.weight": 3.0, "model.dtype": "bfloat16"}
    )
    assert changed.optimizer.settings == {"lr": 0.1, "adamw_lr": 1e-3}
    assert changed.data.sources[0].weight == 3.0
    assert changed.model.dtype == "bfloat16"
    assert changed.override({"data.sources.0.weight": 2.0, "model.dtype": "float32",
                             "optimizer.settings.lr": 0.02}) == BASE  # fmt: skip
    assert BASE.optimizer.settings["lr"] == 0.02


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"optimiser.name": "adamw"}, "did you mean 'optimizer'"),
        ({"schedule.warm_up": 3}, "did you mean 'warmup'"),
        ({"data.sources.1.weight": 1.0}, "no entry of a list of 1"),
        ({"steps": "many"}, "expected a whole number"),
        ({"model.overrides": {"a": {"nam": "x"}}}, "did you mean 'name'"),
        ({"model.overrides": {"a": 3}}, "is 3; expected a plain value or a table"),
        ({"steps": 0}, "steps is 0"),
        ({"steps.x": 1}, "leads into a value"),
        ({"model.weights": "stord"}, "did you mean 'stored'"),
        ({"schedule.shape": "linear"}, "expected one of constant, cosine, wsd"),
        ({"schedule.warmup": 95}, "more than the 100 steps"),
        ({"schedule.release": 101}, "release is 101, more than the 100 steps"),
        ({"schedule.release": -1}, "release is -1"),
        ({"data.length": 512}, "more than the 256 tokens"),
        ({"data.sources": []}, "sources is empty"),
        ({"data.sources.0.weight": 0.0}, "above 0"),
        ({"clip": -1.0}, "clip is -1.0"),
    ],
)
def test_what_is_wrong_is_named(changes, said):
    with pytest.raises(RecipeError, match=said) as error:
        BASE.override(changes)
    assert "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(RecipeError, match="cannot be read"):
        Recipe.read(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("steps = ")
    with pytest.raises(RecipeError, match="no TOML"):
        Recipe.read(broken)


@pytest.mark.parametrize(
    ("text", "value"),
    [("a.b=3", 3), ("a=3e-4", 3e-4), ("a=true", True), ("a=muon", "muon"), ('a="3"', "3")],
)
def test_changes_of_a_command_line(text, value):
    assert parse_change(text)[1] == value


def test_changes_without_a_value():
    with pytest.raises(RecipeError, match="PATH=VALUE"):
        parse_change("steps")


def test_every_recipe_of_the_repository_reads():
    recipes = Path(__file__).parents[3] / "recipes"
    # Shapes, plans of ablations and lists of evaluations lie there too; none of them has steps.
    files = [file for file in recipes.rglob("*.toml") if "steps" in tomllib.loads(file.read_text())]
    if not recipes.is_dir():
        pytest.skip("the recipes are not beside these tests")
    assert len(files) > 10
    for file in files:
        assert Recipe.read(file).name


def test_an_override_with_settings_is_written_and_read(tmp_path):
    one = {"name": "sigmoid-top-k-balanced", "settings": {"rate": 0.01}}
    recipe = BASE.override({"model.overrides": {"layers.*.feed_forward.router": one, "x": "y"}})
    assert recipe.model.overrides == {
        "layers.*.feed_forward.router": Named("sigmoid-top-k-balanced", {"rate": 0.01}),
        "x": "y",
    }
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert Recipe.read(tmp_path / "recipe.toml") == recipe
