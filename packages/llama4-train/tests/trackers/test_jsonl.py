"""The log: what is in the file, and what it refuses."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_train.errors import TrainingError
from llama4_train.trackers.jsonl import JsonLines, read_log

NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.integers(-(2**60), 2**60)
VALUES = st.dictionaries(
    st.text(min_size=1).filter(lambda name: name != "step"),
    NUMBERS | st.lists(NUMBERS, max_size=3),
    max_size=4,
)


@given(st.lists(VALUES, min_size=1, max_size=5))
def test_every_number_comes_back(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("run")
    log = JsonLines(folder, None)
    for step, values in enumerate(lines):
        log.log(step, values)
    log.finish()
    expected = [{"step": step, **values} for step, values in enumerate(lines)]
    # By their text: NaN is not equal to itself.
    assert repr(read_log(folder / "log.jsonl")) == repr(expected)


def test_every_line_is_strict_json(tmp_path):
    log = JsonLines(tmp_path, None)
    log.log(0, {"loss": math.nan, "up": math.inf, "down": -math.inf, "load": [1.0, math.nan]})
    (text,) = (tmp_path / "log.jsonl").read_text().splitlines()

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(text, parse_constant=refuse) == {
        "step": 0,
        "loss": "NaN",
        "up": "Infinity",
        "down": "-Infinity",
        "load": [1.0, "NaN"],
    }


def test_a_resumed_run_takes_its_steps_back(tmp_path):
    first = JsonLines(tmp_path, None)
    for step in range(5):
        first.log(step, {"loss": 1.0})
    first.finish()
    second = JsonLines(tmp_path, None)
    second.log(3, {"loss": 2.0})
    got = [(line["step"], line["loss"]) for line in read_log(tmp_path / "log.jsonl")]
    assert got == [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0)]


def test_another_file_is_left_alone(tmp_path):
    """The name may be that of somebody's data: nothing is cut off then."""
    (tmp_path / "notes.jsonl").write_text('{"text": "years of work"}\n')
    log = JsonLines(tmp_path, None, file="notes.jsonl")
    with pytest.raises(TrainingError, match=r"notes\.jsonl, line 1: there is no number of a step"):
        log.log(0, {"loss": 1.0})
    assert (tmp_path / "notes.jsonl").read_text() == '{"text": "years of work"}\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"step": 0}\nwords\n', "line 2: this is no JSON"),
        ('{"step": 0}\n\xff\n', "line 2: this is no JSON"),
        ("[1]\n", "line 1: there is no number of a step"),
        ('{"step": "0"}\n', "line 1: there is no number of a step"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, text, said):
    path = tmp_path / "log.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TrainingError, match=said):
        read_log(path)
    before = path.read_bytes()
    with pytest.raises(TrainingError, match=said):
        JsonLines(tmp_path, None).log(5, {})
    assert path.read_bytes() == before


def test_a_missing_log_is_one_line(tmp_path):
    with pytest.raises(TrainingError, match=r"log\.jsonl: cannot be read"):
        read_log(tmp_path / "log.jsonl")


def test_steps_rise(tmp_path):
    log = JsonLines(tmp_path, None)
    log.log(4, {})
    with pytest.raises(TrainingError, match="step 4 is logged after step 4"):
        log.log(4, {})
    with pytest.raises(TrainingError, match="a value is called 'step'"):
        log.log(5, {"step": 1.0})


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(TrainingError, match="No space left on device; make room, then resume"):
        JsonLines(tmp_path, None).log(0, {})
