from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.plugins.report import AssemblyReport, Choice, Provider, Refusal, Row, ranges

SDPA = Choice(
    "attention_backends",
    "auto",
    "",
    (Row("always", Provider("sdpa", "llama4-core", "0.1.0")),),
    (Refusal("xformers", (), "needs CUDA"), Refusal("flex", ("with gradients",), "no backward")),
)
MINE = Choice(
    "routers",
    "sigmoid-top-k",
    "**.router",
    (Row("always", Provider("mine", "local:mine.py", "sha256:" + "ab" * 32)),),
)


def test_identical_layers_share_a_line() -> None:
    report = AssemblyReport("tiny", "float32", "cpu")
    for layer in range(7):
        report.record(f"layers.{layer}.attention.backend", MINE if layer == 3 else SDPA)
    report.record("cache", SDPA)
    lines = report.to_text().splitlines()
    assert lines[0] == "tiny: float32 on cpu"
    assert [line.split()[0] for line in lines[1:] if "[" in line] == [
        "layers.0-2,4-6.attention.backend",
        "layers.3.attention.backend",
        "cache",
    ]
    assert "sdpa  [llama4-core 0.1.0]" in lines[1]
    assert lines[2].strip() == "not xformers: needs CUDA"
    assert lines[3].strip() == "not flex (with gradients): no backward"
    assert "mine  [local:mine.py sha256:abababababab]   (override **.router)" in lines[4]


@given(st.sets(st.integers(0, 60), min_size=1))
def test_ranges_name_exactly_the_numbers(numbers: set[int]) -> None:
    named: set[int] = set()
    for part in ranges(list(numbers)).split(","):
        low, _, high = part.partition("-")
        named |= set(range(int(low), int(high or low) + 1))
    assert named == numbers


@pytest.mark.parametrize(
    ("numbers", "text"), [([0], "0"), ([0, 1], "0-1"), ([4, 0, 1, 2, 6, 5], "0-2,4-6")]
)
def test_how_ranges_look(numbers: list[int], text: str) -> None:
    assert ranges(numbers) == text


def test_json_holds_every_slot_in_full() -> None:
    report = AssemblyReport("tiny", "float32", "cpu")
    report.record("layers.0.feed_forward.router", MINE)
    report.record("layers.0.attention.backend", SDPA)
    read = json.loads(report.to_json())
    assert list(read["slots"]) == ["layers.0.feed_forward.router", "layers.0.attention.backend"]
    router = read["slots"]["layers.0.feed_forward.router"]
    assert router["rows"][0]["provider"]["version"] == "sha256:" + "ab" * 32
    assert router["override"] == "**.router"
    assert read["slots"]["layers.0.attention.backend"]["refused"][0]["reason"] == "needs CUDA"


def test_a_row_that_nothing_can_run_says_why() -> None:
    report = AssemblyReport("tiny", "float32", "cpu")
    rows = (
        Row("without gradients", SDPA.rows[0].provider),
        Row("with gradients", None, "no backward"),
    )
    report.record("x", Choice("attention_backends", "fast", "", rows))
    assert "with gradients: nothing: no backward" in str(report)
