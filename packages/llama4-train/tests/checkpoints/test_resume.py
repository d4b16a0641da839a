"""Stopped at any moment, a run ends in the same bits as one that was never stopped."""

from __future__ import annotations

import copy
import json
import os
import random
from pathlib import Path

import pytest
import torch

from llama4_core.errors import CheckpointError
from llama4_train.checkpoints.folders import checkpoint_folder, checkpoints, latest
from llama4_train.checkpoints.runs import RECIPE
from llama4_train.checkpoints.same import MAY_CHANGE, fingerprint
from llama4_train.checkpoints.whole import read_part
from llama4_train.errors import TrainingError
from llama4_train.trainer.state import generators, set_generators

forked = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked to be killed")
KINDS = ("adamw", "muon")
STEPS = 8


def task(tmp_path, kind, name, **more):
    """A task of ``tiny_run.py``."""
    return {
        "kind": kind,
        "folder": str(tmp_path / f"{kind}-{name}"),
        "result": str(tmp_path / f"{kind}-{name}.json"),
        **more,
    }


def result(one):
    with open(one["result"]) as file:  # noqa: PTH123 - a string by way of JSON
        return json.load(file)


def runs(tmp_path, drawn, **numbers):
    """Whole runs, runs that die, and the same resumed.

    Args:
        tmp_path: folder of all.
        drawn: chooses the moments.
        numbers: of each kind, how many die inside files, around them, and between steps.
    """
    whole = [task(tmp_path, kind, "whole") for kind in numbers]
    deaths = {
        kind: [
            *({"die_at": [True, drawn.random()]} for _ in range(inside)),
            *({"die_at": [False, drawn.random()]} for _ in range(around)),
            *({"die_step": number} for number in drawn.sample(range(1, STEPS + 1), between)),
        ]
        for kind, (inside, around, between) in numbers.items()
    }
    stopped = [
        task(tmp_path, kind, str(i), **death)
        for kind, found in deaths.items()
        for i, death in enumerate(found)
    ]
    resumed = [
        task(tmp_path, one["kind"], Path(one["folder"]).name.split("-")[1]) for one in stopped
    ]
    return whole, stopped, [{**one, "resume": "if begun"} for one in resumed]


def check(whole, stopped, resumed, ends, said):
    """Ends as expected, and the same bits."""
    died = [-9 if "die_step" in one else 9 for one in stopped]
    assert ends == [*[0] * len(whole), *died, *[0] * len(resumed)], said
    digests = {one["kind"]: result(one)["digest"] for one in whole}
    for before, one in zip(stopped, resumed, strict=True):
        assert result(one)["digest"] == digests[one["kind"]], before


@forked
def test_killed_at_some_moments(tmp_path, program):
    whole, stopped, resumed = runs(tmp_path, random.Random(1), adamw=(1, 1, 1), muon=(0, 2, 0))
    ends, said = program(*whole, *stopped, *resumed)
    check(whole, stopped, resumed, ends, said)


@forked
@pytest.mark.slow
def test_killed_at_twenty_random_moments_and_resumed_in_another_interpreter(tmp_path, program):
    whole, stopped, resumed = runs(tmp_path, random.Random(20), adamw=(3, 4, 3), muon=(3, 4, 3))
    ends, said = program(*whole, *stopped)
    # The first one dies a second time: while it is resumed.
    again = {**resumed[0], "die_step": STEPS - 1}
    more, said_later = program(again, *resumed)
    assert more[0] == -9, said_later
    check(whole, stopped, resumed, [*ends, *more[1:]], said + said_later)


def finished(tiny, folder, stop=4, kind="adamw"):
    """A run in this process that stands after ``stop`` steps."""
    trainer = tiny.trainer_of(tiny.recipe_of(kind), folder)
    for step in trainer:
        if step.number + 1 == stop:
            break
    trainer.keeper.wait()
    return trainer


def reopened(tiny, folder, recipe=None, **more):
    return tiny.trainer_of(recipe or tiny.recipe_of(), folder, resume=True, **more)


def test_going_on_in_the_same_process(tiny, tmp_path):
    whole = tiny.trainer_of(tiny.recipe_of())
    losses = [step.loss for step in whole]
    finished(tiny, tmp_path / "run")
    trainer = reopened(tiny, tmp_path / "run")
    assert trainer.number == 4
    assert [step.loss for step in trainer] == losses[4:]
    assert tiny.digest(trainer) == tiny.digest(whole)
    # A run that is over stays over.
    over = reopened(tiny, tmp_path / "run")
    assert list(over) == []
    assert tiny.digest(over) == tiny.digest(whole)


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_going_on_while_balancing_is_released(tiny, tmp_path, stop):
    """Before the first released step and between two of them."""
    recipe = tiny.recipe_of(**{"schedule.release": 6})
    whole = tiny.trainer_of(recipe)
    for index in (1, 3):  # more than these steps would move it, so that it decides something
        whole.model.layers[index].feed_forward.router.bias.copy_(torch.tensor([0, 0.9, 0, -0.9]))
    model = copy.deepcopy(whole.model)
    losses = [step.loss for step in whole]
    trainer = tiny.trainer_of(recipe, tmp_path / "run", model=model)
    for _ in zip(range(stop), trainer, strict=False):
        pass
    trainer.keeper.wait()
    assert model.layers[1].feed_forward.router.bias.any()
    trainer = reopened(tiny, tmp_path / "run", recipe)
    assert trainer.number == stop
    assert [step.loss for step in trainer] == losses[stop:]
    assert tiny.digest(trainer) == tiny.digest(whole)
    assert not trainer.model.layers[1].feed_forward.router.bias.any()


def test_a_checkpoint_holds_recipe_and_fingerprint_and_can_be_asked_for(tiny, tmp_path):
    trainer = finished(tiny, tmp_path / "run", stop=3)
    trainer.save()
    trainer.keeper.wait()
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [2, 3]
    held = read_part(latest(tmp_path / "run"), "recipe", "fingerprint", "step")
    assert held["recipe"] == trainer.recipe.to_toml()
    assert held["fingerprint"] == fingerprint(trainer.recipe)
    assert reopened(tiny, tmp_path / "run").number == held["step"] == 3


def test_the_balancing_bias_goes_on(tiny, tmp_path):
    trainer = finished(tiny, tmp_path / "run")
    bias = trainer.model.layers[1].feed_forward.router.bias
    assert bias.any()
    back = reopened(tiny, tmp_path / "run")
    assert torch.equal(back.model.layers[1].feed_forward.router.bias, bias)


def test_every_generator_goes_on():
    import numpy as np

    before = generators()

    def draw():
        return torch.rand(3).tolist(), random.random(), np.random.rand(2).tolist()  # noqa: NPY002

    first = draw()
    set_generators(before)
    assert draw() == first


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"seed": 1}, "seed"),
        ({"optimizer.settings.lr": 0.02, "data.tokens": 30}, "data.tokens, optimizer.settings.lr"),
        ({"data.sources.1.weight": 3.0}, "data.sources.1.weight"),
        ({"clip": None}, ""),
        ({"clip": 2.0}, "clip"),
        ({"schedule.floor": 0.1}, "schedule.floor"),
    ],
)
def test_another_recipe_is_refused_with_the_keys(tiny, tmp_path, changes, keys):
    finished(tiny, tmp_path / "run", stop=2)
    recipe = tiny.recipe_of(**changes)
    if not keys:
        # None takes a value back to its default, which is what the run has.
        assert reopened(tiny, tmp_path / "run", recipe).number == 2
        return
    with pytest.raises(TrainingError, match=f"differs in {keys};") as raised:
        reopened(tiny, tmp_path / "run", recipe)
    assert "\n" not in str(raised.value)
    assert fingerprint(recipe) != fingerprint(tiny.recipe_of())


def test_what_may_change_may_change(tiny, tmp_path):
    finished(tiny, tmp_path / "run", stop=2)
    changes = {
        "name": "another",
        "description": "longer",
        "steps": 9,
        "checkpoints.every": 1,
        "checkpoints.keep": 1,
        "trackers": [{"name": "progress"}],
        "evaluation.every": 3,
        "data.on_error": "skip",
    }
    recipe = tiny.recipe_of(**changes)
    assert {path.removesuffix(".every").removesuffix(".keep") for path in changes} == set(
        MAY_CHANGE
    )
    assert fingerprint(recipe) == fingerprint(tiny.recipe_of())
    trainer = reopened(tiny, tmp_path / "run", recipe)
    assert len(list(trainer)) == 7
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [9]
    assert (tmp_path / "run" / RECIPE).read_text() == recipe.to_toml()


def test_fewer_steps_than_taken_are_refused(tiny, tmp_path):
    finished(tiny, tmp_path / "run")
    with pytest.raises(TrainingError, match="4 steps into a run of 3"):
        reopened(tiny, tmp_path / "run", tiny.recipe_of(steps=3))


def test_another_model_is_refused_with_what_differs(tiny, tmp_path):
    finished(tiny, tmp_path / "run", stop=2)
    other = tiny.model_of(tiny.recipe_of(), "sigmoid-top-k")
    with pytest.raises(TrainingError, match=r"differs in layers.1.feed_forward.router, layers.3"):
        reopened(tiny, tmp_path / "run", model=other)


def test_another_number_of_groups_is_refused(tiny, tmp_path):
    finished(tiny, tmp_path / "run", stop=2)
    model = tiny.model_of(tiny.recipe_of())
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "embedding" in name:
            parameter.requires_grad_(False)
    with pytest.raises(TrainingError, match=r"groups of \d+, \d+ parameters; expected \d+:"):
        reopened(tiny, tmp_path / "run", model=model)


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_that_changes_its_own_state_is_found(tiny, tmp_path, monkeypatch, kind):
    """torch rounds states to the dtype of their parameter when it loads them."""
    trainer = finished(tiny, tmp_path / "run", stop=1, kind=kind)
    optimizer = trainer.parts.optimizer
    inner = optimizer if kind == "adamw" else optimizer.inner.members[0]
    for entry in inner.state.values():
        for name in entry:
            if name in ("exp_avg", "momentum"):
                entry[name] = entry[name].double()
    trainer.save()
    trainer.keeper.wait()
    with pytest.raises(TrainingError, match="does not take its own state back"):
        reopened(tiny, tmp_path / "run", tiny.recipe_of(kind))


@pytest.mark.parametrize(
    "name", ["tensors-00000.safetensors", "values-00000.json", "metadata.json"]
)
def test_a_damaged_checkpoint_is_refused_and_the_older_one_can_be_taken(tiny, tmp_path, name):
    run = tmp_path / "run"
    finished(tiny, run)
    path = checkpoint_folder(run, 4) / name
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    with pytest.raises(CheckpointError, match=f"{name}: is damaged.*go on from an older") as raised:
        reopened(tiny, run)
    assert "\n" not in str(raised.value)
    import shutil

    shutil.rmtree(checkpoint_folder(run, 4))
    trainer = reopened(tiny, run)
    assert trainer.number == 2
    losses = [step.loss for step in trainer]
    assert [step.loss for step in tiny.trainer_of(tiny.recipe_of())][2:] == losses


def test_a_missing_file_is_named(tiny, tmp_path):
    finished(tiny, tmp_path / "run", stop=2)
    (checkpoint_folder(tmp_path / "run", 2) / "values-00000.json").unlink()
    with pytest.raises(CheckpointError, match=r"values-00000.json: is missing"):
        reopened(tiny, tmp_path / "run")


def test_a_run_is_not_written_over(tiny, tmp_path):
    finished(tiny, tmp_path / "run", stop=2)
    with pytest.raises(TrainingError, match="holds a run of 2 steps; resume it"):
        tiny.trainer_of(tiny.recipe_of(), tmp_path / "run")


def test_nothing_to_resume(tiny, tmp_path):
    with pytest.raises(TrainingError, match="holds no run to resume"):
        reopened(tiny, tmp_path / "absent")
    assert not (tmp_path / "absent").exists()
    with pytest.raises(TrainingError, match="no folder"):
        tiny.trainer_of(tiny.recipe_of(), resume=True)


def test_stopped_before_the_first_checkpoint_it_begins_again(tiny, tmp_path):
    finished(tiny, tmp_path / "run", stop=1)
    assert latest(tmp_path / "run") is None
    assert reopened(tiny, tmp_path / "run").number == 0
    with pytest.raises(TrainingError, match="differs in seed"):
        reopened(tiny, tmp_path / "run", tiny.recipe_of(seed=3))


def test_no_room_stops_the_run_with_nothing_lost(tiny, tmp_path, monkeypatch):
    import shutil

    trainer = finished(tiny, tmp_path / "run", stop=3)
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1))
        with pytest.raises(CheckpointError, match="make room, then resume"):
            list(trainer)
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [2]
    # Whoever made room may go on with the trainer that is still there.
    list(trainer)
    assert tiny.digest(trainer) == tiny.digest(_whole(tiny))


def _whole(tiny):
    trainer = tiny.trainer_of(tiny.recipe_of())
    list(trainer)
    return trainer
