"""Runs of arms and seeds: what is refused, what is resumed, one real ablation."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llama4_core as l4
from llama4_core.cli import main
from llama4_core.specs.toml import toml_from_spec
from llama4_core.testing.modality_cases import tokenizer
from llama4_core.tokenizers.ranks import write_ranks
from llama4_core.tokenizers.sample import sample_ranks
from llama4_train.ablation import Plan, ablate
from llama4_train.ablation.card import card, write_card
from llama4_train.ablation.runs import check_flops
from llama4_train.errors import EvaluationError, RecipeError, TrainingError
from llama4_train.recipe import Recipe
from llama4_train.trainer.step import Step

COMMON = """
name = "common"
steps = 6
model = {{ start = "{start}", tokenizer = "{tokenizer}" }}
optimizer = {{ name = "adamw", settings = {{ lr = 0.01 }} }}
checkpoints = {{ every = 2 }}
[data]
length = 40
tokens = 120
sources = [{{ name = "worlds", settings = {{ world = "arithmetic", questions = 2 }} }}]
"""

PLAN = """
recipe = "common.toml"
seeds = [0, 1]
control = "plain"
also = { loss = "lower" }
seeded = ["data.sources.0.settings.seed"]
tail = 0.5
description = "A rate against another."
[arms.plain]
[arms.slow]
optimizer = { settings = { lr = 0.0001 } }
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A plan, its recipe, a model's description and a tokenizer."""
    from dataclasses import replace

    spec = l4.assemble("nano").spec
    layers = tuple(
        replace(
            layer,
            attention=replace(layer.attention, heads=2, kv_heads=1, head_dim=8),
            feed_forward=replace(layer.feed_forward, width=16, shared_width=16),
        )
        for layer in spec.layers[2:4]
    )
    spec = replace(spec, width=16, vocabulary=tokenizer().vocabulary, layers=layers)
    (tmp_path / "tiny.toml").write_text(toml_from_spec(spec), encoding="utf-8")
    (tmp_path / "tokens").mkdir()
    write_ranks(sample_ranks(), tmp_path / "tokens" / "tokenizer.model")
    common = COMMON.format(start=tmp_path / "tiny.toml", tokenizer=tmp_path / "tokens")
    (tmp_path / "common.toml").write_text(common, encoding="utf-8")
    (tmp_path / "plan.toml").write_text(PLAN, encoding="utf-8")
    return tmp_path


def recipe(**changes: Any) -> Recipe:
    values = {
        "name": "fake",
        "steps": 4,
        "model": {"start": "nano"},
        "data": {"length": 8, "tokens": 16, "sources": [{"name": "worlds"}]},
    }
    return Recipe.of(values).override(changes)


class Fake:
    """Trains by counting; stops on purpose, and goes on from an old place as a trainer does."""

    def __init__(self, every: int = 1) -> None:
        self.every = every
        self.stop = -1
        self.taken: list[tuple[str, int]] = []
        self.data: dict[str, float] = {}

    def __call__(self, made: Recipe, folder: Path, resume: bool) -> Iterator[Step]:
        assert resume == (folder / "recipe.toml").is_file()
        (folder / "recipe.toml").write_text(made.to_toml(), encoding="utf-8")
        mark = folder / "step"
        begin = int(mark.read_text()) if resume and mark.is_file() else 0
        arm = made.name.split("-")[1]
        for number in range(begin, made.steps):
            if len(self.taken) == self.stop:
                self.stop = -1
                raise KeyboardInterrupt
            self.taken.append((f"{arm}-{made.seed}", number))
            if (number + 1) % self.every == 0:
                mark.write_text(str(number + 1))
            loss = made.optimizer.settings["lr"] * 100 + made.seed + number
            batches = self.data.get(arm, 0.0) + made.seed * 10 + number
            yield Step(number, loss, 0.1, 1.0, 16, 2.0, {"nll": loss, "batches": batches})


def plan_of(**changes: Any) -> Plan:
    arms = {"a": recipe(), "b": recipe(**{"optimizer.settings.lr": 0.01})}
    return Plan("fake", arms, (0, 1), **changes)


FLOPS = {"a": 1e6, "b": 1.005e6}


@pytest.mark.parametrize("stop", range(17))
@pytest.mark.parametrize("every", [1, 3])
def test_a_stopped_ablation_goes_on(tmp_path: Path, stop: int, every: int) -> None:
    whole = ablate(plan_of(), tmp_path / "whole", start=Fake(), flops=FLOPS)
    fake = Fake(every)
    fake.stop = stop
    if stop < 16:
        with pytest.raises(KeyboardInterrupt):
            ablate(plan_of(), tmp_path / "out", start=fake, flops=FLOPS)
    found = ablate(plan_of(), tmp_path / "out", start=fake, flops=FLOPS)
    assert found == whole
    # Finished runs were not run again, and of the others only what no checkpoint held.
    assert len(fake.taken) <= 16 + every - 1
    count = len(fake.taken)
    assert ablate(plan_of(), tmp_path / "out", start=fake, flops=FLOPS) == whole
    assert len(fake.taken) == count


def test_figures_and_costs(tmp_path: Path) -> None:
    found = ablate(plan_of(tail=0.5), tmp_path, start=Fake(), flops=FLOPS)
    # The last two of four steps: 0.1 or 1 from the rate, 2.5 from the steps, and the seed.
    assert found.outcomes["a"] == pytest.approx({0: 2.6, 1: 3.6})
    assert found.outcomes["b"] == pytest.approx({0: 3.5, 1: 4.5})
    (difference,) = found.differences
    assert (difference.arm, difference.mean) == ("b", pytest.approx(0.9))
    assert difference.verdict("lower") == "worse"
    assert found.costs["b"] == {"seconds": 16.0, "tokens": 128.0, "flops": 128 * 1.005e6}
    for seed in (0, 1):
        (tmp_path / "a" / f"seed-{seed}" / "carbon.json").write_text('{"energy_kwh": 0.25}')
    again = ablate(plan_of(tail=0.5), tmp_path, start=Fake(), flops=FLOPS)
    assert again.costs["a"]["kwh"] == 0.5
    assert "kwh" not in again.costs["b"]
    assert json.loads(json.dumps(again.plain()))["differences"][0]["verdict"] == "worse"


def test_further_metrics_are_compared_as_the_first_is(tmp_path: Path) -> None:
    also = {"nll": "lower", "batches": "higher"}
    fake = Fake()
    fake.data["b"] = 1.0
    plan = plan_of(metric="loss", also=also, tail=0.5, paired=False)
    found = ablate(plan, tmp_path, start=fake, flops=FLOPS)
    # The fake's nll is its loss; its batches are ten times the seed, the step, and 1 in arm b.
    assert found.also["nll"].outcomes == found.outcomes
    assert found.also["nll"].differences == found.differences
    assert found.also["batches"].outcomes == {"a": {0: 2.5, 1: 12.5}, "b": {0: 3.5, 1: 13.5}}
    (difference,) = found.also["batches"].differences
    assert (difference.values, difference.low, difference.high) == ((1.0, 1.0), 1.0, 1.0)
    plain = json.loads(json.dumps(found.plain()))
    assert plain["also"]["batches"]["differences"][0]["verdict"] == "better"
    assert plain["also"]["nll"]["differences"] == plain["differences"]
    assert plain["also"]["nll"]["outcomes"] == plain["outcomes"]
    text = card(found)
    assert "| batches (higher is better) | a | 7.500 |  |  | control |" in text
    row = "| batches (higher is better) | b | 8.500 | +1.0000 | +1.0000 to +1.0000 | better |"
    assert row in text
    plain_plan = plan_of(metric="loss", tail=0.5, paired=False)
    assert "Other metrics" not in card(ablate(plain_plan, tmp_path, start=fake, flops=FLOPS))


def test_arms_without_a_further_metric_are_left_out(tmp_path: Path) -> None:
    class Dense(Fake):
        def __call__(self, made: Recipe, folder: Path, resume: bool) -> Iterator[Step]:
            for step in super().__call__(made, folder, resume):
                if "-a-" in made.name:
                    step.parts["load"] = 2.0  # type: ignore[index]
                yield step

    found = ablate(plan_of(also={"load": "lower"}), tmp_path / "x", start=Dense(), flops=FLOPS)
    assert found.also["load"].outcomes == {"a": {0: 2.0, 1: 2.0}}
    assert found.also["load"].differences == ()
    assert "| load (lower is better) | b | has none |" in card(found)
    for wrong in (
        plan_of(also={"load": "lower"}, control="b"),  # nothing to be compared with
        plan_of(metric="load"),  # the judged metric is every arm's
    ):
        with pytest.raises(EvaluationError, match="which a run does not have"):
            ablate(wrong, tmp_path / wrong.control, start=Dense(), flops=FLOPS)


def test_other_batches_are_found(tmp_path: Path) -> None:
    fake = Fake()
    fake.data["b"] = 1.0
    with pytest.raises(TrainingError, match="8 steps of arms saw other batches"):
        ablate(plan_of(), tmp_path, start=fake, flops=FLOPS)
    assert ablate(plan_of(paired=False), tmp_path, start=fake, flops=FLOPS).unpaired == 8


def test_finished_runs_of_other_recipes_are_not_taken(tmp_path: Path) -> None:
    ablate(plan_of(), tmp_path, start=Fake(), flops=FLOPS)
    other = Plan("fake", {"a": recipe(clip=0.5), "b": recipe()}, (0, 1))
    with pytest.raises(TrainingError, match="finished run of another recipe"):
        ablate(other, tmp_path, start=Fake(), flops=FLOPS)


def test_arms_that_cannot_be_compared_are_refused() -> None:
    check_flops({"a": 100.0, "b": 101.0})
    with pytest.raises(RecipeError, match=r"1\.1% in active FLOPs of a token \(a 100, b 101\.1\)"):
        check_flops({"a": 100.0, "b": 101.1})
    same = recipe()
    for arms, said in (
        ({"a": same}, "at least two"),
        ({"a": same, "b": recipe(steps=5)}, "takes 5 steps"),
        ({"a": same, "b": recipe(**{"data.tokens": 17})}, "another data.tokens"),
        ({"a": same, "b": recipe(**{"data.length": 7})}, "paired = false"),
        ({"a": same, "b/": same}, "letters, digits"),
    ):
        with pytest.raises(RecipeError, match=said):
            Plan("x", arms, (0, 1))
    both = {"a": same, "b": same}
    for changes, said in (
        ({"seeds": (0,)}, "at least two"),
        ({"seeds": (0, 0)}, "each once"),
        ({"control": "c"}, "expected one of a, b"),
        ({"better": "more"}, "'lower' or 'higher'"),
        ({"also": {"loss": "more"}}, "better of loss is 'more'"),
        ({"also": {"nll": "lower"}}, "stands in also"),
        ({"also": {"evaluation.a.b.c": "lower"}}, "evaluates nothing"),
        ({"tail": 0.0}, "between 0 and 1"),
        ({"confidence": 1.0}, "between 0 and 1"),
        ({"metric": "evaluation.a.b.c"}, "evaluates nothing"),
    ):
        with pytest.raises(RecipeError, match=said):
            Plan("x", both, **{"seeds": (0, 1), **changes})


def test_a_real_ablation(files: Path, capsys: Any) -> None:
    words = ("train", "ablate", str(files / "plan.toml"), "--out", str(files / "out"), "--json")
    assert main((*words[:3], "--out", "x", "--check")) == 0
    assert "active FLOPs" in capsys.readouterr().out
    assert main(words) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert len(set(found["flops_per_token"].values())) == 1
    assert found["unpaired_steps"] == 0
    (difference,) = found["differences"]
    # A rate a hundred times as small learns less in six steps, with either seed.
    assert min(difference["values"]) > 0
    assert err.splitlines() == [
        f"{arm}, seed {seed}: 6 steps" for seed in (0, 1) for arm in ("plain", "slow")
    ]
    text = (files / "out" / "card.md").read_text(encoding="utf-8")
    assert "A rate against another." in text
    assert "`optimizer = { settings = { lr = 0.0001 } }`" in text
    assert "Student's t interval, 1 degrees of freedom" in text
    for name in ("curves.png", "differences.png"):
        assert f"]({name})" in text
        assert (files / "out" / name).read_bytes()[:4] == b"\x89PNG"
    curves = {
        seed: [
            json.loads(line)["parts"]["batches"]
            for line in (files / "out" / "slow" / f"seed-{seed}" / "curve.jsonl")
            .read_text(encoding="utf-8")
            .splitlines()
        ]
        for seed in (0, 1)
    }
    assert len({*curves[0], *curves[1]}) == 12  # every step of every seed saw something else
    assert main(words) == 0
    assert capsys.readouterr().out == out


def test_a_real_run_that_was_killed_is_bit_equal(files: Path) -> None:
    plan = Plan.read(files / "plan.toml")
    whole = ablate(plan, files / "whole")

    def stop(arm: str, seed: int, step: int, steps: int) -> None:
        if (arm, seed, step) == ("slow", 0, 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(plan, files / "out", say=stop)
    for thread in threading.enumerate():
        if thread.name.startswith("writes "):
            thread.join()  # a process that is killed takes its threads along
    # As if it had been killed before the last steps were written down.
    curve = files / "out" / "slow" / "seed-0" / "curve.jsonl"
    lines = curve.read_text(encoding="utf-8").splitlines(keepends=True)
    curve.write_text("".join(lines[:3]) + lines[3][:20], encoding="utf-8")
    found = ablate(plan, files / "out")
    assert found.outcomes == whole.outcomes
    assert found.unpaired == 0


def test_plans_are_read_whole_or_not_at_all(files: Path, capsys: Any) -> None:
    plan = Plan.read(files / "plan.toml")
    assert plan.name == "plan"
    one = plan.recipe("slow", 1)
    assert (one.seed, one.data.sources[0].settings["seed"]) == (1, 1)
    assert one.optimizer.settings == {"lr": 0.0001}
    assert plan.recipe("plain", 0).optimizer.settings == {"lr": 0.01}
    for change, said in (
        (("seeds", "sedes"), "did you mean 'seeds'"),
        (("lr = 0.0001", "lr = 0.0001 }, nmae = { a = 1"), "'nmae'"),
        (("common.toml", "missing.toml"), "cannot be read as text"),
        (("[arms.slow]", "[arms.slow"), "no TOML"),
        (("[arms.slow]", "[arms.slow]\nsteps = 7"), "takes 7 steps"),
    ):
        (files / "bad.toml").write_text(PLAN.replace(*change), encoding="utf-8")
        assert main(("train", "ablate", str(files / "bad.toml"), "--out", "nowhere")) == 2
        _, err = capsys.readouterr()
        assert said in err
        assert err.count("\n") == 1
    assert not Path("nowhere").exists()
    wide = PLAN + "model = { start = 'nano' }\n"
    (files / "wide.toml").write_text(wide, encoding="utf-8")
    assert main(("train", "ablate", str(files / "wide.toml"), "--out", "nowhere")) == 2
    assert "active FLOPs" in capsys.readouterr().err


def test_a_card_without_figures_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    found = ablate(plan_of(), tmp_path, start=Fake(), flops=FLOPS)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = write_card(found, tmp_path / "card")
    assert "matplotlib is not installed" in page.read_text(encoding="utf-8")
    assert [path.name for path in page.parent.iterdir()] == ["card.md"]
    assert card(found).count("| b | +0.9000 |") == 1
