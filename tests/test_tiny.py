"""How the small model is shipped and measured, and that the demo asks what it was taught."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from safetensors import safe_open

import llama4_core as l4
from llama4_core.demo import picture, questions
from llama4_core.demo.picture import THINGS, png
from llama4_core.specs.find import spec_from_path
from llama4_core.specs.toml import read_toml, write_toml
from llama4_train import Recipe, train
from llama4_train.checkpoints.runs import stored_model
from llama4_train.evaluation.tasks import tasks_of
from llama4_train.worlds import pictures
from llama4_train.worlds.grammar import sentence
from llama4_train.worlds.languages import LANGUAGES
from llama4_train.worlds.scenes import Scenes
from llama4_train.worlds.scenes_layout import CELLS
from llama4_train.worlds.sentences import Sentences
from llama4_train.worlds.tool_tables import TOOLS

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes" / "tiny"
TINY_HF = ROOT / "tests" / "data" / "tiny-hf"

RECIPE = """
name = "once"
description = "One step."
steps = 1
model = {{ start = "{spec}", tokenizer = "{words}" }}

[data]
length = 128
tokens = 256
sources = [{{ name = "worlds", settings = {{ world = "arithmetic" }} }}]
"""


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tiny_{name}", RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of one step, of a model with a balancing bias."""
    place = tmp_path_factory.mktemp("ship")
    spec = read_toml(RECIPES / "spec.toml")
    last = spec.layers[3]
    balanced = replace(last.feed_forward, router="sigmoid-top-k-balanced")
    layers = (replace(last, feed_forward=balanced),)
    tokens = spec_from_path(TINY_HF).tokens  # of the tokenizer below
    spec = replace(spec, layers=layers, width=32, vision=None, tokens=tokens)
    write_toml(spec, place / "spec.toml")
    (place / "recipe.toml").write_text(RECIPE.format(spec=place / "spec.toml", words=TINY_HF))
    train(Recipe.read(place / "recipe.toml"), place / "run")
    return place / "run"


class TestShipping:
    def test_all_of_it_or_nothing(self, run: Path, tmp_path: Path, capsys) -> None:
        """A bias that is not zero is refused unless it is asked for; then the folder loads."""
        ship = script("ship")
        out = tmp_path / "data"
        out.mkdir()
        (out / "figures.json").write_text("{}")
        assert ship.main([str(run), "--out", str(out)]) == 2
        assert "balance their load by a bias" in capsys.readouterr().err
        assert [file.name for file in out.iterdir()] == ["figures.json"]
        assert ship.main([str(run), "--out", str(out), "--drop-bias"]) == 0
        names = {file.name for file in out.iterdir()}
        assert {"spec.toml", "tokenizer.json", "model-00001-of-00001.safetensors"} <= names
        assert "figures.json" not in names  # of other weights
        assert [file.name for file in tmp_path.iterdir()] == ["data"]
        model = l4.load(out)
        assert (model.dtype, model.spec.name) == (torch.bfloat16, "tiny")
        assert model.spec.layers[0].feed_forward.router == "sigmoid-top-k"
        assert model.tokenizer is not None

    def test_the_mean_of_runs(self, run: Path, tmp_path: Path, capsys) -> None:
        """Weighted, in float32; a share too few, and runs of two models, are refused."""
        ship, other = script("ship"), tmp_path / "other"
        train(Recipe.read(run.parent / "recipe.toml").override({"seed": 1}), other)
        one, two = (stored_model(place).tensors for place in (run, other))
        found = ship.mean([run, other], [1.0, 3.0]).tensors
        assert found.keys() == one.keys()
        assert any(not torch.equal(one[name], two[name]) for name in found)
        for name, tensor in found.items():
            # Both ways round twice in float32.
            expected = 0.25 * one[name] + 0.75 * two[name]
            torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)
        words = [str(run), str(other), "--out", str(tmp_path / "data"), "--drop-bias"]
        assert ship.main([*words, "--shares", "1"]) == 2
        assert "2 runs have the shares [1.0]; expected a number above 0" in capsys.readouterr().err
        spec = read_toml(run.parent / "spec.toml")
        write_toml(replace(spec, width=16), tmp_path / "spec.toml")
        recipe = Recipe.read(run.parent / "recipe.toml")
        train(recipe.override({"model.start": str(tmp_path / "spec.toml")}), tmp_path / "narrow")
        assert ship.main([str(tmp_path / "narrow"), *words]) == 2
        assert "is of another model than" in capsys.readouterr().err
        assert not (tmp_path / "data").exists()
        assert ship.main(words) == 0

    def test_what_is_too_large_is_refused(self, run: Path, tmp_path: Path, monkeypatch, capsys):
        """With both numbers, before anything is written."""
        ship = script("ship")
        monkeypatch.setattr(ship, "LARGEST", 1000)
        assert ship.main([str(run), "--out", str(tmp_path / "data"), "--drop-bias"]) == 2
        assert "bytes in bfloat16; expected at most 1,000" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_weights_without_a_tokenizer_are_refused(self, run: Path, tmp_path: Path, capsys):
        """Nobody could talk to them."""
        words = [str(run), "--out", str(tmp_path / "data"), "--tokenizer", str(tmp_path)]
        assert script("ship").main(words) == 2
        assert "no tokenizer.json goes along" in capsys.readouterr().err


class TestScaling:
    def test_what_is_named_is_multiplied_and_nothing_else(self, run: Path, tmp_path: Path) -> None:
        """The folder is one that training can begin from."""
        out = tmp_path / "louder"
        words = [str(run), str(out), "4", "layers.0.attention.*_proj.weight"]
        scale = script("scale")
        assert scale.main(words) == 0
        before = stored_model(run).tensors
        with safe_open(next(out.glob("*.safetensors")), "pt") as file:
            for name, tensor in before.items():
                factor = 4 if name.startswith("layers.0.attention.") else 1
                assert torch.equal(file.get_tensor(name), factor * tensor), name
        changed = {"model.start": str(out), "model.weights": "stored"}
        assert train(Recipe.read(run.parent / "recipe.toml").override(changed)) is not None

    @pytest.mark.parametrize(
        ("factor", "name", "said"),
        [("0", "head.weight", "above 0"), ("2", "heads.*", "no weight is called 'heads.*'")],
    )
    def test_what_cannot_be_is_said(self, run, tmp_path, capsys, factor, name, said) -> None:
        """And nothing is written."""
        assert script("scale").main([str(run), str(tmp_path / "out"), factor, name]) == 2
        assert said in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


class TestMeasuring:
    def test_every_task_fits_and_is_held_out(self) -> None:
        """In both forms; boxes as in training; every figure that is asked of the model is there."""
        measure = script("measure")
        for form in ("chat", "pack"):
            slots = measure.read(RECIPES / "measure.toml", form, 300, 256)
            tasks = {one.label: one.task for one in tasks_of(measure.seeded(slots, 0))}
            assert all(task.split == "held-out" for task in tasks.values())
            scenes = [task for label, task in tasks.items() if label.startswith("scenes")]
            assert {task.settings["box_step"] for task in scenes} == {20}
            worlds = [task.made() for task in tasks.values() if hasattr(task, "made")]
            keys = [task for label, task in tasks.items() if label.startswith("passkey")]
            assert {one.form for one in (*worlds, *keys)} == {form}
            assert {task.length for task in keys} == {256}
            assert {
                (times, heat)
                for label, task in tasks.items()
                if label.startswith("passkey")
                for times in task.times
                for heat in task.temperatures
            } == {(1, "model"), (4, "model"), (16, "model"), (64, "model"), (64, "off")}
            assert set(tasks) == set(script("card").ASKED)

    @pytest.mark.parametrize(("questions", "count"), [(300, 300), (30, 30), (1, 1)])
    def test_counts_are_scaled_and_never_none(self, questions: int, count: int) -> None:
        """Of a task of 300; a shorter one keeps at least one question."""
        slots = script("measure").read(RECIPES / "measure.toml", "chat", questions, 256)
        by_label = {one.settings["label"]: one.settings["count"] for one in slots}
        assert by_label["scenes-1"] == count
        assert by_label["passkey-64x"] == max(1, count // 3)

    def test_measured_once_and_tied_to_the_weights(self, tmp_path: Path, capsys) -> None:
        """A second call reads; an unknown label is named."""
        measure = script("measure")
        (tmp_path / "tasks.toml").write_text(
            '[[tasks]]\nname = "world"\n'
            'settings = { label = "sums", world = "arithmetic", count = 300, max_tokens = 2 }\n'
        )
        words = [str(TINY_HF), "--questions", "2", "--json"]
        words += ["--tasks", str(tmp_path / "tasks.toml"), "--work", str(tmp_path / "work")]
        out = ["--out", str(tmp_path / "figures.json")]
        assert measure.main([*words, *out]) == 0
        found = json.loads((tmp_path / "figures.json").read_text())
        assert json.loads(capsys.readouterr().out) == found
        assert found["weights"] == measure.weights(TINY_HF)
        kept = (tmp_path / "work" / "sums.json").stat().st_mtime_ns
        assert measure.main([*words, *out]) == 0
        assert (tmp_path / "work" / "sums.json").stat().st_mtime_ns == kept
        capsys.readouterr()
        assert measure.main([*words, "--only", "nobody"]) == 2
        assert "no task is called 'nobody'; there are sums" in capsys.readouterr().err


FIGURE = {"name": "1024@off", "metric": "accuracy", "value": 0.96, "count": 100, "low": 0.9,
          "high": 0.984, "chance": 0.25, "majority": 0.0001}  # fmt: skip
ROW = (
    "| one of 4 keys, 4 times as long | 1,024 tokens, no temperature | 0.960 | "
    "0.900 to 0.984 | 100 | 0.250 | 0.000 |"
)


class TestCard:
    def test_the_shipped_card_is_up_to_date(self) -> None:
        """Its tables are those of the data beside the weights."""
        assert script("card").main(["--check"]) == 0

    def test_tables_are_put_between_their_marks(self, tmp_path: Path) -> None:
        """And only there; a stale card is found, a rendered one stays."""
        card = script("card")
        file = tmp_path / "README.md"
        marks = [
            f"<!-- {name} -->\nold\n<!-- end of {name} -->" for name in ("figures", "training")
        ]
        file.write_text(f"head\n{marks[0]}\nmiddle\n{marks[1]}\ntail\n")
        words = ["--card", str(file), "--data", str(tmp_path)]
        task = {"label": "passkey-4x", "figures": [FIGURE]}
        whole = {**FIGURE, "name": "all"}
        other = {"label": "films", "figures": [whole]}
        found = {"form": "chat", "dtype": "bfloat16", "seed": 0, "tasks": [task, other]}
        (tmp_path / "figures.json").write_text(json.dumps(found))
        assert card.main([*words, "--check"]) == 1
        assert "old" in file.read_text()
        assert card.main(words) == 0
        text = file.read_text()
        assert ROW in text.splitlines()
        assert "film" not in text  # a mean over kinds that have little in common
        assert text.startswith("head\n")
        assert "\nmiddle\n" in text
        assert text.endswith("\ntail\n")
        assert card.main([*words, "--check"]) == 0

    def test_what_training_took_is_read_from_logs(self, tmp_path: Path) -> None:
        """A step that was taken twice is learnt once and paid for twice."""
        card = script("card")
        run = tmp_path / "run"
        run.mkdir()
        (run / "recipe.toml").write_text(RECIPE.format(spec="nano", words=""))
        steps = [(0, 100, 3600.0), (1, 50, 1800.0), (1, 50, 1800.0)]
        keys = ("step", "tokens", "seconds")
        lines = [json.dumps(dict(zip(keys, one, strict=True))) for one in steps]
        (run / "log.jsonl").write_text("\n".join([*lines, '{"step": 1, "evaluation": 1}']) + "\n")
        found = card.stage(run, 100.0)
        assert (found["steps"], found["tokens"], found["seconds"]) == (2, 150, 7200.0)
        assert found["kwh"] == pytest.approx(0.2)
        assert card.stage(run, None)["kwh"] is None


class TestDemo:
    """The demo lives in core and repeats what training draws and says: here they are compared."""

    def test_pixels_are_those_of_the_world(self, tmp_path: Path) -> None:
        """Colours, shapes, edges; boxes and positions follow from them."""
        things = []
        for thing in THINGS:
            mask = pictures.mask(thing.shape, thing.size)
            x0, y0, x1, y1 = (edge * picture.SIDE / 1000 for edge in thing.box)
            assert mask.size == (x1 - x0, y1 - y0)
            things.append((thing.colour, mask, int(x0), int(y0)))
        drawn = pictures.draw(64, 64, pictures.BACKGROUNDS["white"], things)
        (tmp_path / "picture.png").write_bytes(png())
        with Image.open(tmp_path / "picture.png") as file:
            assert file.convert("RGB").tobytes() == drawn.tobytes()
        world = Scenes()
        for thing in THINGS:
            assert (thing.colour, thing.shape) in world._pairs
            assert thing.cell in CELLS
            assert world.sizes[0] <= thing.size <= world.sizes[1]

    def test_sentences_are_those_of_the_grammar(self) -> None:
        """What the demo calls right is what the world calls right."""
        by_code = {one.code: one for one in LANGUAGES}
        meanings = [
            one for split in ("train", "held-out") for one in Sentences(split=split)._meanings
        ]

        def said(code: str, english: str) -> set[str]:
            found = [one for one in meanings if sentence(by_code["en"], one) == english]
            return {sentence(by_code[code], one) for one in found}

        assert said("fr", "The black cat sleeps.") == {"Le chat noir dort."}
        assert said("es", "The cat eats.") == {"El gato come."}

    def test_tools_are_those_of_the_world(self) -> None:
        """Schemas to the letter, and a city that it knows."""
        known = {tool.name: tool.schema for tool in TOOLS}
        assert all(known[tool["name"]] == tool for tool in questions.TOOLS)
