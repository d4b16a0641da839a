"""A user's own file offers parts of a run: the objective, parts of the model, the model itself."""

from __future__ import annotations

import json

import pytest

from llama4_core.cli import main
from llama4_core.errors import ComponentError
from llama4_train.trainer.loop import Trainer


def test_a_plugin_file_brings_an_objective_and_a_part_of_the_model(base, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from llama4_core.plugins.component import Component\n"
        "from llama4_core.plugins.hookspecs import hookimpl\n"
        "from llama4_moe.routers.sigmoid import SigmoidTopK\n"
        "from llama4_train.objectives.next_token import NextToken\n\n\n"
        "class Twice(NextToken):\n"
        "    def __call__(self, model, batch, step):\n"
        "        loss = super().__call__(model, batch, step)\n"
        "        return type(loss)(2 * loss.total, loss.parts, loss.routings)\n\n\n"
        "class Mine(SigmoidTopK):\n"
        "    pass\n\n\n"
        "@hookimpl\n"
        "def llama4_objectives():\n"
        "    return [Component('twice', __name__ + ':Twice', 'the loss twice')]\n\n\n"
        "@hookimpl\n"
        "def llama4_routers():\n"
        "    return [Component('mine', __name__ + ':Mine', 'the usual router')]\n"
    )
    recipe = base.override(
        {"objective.name": "twice", "model.overrides": {"layers.*.feed_forward.router": "mine"}}
    )
    file = tmp_path / "recipe.toml"
    file.write_text(recipe.to_toml())
    out = tmp_path / "run"
    assert main(["train", str(file), "--out", str(out), "--plugin", str(plugin)]) == 0
    losses = [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]
    plain = base.override({"model.overrides": {"layers.*.feed_forward.router": "sigmoid-top-k"}})
    first = Trainer.of(plain).step().loss
    assert losses[0] == 2 * first  # the router without a bias is the usual one
    more = ["train", str(file), "--resume", str(out), "--set", "steps=5"]
    assert main(more) != 0  # nobody offers the objective now
    assert main([*more, "--plugin", str(plugin)]) == 0
    assert len((out / "log.jsonl").read_text().splitlines()) == 5


def test_a_plugin_file_brings_the_model(base, tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from llama4_core.plugins.component import Component\n"
        "from llama4_core.plugins.hookspecs import hookimpl\n"
        "from llama4_core.specs.find import spec_from_path\n\n\n"
        f"def mine():\n    return spec_from_path({base.model.start!r})\n\n\n"
        "@hookimpl\n"
        "def llama4_models():\n"
        "    return [Component('mine', __name__ + ':mine', 'a model of our own')]\n"
    )
    recipe = base.override({"model.start": "mine"})
    with pytest.raises(ComponentError, match="mine"):
        Trainer.of(recipe)
    assert Trainer.of(recipe, plugins=[plugin]).step().loss == Trainer.of(base).step().loss
