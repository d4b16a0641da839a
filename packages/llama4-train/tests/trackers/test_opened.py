"""The trackers of a run together."""

import logging

import pytest
import torch

from llama4_core.errors import ComponentError
from llama4_core.plugins.catalogue import catalogue
from llama4_train.errors import RecipeError, TrainingError
from llama4_train.recipe import Slot
from llama4_train.trackers.jsonl import read_log
from llama4_train.trackers.opened import Trackers, open_trackers
from llama4_train.trackers.values import loads_of, scalars, values_of
from llama4_train.trainer.step import Step


class Told:
    """Remembers what it is told."""

    def __init__(self, error=None):
        self.error = error
        self.steps = []
        self.finished = False

    def log(self, step, values):
        self.steps.append(step)
        if self.error is not None:
            raise self.error

    def finish(self):
        self.finished = True
        if self.error is not None:
            raise self.error


def names(trackers):
    return [name for name, _ in trackers.members]


def test_json_lines_are_always_there(tmp_path, recipe):
    trackers = open_trackers(recipe(), tmp_path)
    trackers.log(0, {"loss": 1.0})
    trackers.finish()
    assert read_log(tmp_path / "log.jsonl") == [{"step": 0, "loss": 1.0}]


def test_the_recipe_has_its_own_settings(tmp_path, recipe):
    slots = (Slot("jsonl", {"file": "mine.jsonl"}), Slot("tensorboard"))
    also = (Slot("progress"), Slot("tensorboard", {"name": "other"}))
    trackers = open_trackers(recipe(trackers=slots), tmp_path, also=also)
    assert names(trackers) == ["jsonl", "tensorboard", "progress"]
    trackers.log(0, {"loss": 1.0})
    trackers.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.jsonl", "tensorboard"]


def test_without_a_folder_there_is_only_what_needs_none(recipe):
    assert names(open_trackers(recipe(), None)) == []
    assert names(open_trackers(recipe(), None, also=(Slot("progress"),))) == ["progress"]
    with pytest.raises(RecipeError, match="tracker tensorboard needs the folder of the run"):
        open_trackers(recipe(trackers=(Slot("tensorboard"),)), None)


def test_what_cannot_be_used_is_said_before_anything_begins(tmp_path, recipe):
    folder = tmp_path / "run"
    with pytest.raises(ComponentError, match="tensorbord"):
        open_trackers(recipe(trackers=(Slot("tensorbord"),)), folder)
    with pytest.raises(RecipeError, match="tracker progress is named twice"):
        open_trackers(recipe(trackers=(Slot("progress"), Slot("progress"))), folder)
    missing = catalogue().find("trackers", "wandb").component.refusal(None)
    if missing is not None:
        with pytest.raises(RecipeError, match="tracker wandb cannot be used: it needs the module"):
            open_trackers(recipe(trackers=(Slot("wandb"),)), folder)
    assert not folder.exists()


def test_one_that_cannot_begin_ends_the_others(tmp_path, recipe, monkeypatch):
    begun = Told()
    monkeypatch.setattr("llama4_train.trackers.jsonl.JsonLines", lambda *_, **__: begun)
    slots = (Slot("progress", {"every": 0}),)
    with pytest.raises(RecipeError, match="every is 0"):
        open_trackers(recipe(trackers=slots), tmp_path)
    assert begun.finished


def test_one_that_breaks_is_left_out(caplog):
    good, bad = Told(), Told(ConnectionError("no answer"))
    trackers = Trackers([("bad", bad), ("good", good)])
    with caplog.at_level(logging.WARNING):
        trackers.log(0, {})
        trackers.log(1, {})
    assert (bad.steps, good.steps) == ([0], [0, 1])
    (record,) = caplog.records
    assert record.getMessage() == (
        "tracker bad is left out from step 0 on: ConnectionError: no answer"
    )


def test_an_error_of_our_own_ends_the_run():
    with pytest.raises(TrainingError, match="full"):
        Trackers([("log", Told(TrainingError("full")))]).log(0, {})


def test_all_are_finished_whatever_one_says(caplog):
    members = [Told(ConnectionError("gone")), Told(TrainingError("full")), Told()]
    trackers = Trackers([(str(index), one) for index, one in enumerate(members)])
    with pytest.raises(TrainingError, match="full"), caplog.at_level(logging.WARNING):
        trackers.finish()
    assert all(one.finished for one in members)
    assert caplog.messages == ["tracker 0: ConnectionError: gone"]
    trackers.finish()


def test_the_values_of_a_step():
    step = Step(
        number=3,
        loss=2.0,
        learning_rate=0.1,
        gradient_norm=1.5,
        tokens=64,
        seconds=0.5,
        parts={"nll": 1.9, "router.violation.1": 0.25},
        evaluation={"passkey": 1.0},
        loads=loads_of([None, torch.tensor([1, 3]), torch.tensor([0, 0])]),
        flops=1e9,
    )
    assert values_of(step) == {
        "loss": 2.0,
        "learning_rate": 0.1,
        "gradient_norm": 1.5,
        "tokens": 64,
        "seconds": 0.5,
        "flops": 1e9,
        "nll": 1.9,
        "router.violation.1": 0.25,
        "router.load.1": (0.25, 0.75),
        "evaluation.passkey": 1.0,
    }
    assert dict(scalars({"a": 1, "b": (0.5, 2)})) == {"a": 1.0, "b.0": 0.5, "b.1": 2.0}
