"""Running tasks: what is kept, what is read again, what is not disturbed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from llama4_train.errors import EvaluationError
from llama4_train.evaluation import evaluate, evaluations, tasks_of
from llama4_train.evaluation.run import fingerprint
from llama4_train.evaluation.world import WorldTask
from llama4_train.recipe import Slot

SLOTS = (
    Slot("world", {"world": "arithmetic", "count": 2, "max_tokens": 2, "counted": 20}),
    Slot(
        "perplexity",
        {"source": "worlds", "settings": {"world": "recall", "length": 90, "limit": 2}},
    ),
)


def test_training_goes_on_as_if_nothing_had_been(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make()
    model.train()
    model.layers[1].eval()
    modes = {name: one.training for name, one in model.named_modules()}
    before = torch.get_rng_state(), random.getstate()
    measure = WorldTask.measure

    def disturbing(self: Any, asked: Any, context: Any) -> Any:
        assert not any(one.training for one in asked.modules())
        torch.manual_seed(5)
        random.seed(5)
        return measure(self, asked, context)

    monkeypatch.setattr(WorldTask, "measure", disturbing)
    seen = []
    found = evaluate(model, SLOTS, progress=lambda *now: seen.append(now))
    assert {name: one.training for name, one in model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert found["perplexity.recall.bits_per_byte"] > 0
    assert found["arithmetic.arithmetic-1.accuracy"] == 0
    assert {label for label, _, _ in seen} == {"arithmetic", "perplexity"}
    assert all(parameter.grad is None for parameter in model.parameters())
    monkeypatch.setattr(WorldTask, "measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(model, SLOTS)
    assert {name: one.training for name, one in model.named_modules()} == modes


def test_equal_models_give_equal_figures_and_stopped_ones_go_on(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = tasks_of(SLOTS)
    whole = list(evaluations(make(), tasks))
    running = evaluations(make(), tasks, folder=tmp_path / "out")
    first = next(running)
    running.close()  # stopped between two tasks
    assert first == whole[0]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["arithmetic.json"]
    monkeypatch.setattr(WorldTask, "measure", lambda *_: 1 / 0)
    assert list(evaluations(make(), tasks, folder=tmp_path / "out")) == whole
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_results_of_something_else_are_never_taken(make: Any, tmp_path: Path) -> None:
    tasks = tasks_of(SLOTS[1:])
    model = make()
    list(evaluations(model, tasks, folder=tmp_path))
    file = tmp_path / "perplexity.json"
    stored = file.read_text(encoding="utf-8")
    other = tasks_of([Slot("perplexity", {**SLOTS[1].settings, "records": 1})])
    with pytest.raises(EvaluationError, match="measured with settings"):
        list(evaluations(model, other, folder=tmp_path))
    with pytest.raises(EvaluationError, match="another model"):
        list(evaluations(make(seed=1), tasks, folder=tmp_path))
    with pytest.raises(EvaluationError, match="with length None, not 5"):
        list(evaluations(model, tasks, folder=tmp_path, length=5))
    for damaged in (stored[:50], "{}", json.dumps({"figures": 3})):
        file.write_text(damaged, encoding="utf-8")
        with pytest.raises(EvaluationError, match="no result of an evaluation"):
            list(evaluations(model, tasks, folder=tmp_path))


def test_a_fingerprint_sees_training_and_dtype(make: Any) -> None:
    model = make()
    known = fingerprint(model)
    assert fingerprint(make()) == known
    assert fingerprint(make(max_positions=97)) != known
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            kept = parameter.clone()
            parameter.mul_(1.01)
            assert fingerprint(model) != known, name
            parameter.copy_(kept)
    assert fingerprint(model) == known
    assert fingerprint(model.to(torch.bfloat16)) != known
