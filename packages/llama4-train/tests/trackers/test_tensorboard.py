"""What TensorBoard itself reads."""

import math
import sys

import pytest

from llama4_train.errors import TrainingError
from llama4_train.trackers.tensorboard import TensorBoard

pytest.importorskip("tensorboard")


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    scalars = {
        tag: [(event.step, event.value) for event in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }
    return scalars, found


def test_curves_and_recipe(tmp_path, recipe):
    tracker = TensorBoard(tmp_path, recipe(7))
    tracker.log(0, {"loss": 2.5, "router.load.1": [0.25, 0.75]})
    tracker.log(1, {"loss": math.inf})
    tracker.finish()
    scalars, found = read(tmp_path / "tensorboard")
    assert scalars == {
        "loss": [(0, 2.5), (1, math.inf)],
        "router/load.1.0": [(0, 0.25)],
        "router/load.1.1": [(0, 0.75)],
    }
    (text,) = found.Tensors("recipe/text_summary")
    assert b"steps = 7" in text.tensor_proto.string_val[0]


def test_a_resumed_run_hides_what_comes_again(tmp_path, recipe):
    killed = TensorBoard(tmp_path, recipe())
    for step in range(4):
        killed.log(step, {"loss": 1.0})
    killed.finish()
    resumed = TensorBoard(tmp_path, recipe())
    resumed.log(2, {"loss": 2.0})
    resumed.finish()
    scalars, _ = read(tmp_path / "tensorboard")
    assert scalars["loss"] == [(0, 1.0), (1, 1.0), (2, 2.0)]


def test_a_missing_module_is_named(tmp_path, recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainingError, match=r"pip install 'llama4-train\[tensorboard\]'"):
        TensorBoard(tmp_path, recipe()).log(0, {})
