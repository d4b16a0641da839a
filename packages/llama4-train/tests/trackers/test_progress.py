"""The line of progress, by numbers that are easy to follow."""

import io

import pytest

from llama4_train.errors import RecipeError
from llama4_train.trackers.peak import measured_peak
from llama4_train.trackers.progress import Progress, duration, line

VALUES = {"loss": 2.5, "learning_rate": 1e-3, "tokens": 1000, "seconds": 0.5, "flops": 1e9}


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self):
        return True


def test_all_of_the_line():
    # 2,000 tokens and 2e9 operations in a second; 90 steps of half a second are left.
    assert line(9, 100, [VALUES, VALUES], peak=8e9) == (
        "step 10/100 | loss 2.5000 | lr 1.00e-03 | 2,000 tokens/s | 25% of 0.008 TFLOP/s | "
        "0:45 left"
    )


def test_rates_are_of_the_window_and_the_loss_of_the_step():
    slow = {**VALUES, "seconds": 1.5, "loss": 9.0}
    assert "loss 2.5000" in line(1, 3, [slow, VALUES])
    assert "1,000 tokens/s" in line(1, 3, [slow, VALUES])
    assert line(1, 3, [slow, VALUES]).endswith("| 0:01 left")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "step 1/2"),
        ({"loss": float("nan")}, "step 1/2 | loss nan"),
        ({"seconds": 2.0}, "step 1/2 | 0:02 left"),
        ({"seconds": 0.0, "tokens": 5}, "step 1/2"),
    ],
)
def test_what_is_not_known_is_not_shown(values, expected):
    assert line(0, 2, [values]) == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61, "1:01"), (3599, "59:59"), (3661, "1:01:01")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_without_a_terminal_there_is_a_line_now_and_then(recipe):
    stream = io.StringIO()
    shown = Progress(None, recipe(25), every=10, peak=1e9, stream=stream)
    for step in range(25):
        shown.log(step, VALUES)
    shown.finish()
    assert [text.split(" |")[0] for text in stream.getvalue().splitlines()] == [
        "step 10/25",
        "step 20/25",
        "step 25/25",
    ]
    assert "\r" not in stream.getvalue()


def test_a_terminal_keeps_one_line(recipe, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    shown = Progress(None, recipe(25), peak=1e9, stream=stream)
    for step in range(3):
        shown.log(step, VALUES)
    assert "\n" not in stream.getvalue()
    shown.finish()
    shown.finish()
    lines = stream.getvalue().removesuffix("\n").split("\r")[1:]
    assert [text.removesuffix("\x1b[K")[:9] for text in lines] == [
        "step 1/25",
        "step 2/25",
        "step 3/25",
    ]
    # One column less than there are: a full line would wrap on some terminals.
    assert all(len(text.removesuffix("\x1b[K")) == 29 for text in lines)
    assert stream.getvalue().count("\n") == 1


def test_standard_error_is_where_it_goes(recipe, capsys):
    Progress(None, recipe(1), peak=1e9).log(0, VALUES)
    seen = capsys.readouterr()
    assert seen.err.startswith("step 1/1")
    assert not seen.out


def test_the_peak_is_measured_once_and_only_where_it_is_needed(recipe, monkeypatch):
    calls = []

    def measured(dtype, device):
        calls.append((dtype, device))
        return 4e9

    monkeypatch.setattr("llama4_train.trackers.peak.measured_peak", measured)
    stream = io.StringIO()
    shown = Progress(None, recipe(9, dtype="bfloat16"), every=1, stream=stream)
    shown.log(0, {"seconds": 1.0})
    assert not calls
    shown.log(1, VALUES)
    shown.log(2, VALUES)
    assert calls == [("bfloat16", "cpu")]
    assert "of 0.004 TFLOP/s" in stream.getvalue()


def test_a_measured_peak_is_a_rate():
    assert 0 < measured_peak("float32") < float("inf")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"every": 0}, "every is 0; expected at least 1"),
        ({"peak": "high"}, "peak is 'high'; expected operations per second, or 'measured'"),
        ({"peak": 0.0}, r"peak is 0\.0; expected operations per second, above 0"),
    ],
)
def test_settings_out_of_range_are_named(recipe, settings, said):
    with pytest.raises(RecipeError, match=said):
        Progress(None, recipe(), **settings)
