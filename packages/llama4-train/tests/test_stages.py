"""Stages: each from the weights before, with another description and another recipe."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import llama4_core as l4
from llama4_core.cli import main
from llama4_core.specs.find import spec_from_path
from llama4_core.specs.model import TemperatureSpec
from llama4_core.specs.toml import toml_from_spec
from llama4_core.testing.modality_cases import tokenizer
from llama4_core.tokenizers.ranks import write_ranks
from llama4_core.tokenizers.sample import sample_ranks
from llama4_train.checkpoints.runs import stored_model
from llama4_train.errors import RecipeError, TrainingError
from llama4_train.recipe import Recipe
from llama4_train.stages import Stage, read_stages, run_stages

SHORT = """
name = "short"
steps = 3
checkpoints = {{ every = 1 }}
model = {{ start = "{start}", tokenizer = "{tokenizer}" }}
[data]
length = 40
tokens = 80
sources = [{{ name = "worlds", settings = {{ world = "arithmetic" }} }}]
"""

STAGES = """
[[stages]]
recipe = "short.toml"
[[stages]]
chunk = 32
temperature = 0.2
floor = 64
max_positions = 9000
set = { "data.length" = 60, name = "long" }
[[stages]]
recipe = "last.toml"
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Stages, their recipes, a model's description and a tokenizer."""
    spec = l4.assemble("nano").spec
    layers = tuple(
        replace(
            layer,
            attention=replace(layer.attention, heads=2, kv_heads=1, head_dim=8),
            feed_forward=replace(
                layer.feed_forward, width=16, shared_width=16, router="sigmoid-top-k-balanced"
            ),
        )
        for layer in spec.layers[2:4]
    )
    spec = replace(spec, width=16, vocabulary=tokenizer().vocabulary, layers=layers)
    (tmp_path / "tiny.toml").write_text(toml_from_spec(spec), encoding="utf-8")
    (tmp_path / "tokens").mkdir()
    write_ranks(sample_ranks(), tmp_path / "tokens" / "tokenizer.model")
    short = SHORT.format(start=tmp_path / "tiny.toml", tokenizer=tmp_path / "tokens")
    (tmp_path / "short.toml").write_text(short, encoding="utf-8")
    last = SHORT.format(start="previous", tokenizer="").replace(', tokenizer = ""', "")
    (tmp_path / "last.toml").write_text(last, encoding="utf-8")
    (tmp_path / "stages.toml").write_text(STAGES, encoding="utf-8")
    return tmp_path


def test_each_stage_begins_with_the_weights_before(files: Path) -> None:
    stages = read_stages([files / "stages.toml"])
    seen: list[tuple[int, int]] = []
    runs = run_stages(
        stages, files / "out", said=lambda number, step: seen.append((number, step.number))
    )
    assert seen == [(number, step) for number in (1, 2, 3) for step in (0, 1, 2)]
    first, second, third = (stored_model(run) for run in runs)
    began = spec_from_path(files / "out" / "stage-2-start")
    local, free = (layer.attention for layer in began.layers)
    assert (local.chunk, free.chunk, local.temperature) == (32, None, None)
    assert free.temperature == TemperatureSpec(0.2, 64)
    assert began.max_positions == 9000
    # Later stages keep what was changed.
    assert second.spec.layers == third.spec.layers == began.layers
    assert first.spec.layers[0].attention.chunk == 256
    weights = l4.load(files / "out" / "stage-2-start").state_dict()
    assert weights.keys() == first.tensors.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, first.tensors[name]), name
    bias = "layers.0.feed_forward.router.bias"
    assert weights[bias].any()  # what balances the load goes along
    assert Recipe.read(runs[1] / "recipe.toml").data.length == 60
    assert not torch.equal(second.tensors["embedding.weight"], third.tensors["embedding.weight"])


def test_finished_stages_are_passed_over_and_stopped_ones_go_on(files: Path) -> None:
    def digest(run: Path) -> dict[str, Any]:
        return {name: one.tolist() for name, one in stored_model(run).tensors.items()}

    stages = read_stages([files / "stages.toml"])
    whole = [digest(run) for run in run_stages(stages, files / "whole")]

    def stop(number: int, step: Any) -> None:
        if (number, step.number) == (2, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stages(stages, files / "out", said=stop)
    for thread in threading.enumerate():
        if thread.name.startswith("writes "):
            thread.join()  # a process that is killed takes its threads along
    seen: list[int] = []
    runs = run_stages(stages, files / "out", said=lambda number, _: seen.append(number))
    assert seen == [2, 3, 3, 3]
    assert [digest(run) for run in runs] == whole
    run_stages(stages, files / "out", said=lambda number, _: seen.append(number))
    assert seen == [2, 3, 3, 3]


def test_other_stages_do_not_go_on_in_the_same_folder(files: Path) -> None:
    stages = read_stages([files / "stages.toml"])
    run_stages(stages, files / "out")
    with pytest.raises(TrainingError, match="other changes of the model"):
        run_stages((stages[0], replace(stages[1], chunk=16)), files / "out")
    other = replace(stages[0], recipe=stages[0].recipe.override({"seed": 5}))
    with pytest.raises(TrainingError, match="differs in seed"):
        run_stages((other,), files / "out")


def test_recipes_in_order_are_stages(files: Path) -> None:
    found = read_stages([files / "short.toml", files / "last.toml"])
    assert [stage.recipe.model.start for stage in found] == [str(files / "tiny.toml"), "previous"]
    assert found[1] == Stage(Recipe.read(files / "last.toml"))
    assert len(read_stages([files / "short.toml"])) == 1


def test_what_cannot_follow_is_one_line(files: Path, capsys: Any) -> None:
    cases = (
        ("[[stages]]\nchunk = 3\n", "recipe is missing"),
        (STAGES.replace("chunk = 32", "chnuk = 32"), "did you mean 'chunk'"),
        (
            STAGES.replace('recipe = "short.toml"', 'recipe = "short.toml"\nchunk = 3'),
            "first stage",
        ),
        (STAGES.replace("last.toml", "short.toml"), "expected model.start = 'previous'"),
        (STAGES.replace("data.length", "data.lentgh"), "'length'"),
        (STAGES.replace('"short.toml"', '"last.toml"'), "it is the first stage"),
        ("stages = []", "no stages"),
        ("stages = [", "no TOML"),
    )
    for text, said in cases:
        (files / "bad.toml").write_text(text, encoding="utf-8")
        words = ("train", "stages", str(files / "bad.toml"), "--out", str(files / "none"))
        assert main(words) == 2, said
        _, err = capsys.readouterr()
        assert said in err
        assert err.count("\n") == 1
    assert not (files / "none").exists()
    with pytest.raises(RecipeError, match="no file"):
        read_stages([])


def test_the_command(files: Path, capsys: Any) -> None:
    words = ("train", "stages", str(files / "stages.toml"), "--out", str(files / "out"), "--json")
    assert main(words) == 0
    out, err = capsys.readouterr()
    runs = json.loads(out)["runs"]
    assert [Path(run).name for run in runs] == ["stage-1", "stage-2", "stage-3"]
    assert [line.partition(",")[0] for line in err.splitlines()] == [
        f"stage {number}: step 3/3" for number in (1, 2, 3)
    ]


def test_a_run_is_measured_as_it_stands(files: Path, capsys: Any) -> None:
    (run,) = run_stages(read_stages([files / "short.toml"]), files / "out")
    task = ("--task", "passkey:times=[5],count=1", "--json")
    assert main(("evaluate", str(run), *task)) == 0
    # Five times the length of documents in the recipe of the run, 40.
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert [one["name"] for one in result["figures"]] == ["200"]
    (place,) = (run / "checkpoints").glob("*-00000003")
    assert main(("evaluate", str(place), *task)) == 0
    assert json.loads(capsys.readouterr().out)["results"] == [result]
    assert main(("evaluate", str(run), "--random", "0", *task)) == 2
    assert "--random means nothing" in capsys.readouterr().err
