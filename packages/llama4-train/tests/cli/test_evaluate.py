"""``llama4 evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llama4_core as l4
from llama4_core.cli import main
from llama4_core.model.initialise import initialise
from llama4_core.testing.modality_cases import tokenizer
from llama4_core.tokenizers.ranks import write_ranks
from llama4_core.tokenizers.sample import sample_ranks

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def llama4(capsys: Any) -> Run:
    def run(*words: str) -> tuple[int, str, str]:
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    from dataclasses import replace

    place: Path = tmp_path_factory.mktemp("models") / "tiny"
    spec = l4.assemble("nano").spec
    attention = replace(spec.layers[3].attention, heads=2, kv_heads=1, head_dim=8)
    from llama4_core.specs.model import DenseSpec, LayerSpec

    layer = LayerSpec(attention, DenseSpec(24))
    spec = replace(
        spec, name="tiny", width=16, vocabulary=tokenizer().vocabulary, layers=(layer,),
        max_positions=200,
    )  # fmt: skip
    model = l4.assemble(spec, device="cpu")
    initialise(model, 0)
    l4.save(model, place)
    write_ranks(sample_ranks(), place / "tokenizer.model")
    return place


TASKS = (
    "--task", "world:world=arithmetic,count=2,max_tokens=2,counted=20",
    "--task", 'passkey:length=180,times=[1,2],count=1,temperatures=["off","0.1/64"]',
)  # fmt: skip


def test_figures_as_a_table_and_as_json(llama4: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = llama4("evaluate", str(folder), *TASKS, "-o", str(tmp_path / "a.png"))
    assert code == 0
    assert "95 % interval" in out
    assert "360@0.1-64" in out
    assert err.splitlines() == ["arithmetic: done (1/2)", "passkey: done (2/2)"]
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    code, out, _ = llama4("evaluate", str(folder), *TASKS, "--json", "--seed", "3")
    found = json.loads(out)
    assert code == 0
    assert [one["label"] for one in found["results"]] == ["arithmetic", "passkey"]
    assert all(one["settings"]["seed"] == 3 for one in found["results"])


def test_a_stopped_evaluation_goes_on(llama4: Run, folder: Path, tmp_path: Path) -> None:
    kept = ("--out", str(tmp_path / "out"))
    code, _, _ = llama4("evaluate", str(folder), *TASKS[:2], *kept)
    assert code == 0
    first = (tmp_path / "out" / "arithmetic.json").read_bytes()
    assert llama4("evaluate", str(folder), *TASKS, *kept)[0] == 0
    assert (tmp_path / "out" / "arithmetic.json").read_bytes() == first
    code, _, err = llama4(
        "evaluate", str(folder), "--task", "world:world=arithmetic,count=3", *kept
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "choose another folder" in err


def test_tasks_are_listed_without_a_model(llama4: Run) -> None:
    code, out, _ = llama4("evaluate", "--list")
    assert code == 0
    assert "passkey" in out
    assert "temperatures" in out
    code, out, _ = llama4("evaluate", "--list", "--json")
    assert [one["task"] for one in json.loads(out)] == ["perplexity", "world", "passkey", "lm-eval"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "got no model"),
        (("x",), "got no task"),
        (("x", "--task", "wrold"), "did you mean 'world'"),
        (("x", "--task", "world:world=arithmetic", "-o", "a.png"), "add --task passkey"),
        (("x", "--task", "passkey:length=9", "-o", "a.doc"), "ends in"),
        (("x", "--task", "world:world=arithmetic", "--seed", "-1"), "--seed"),
        (("nowhere", "--task", "world:world=arithmetic"), "nowhere"),
    ],
)
def test_bad_input_is_one_line(llama4: Run, words: tuple[str, ...], said: str) -> None:
    code, out, err = llama4("evaluate", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
