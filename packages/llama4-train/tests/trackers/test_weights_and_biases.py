"""Weights & Biases, with a module in its place that remembers what it is told."""

import sys
from types import ModuleType

import pytest

from llama4_train.errors import RecipeError, TrainingError
from llama4_train.trackers.weights_and_biases import WeightsAndBiases


class Run:
    """What ``wandb.init`` returns."""

    def __init__(self, settings):
        self.settings = settings
        self.id = settings["id"] or "fresh"
        self.logged = []
        self.finished = 0

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def runs(monkeypatch):
    """The runs that were begun."""
    begun = []
    module = ModuleType("wandb")

    def init(**settings):
        begun.append(Run(settings))
        return begun[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return begun


def test_a_run_is_offline_and_knows_its_recipe(tmp_path, recipe, runs):
    tracker = WeightsAndBiases(tmp_path, recipe(7))
    assert not runs
    tracker.log(0, {"loss": 2.5, "router.load.1": [0.25, 0.75]})
    tracker.finish()
    tracker.finish()
    (run,) = runs
    settings = run.settings
    assert settings["mode"] == "offline"
    assert (settings["project"], settings["name"]) == ("llama4", "small run")
    assert settings["dir"] == str(tmp_path)
    assert settings["config"]["steps"] == 7
    assert settings["config"]["model"]["start"] == "nano"
    assert run.logged == [(0, {"loss": 2.5, "router.load.1.0": 0.25, "router.load.1.1": 0.75})]
    assert run.finished == 1


def test_a_resumed_run_goes_on_under_its_id(tmp_path, recipe, runs):
    for step in (0, 1):
        tracker = WeightsAndBiases(tmp_path / "run", recipe(), mode="online", entity="us")
        tracker.log(step, {"loss": 1.0})
        tracker.finish()
    assert [run.settings["id"] for run in runs] == [None, "fresh"]
    assert {run.settings["resume"] for run in runs} == {"allow"}
    assert {(run.settings["mode"], run.settings["entity"]) for run in runs} == {("online", "us")}


def test_an_unknown_mode_is_refused(tmp_path, recipe):
    with pytest.raises(RecipeError, match="mode is 'on'; expected one of offline, online"):
        WeightsAndBiases(tmp_path, recipe(), mode="on")


def test_a_missing_module_is_named(tmp_path, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainingError, match=r"pip install 'llama4-train\[wandb\]'"):
        WeightsAndBiases(tmp_path, recipe()).log(0, {})
