"""Curves of a run: their figures, their text and their pictures, and ``llama4 show training``."""

import json
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.cli import main
from llama4_core.errors import DrawingError
from llama4_train.errors import TrainingError
from llama4_train.plots import _running, _spread, _thinned, draw, read_training, text
from llama4_train.trackers.jsonl import JsonLines


def write(folder, steps=60, layers=(1, 3), **more):
    """A run whose loss falls by a tenth of a step, with two experts of unequal load."""
    log = JsonLines(folder, None)
    for step in range(steps):
        values = {
            "loss": 10 - step / 10,
            "learning_rate": 1e-3,
            "gradient_norm": 1.0,
            "tokens": 100,
            "seconds": 0.5,
        }
        for layer in layers:
            values[f"router.load.{layer}"] = [0.75, 0.25]
            values[f"router.violation.{layer}"] = 0.5
        if step % 30 == 29:
            values["evaluation.passkey"] = step / 100
        log.log(step, {**values, **more})
    log.finish()
    return folder


def test_the_summary_by_hand(tmp_path):
    folder = write(tmp_path / "nano")
    (folder / "carbon.json").write_text(json.dumps({"energy_kwh": 0.5, "co2_kg": None, "runs": []}))
    assert read_training(folder).plain() == {
        "name": "nano",
        "steps": 60,
        "last_step": 59,
        "tokens": 6000,
        "seconds": 30.0,
        "tokens_per_second": 200.0,
        # The last twenty steps are 6.0 to 4.1.
        "loss": {"first": 10.0, "last": pytest.approx(5.05)},
        "learning_rate": 1e-3,
        "gradient_norm": 1.0,
        "router": {
            "1": {"violation": 0.5, "load": [0.75, 0.25]},
            "3": {"violation": 0.5, "load": [0.75, 0.25]},
        },
        "evaluation": {"passkey": {"step": 59, "value": 0.59}},
        "energy_kwh": 0.5,
        "co2_kg": None,
    }


def test_violations_follow_from_loads_where_nobody_wrote_them(tmp_path):
    log = JsonLines(tmp_path, None)
    log.log(0, {"loss": 1.0, "router.load.2": [0.5, 0.25, 0.25, 0.0]})
    # The largest share is twice the mean of a quarter.
    assert read_training(tmp_path).violations == {2: (1.0,)}


def test_the_text_says_what_happened(tmp_path):
    folder = write(tmp_path / "nano")
    said = text(read_training(folder))
    assert said.startswith("nano: 60 steps, 6,000 tokens, 0:30, 200 tokens/s")
    assert "10.0000 -> 5.0500" in said
    assert "layer  3" in said
    assert "largest +50% over the mean" in said
    assert "passkey: 0.59 (step 60)" not in said
    assert "passkey: 0.59 (step 59)" in said


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_broke_is_shown(tmp_path, value):
    folder = write(tmp_path / "nano", steps=3, loss=value)
    run = read_training(folder)
    assert "3 steps have no finite loss" in text(run)
    assert run.plain()["loss"] == {"first": None, "last": None}
    json.dumps(run.plain(), allow_nan=False)


def test_a_dense_run_has_no_routers(tmp_path):
    run = read_training(write(tmp_path / "dense", layers=()))
    assert run.plain()["router"] == {}
    assert "load" not in text(run)


@pytest.mark.parametrize(("layers", "panels"), [((), 0), ((1,), 1), (tuple(range(30)), 12)])
def test_the_picture_has_every_curve(tmp_path, layers, panels):
    pytest.importorskip("matplotlib")
    run = read_training(write(tmp_path / "nano", steps=5, layers=layers))
    figure = draw(run)
    titles = [axes.get_title(loc="left") for axes in figure.get_axes() if axes.get_visible()]
    assert "nano: loss" in titles
    assert titles.count("largest load over the mean, less 1") == bool(layers)
    assert sum("load of 2 experts" in title for title in titles) == panels
    loss = next(a for a in figure.get_axes() if a.get_title(loc="left") == "nano: loss")
    assert list(loss.lines[0].get_ydata()) == [10 - step / 10 for step in range(5)]


def test_shares_are_stacked_to_one(tmp_path):
    pytest.importorskip("matplotlib")
    figure = draw(read_training(write(tmp_path / "nano", steps=5, layers=(1,))))
    (axes,) = [a for a in figure.get_axes() if "load of" in a.get_title(loc="left")]
    tops = [area.get_paths()[0].vertices[:, 1].max() for area in axes.collections]
    assert tops == [0.75, 1.0]


def test_the_command(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder = write(tmp_path / "nano")
    assert main(["show", "training", str(folder)]) == 0
    assert capsys.readouterr().out.startswith("nano: 60 steps")
    assert main(["show", "training", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 60
    picture = tmp_path / "nano.png"
    assert main(["show", "training", str(folder), "-o", str(picture)]) == 0
    assert capsys.readouterr().out == f"Wrote {picture}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing"], "log.jsonl: cannot be read"),
        (["empty"], "has no step yet; wait for the first"),
        (["missing", "-o", "a.bmp"], "expected one that ends in .png"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "log.jsonl").write_text('{"step": 0, "lo')
    assert main(["show", "training", *words]) != 0
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_without_matplotlib_there_is_text(tmp_path, monkeypatch):
    run = read_training(write(tmp_path / "nano"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert text(run)
    with pytest.raises(DrawingError, match="a picture file needs matplotlib"):
        draw(run)


def test_a_damaged_energy_file_is_named(tmp_path):
    folder = write(tmp_path / "nano")
    (folder / "carbon.json").write_text("words")
    with pytest.raises(TrainingError, match=r"carbon\.json: cannot be read"):
        read_training(folder)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=300), st.integers(1, 50))
def test_thinning_keeps_the_mean_of_its_parts(values, points):
    thin = _thinned(values, points)
    assert len(thin) == min(points, len(values))
    # Parts differ in length by at most one, and every value is in one of them.
    assert min(values) - 1e-9 <= min(thin)
    assert max(thin) <= max(values) + 1e-9
    if len(values) % points == 0:
        mean = sum(values) / len(values)
        # Sums of at most 300 numbers up to 10, twice.
        assert sum(thin) / len(thin) == pytest.approx(mean, abs=1e-9)


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=200))
def test_the_running_mean_is_that_of_the_latest(values):
    width = max(1, len(values) // 50)
    for index, got in enumerate(_running(values)):
        kept = [one for one in values[max(0, index - width + 1) : index + 1] if one == one]
        if kept:
            # Running sums of numbers up to 10 carry some hundred roundings.
            assert got == pytest.approx(sum(kept) / len(kept), abs=1e-9)
        else:
            assert math.isnan(got)


@given(st.integers(1, 60), st.integers(2, 12))
def test_layers_are_spread_over_the_depth(count, most):
    shown = _spread(range(count), most)
    assert len(set(shown)) == len(shown) == min(count, most)
    assert (shown[0], shown[-1]) == (0, count - 1)
