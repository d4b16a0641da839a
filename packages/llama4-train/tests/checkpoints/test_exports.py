"""A model leaves its run in every format, or says what would be lost."""

from __future__ import annotations

import json

import pytest
import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers

import llama4_core as l4
from llama4_core.errors import CheckpointError
from llama4_train.checkpoints import export, model_from_run
from llama4_train.checkpoints.adapters import adapt
from llama4_train.checkpoints.exports import BALANCED, PLAIN
from llama4_train.checkpoints.folders import checkpoint_folder
from llama4_train.recipe import ModelPart
from llama4_train.trainer.parts import model_of

TOKENS = torch.tensor([[48, 49, 50, 57, 51, 52, 53, 48, 49]])


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A folder with a tokenizer of bytes, and a licence."""
    folder = tmp_path_factory.mktemp("tokenizer")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    built = tokenizers.Tokenizer(models.BPE({one: i for i, one in enumerate(alphabet)}, []))
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    built.add_special_tokens([AddedToken("<|begin_of_text|>", special=True)])
    built.save(str(folder / "tokenizer.json"))
    (folder / "LICENSE").write_text("terms")
    return folder


@pytest.fixture(scope="module")
def run(tiny, tokenizer, tmp_path_factory):
    """Folder and trainer of a finished run whose routers balance by a bias."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    recipe = tiny.recipe_of(**{"model.tokenizer": str(tokenizer)})
    model = tiny.model_of(recipe)
    # Far more than training moved it: without it, tokens go elsewhere.
    trainer = tiny.trainer_of(recipe, folder, model=model)
    for index in (1, 3):
        model.layers[index].feed_forward.router.bias.copy_(torch.tensor([0.0, 0.9, 0.0, -0.9]))
    list(trainer)
    return folder, trainer


@torch.no_grad()
def logits(model):
    return model.eval().logits(TOKENS)


def weights(model):
    """To be compared: by bits, as layouts and with them roundings of products may differ."""
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.endswith("router.bias")
    }


def same_weights(one, other):
    left, right = weights(one), weights(other)
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def drop_bias(model):
    for index in (1, 3):
        model.layers[index].feed_forward.router.bias.zero_()
    return model


def test_native_keeps_everything(run, tmp_path):
    folder, trainer = run
    export(folder, tmp_path / "out", "native")
    back = l4.load(tmp_path / "out")
    assert torch.equal(logits(back), logits(trainer.model))
    assert torch.equal(
        back.layers[1].feed_forward.router.bias, trainer.model.layers[1].feed_forward.router.bias
    )
    assert back.tokenizer.encode("01") == [*l4.load(tmp_path / "out").tokenizer.encode("01")]
    assert (tmp_path / "out" / "LICENSE").read_text() == "terms"


@pytest.mark.parametrize("form", ["huggingface", "meta"])
def test_a_bias_is_refused_by_formats_without_a_place_for_it(run, tmp_path, form):
    folder, _ = run
    with pytest.raises(
        CheckpointError, match=r"2 routers .*largest is 0\.[89]\d+, .*drop_bias=True"
    ):
        export(folder, tmp_path / "out", form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["huggingface", "meta", "native"])
def test_without_its_bias_a_run_becomes_a_plain_llama(run, tmp_path, form):
    folder, trainer = run
    export(folder, tmp_path / "out", form, drop_bias=True)
    settings = {"format": "meta", "max_positions": 256} if form == "meta" else {}
    back = l4.load(tmp_path / "out", **settings)
    assert {layer.feed_forward.router for layer in back.spec.layers[1::2]} == {PLAIN}
    without = drop_bias(model_from_run(folder))
    assert same_weights(back, without)
    # float32, sums of 16 products.
    torch.testing.assert_close(logits(back), logits(without), rtol=1e-5, atol=1e-5)
    # The bias did something: else these tests would not see it lost.
    assert (logits(back) - logits(trainer.model)).abs().max() > 1e-3
    assert back.tokenizer is not None


@pytest.fixture(scope="module")
def released(tiny, tokenizer, tmp_path_factory):
    """Folder and trainer of a finished run whose bias was released."""
    folder = tmp_path_factory.mktemp("runs") / "released"
    recipe = tiny.recipe_of(**{"model.tokenizer": str(tokenizer), "schedule.release": 3})
    trainer = tiny.trainer_of(recipe, folder)
    moved = []
    for _ in trainer:
        moved.append(bool(trainer.model.layers[1].feed_forward.router.bias.any()))
    assert moved == [True] * 7 + [False]
    return folder, trainer


@pytest.mark.parametrize("form", ["huggingface", "meta", "native"])
def test_a_released_bias_is_left_out_without_being_asked_and_nothing_is_lost(
    released, tiny, tmp_path, caplog, form
):
    folder, trainer = released
    export(folder, tmp_path / "out", form)
    assert "bias" not in caplog.text
    settings = {"format": "meta", "max_positions": 256} if form == "meta" else {}
    back = l4.load(tmp_path / "out", **settings)
    assert {layer.feed_forward.router for layer in back.spec.layers[1::2]} == {PLAIN}
    assert same_weights(back, trainer.model)
    # By bits, in one layout: a file's own may add up products in another order.
    plain = l4.assemble(tiny.spec_of(PLAIN), device="cpu", dtype="float32")
    plain.load_state_dict(back.state_dict())
    assert torch.equal(logits(plain), logits(trainer.model))


def test_zero_in_some_routers_is_not_zero(run, tmp_path):
    model = model_from_run(run[0])
    model.layers[1].feed_forward.router.bias.zero_()
    with pytest.raises(CheckpointError, match=r"1 routers .*layers\.3"):
        export(model, tmp_path / "out")
    export(model, tmp_path / "out", "native")
    back = l4.load(tmp_path / "out")
    assert {layer.feed_forward.router for layer in back.spec.layers[1::2]} == {BALANCED}
    assert torch.equal(logits(back), logits(model))


def test_a_bias_of_zero_is_no_loss(run, tmp_path):
    model = drop_bias(model_from_run(run[0]))
    export(model, tmp_path / "out")
    assert same_weights(l4.load(tmp_path / "out"), model)
    assert json.loads((tmp_path / "out" / "config.json").read_text())


def test_a_named_checkpoint(run, tiny, tmp_path):
    folder, _ = run
    export(checkpoint_folder(folder, 6), tmp_path / "six", "native")
    export(checkpoint_folder(folder, 8), tmp_path / "eight", "native")
    export(folder, tmp_path / "latest", "native")
    six, eight, last = (l4.load(tmp_path / name) for name in ("six", "eight", "latest"))
    assert torch.equal(logits(eight), logits(last))
    assert not torch.equal(logits(six), logits(eight))


def test_a_router_that_an_override_put_there_is_named_as_it_ran(tiny, tmp_path):
    recipe = tiny.recipe_of()
    overrides = {"layers.*.feed_forward.router": BALANCED}
    model = l4.assemble(tiny.spec_of(PLAIN), overrides, device="cpu", dtype="float32")
    model.load_state_dict(tiny.model_of(recipe).state_dict())
    with torch.no_grad():
        model.layers[3].feed_forward.router.bias[1] = 0.25
    trainer = tiny.trainer_of(recipe, tmp_path / "run", model=model)
    for _ in zip(range(2), trainer, strict=False):
        pass
    trainer.keeper.wait()
    export(tmp_path / "run", tmp_path / "native", "native")
    back = l4.load(tmp_path / "native")
    assert back.spec.layers[1].feed_forward.router == BALANCED
    assert torch.equal(logits(back), logits(trainer.model))
    with pytest.raises(CheckpointError, match="2 routers"):
        export(tmp_path / "run", tmp_path / "out")


def test_weights_kept_aside_go_along(tiny, tmp_path):
    recipe = tiny.recipe_of()
    model = tiny.model_of(recipe)
    model.extra_weights = {"vision.something": torch.arange(3.0)}
    trainer = tiny.trainer_of(recipe, tmp_path / "run", model=model)
    next(iter(trainer))
    trainer.save()
    trainer.keeper.wait()
    assert torch.equal(
        model_from_run(tmp_path / "run").extra_weights["vision.something"], torch.arange(3.0)
    )


def test_adapters_are_merged_where_a_run_is_left(tiny, tmp_path):
    recipe = tiny.recipe_of(
        **{"model.lora": {"rank": 2, "targets": ["layers.*.attention", "layers.[1].feed_forward"]}}
    )
    model = tiny.model_of(recipe, PLAIN)
    adapt(model, recipe.model.lora, 5)
    trainer = tiny.trainer_of(recipe, tmp_path / "run", model=model)
    list(trainer)
    with pytest.raises(CheckpointError, match="merge them"):
        export(model, tmp_path / "native", "native")
    export(tmp_path / "run", tmp_path / "native", "native")
    export(tmp_path / "run", tmp_path / "hf")
    # float32: one product of a sum in the place of a sum of two products.
    for back in (l4.load(tmp_path / "native"), model_from_run(tmp_path / "run")):
        torch.testing.assert_close(logits(back), logits(model), rtol=1e-4, atol=1e-5)
    assert same_weights(l4.load(tmp_path / "hf"), l4.load(tmp_path / "native"))
    # They were trained: the merged model is another than the one that it began as.
    begun = tiny.model_of(recipe, PLAIN)
    assert (logits(begun) - logits(model)).abs().max() > 1e-3


def test_what_is_no_run_and_what_is_empty(tiny, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="neither the folder of a run"):
        export(tmp_path / "empty", tmp_path / "out")
    tiny.trainer_of(tiny.recipe_of(), tmp_path / "run")
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        export(tmp_path / "run", tmp_path / "out")


def test_without_a_tokenizer_it_is_said(tiny, tmp_path, caplog):
    export(tiny.model_of(tiny.recipe_of(), PLAIN), tmp_path / "out")
    assert "no tokenizer is known" in caplog.text


class TestGoingOn:
    """A run begins with the weights of another, as mid-training does."""

    def part(self, folder, **changes):
        return ModelPart(str(folder), weights="stored", **changes)

    def test_from_its_folder(self, run):
        folder, trainer = run
        model = model_of(self.part(folder), 0)
        assert torch.equal(logits(model), logits(trainer.model))
        assert model.tokenizer is not None
        assert model.spec == model_from_run(folder).spec

    def test_from_one_of_its_checkpoints_in_another_dtype(self, run):
        folder, _ = run
        model = model_of(self.part(checkpoint_folder(folder, 6), dtype="bfloat16"), 0)
        assert model.dtype == torch.bfloat16
        # The bias of a router stays as exact as it was.
        assert model.layers[1].feed_forward.router.bias.dtype == torch.float32

    def test_a_router_without_a_place_for_the_bias_names_the_export(self, run):
        overrides = {"layers.*.feed_forward.router": PLAIN}
        with pytest.raises(CheckpointError, match=r"router.bias .*export the run"):
            model_of(self.part(run[0], overrides=overrides), 0)

    def test_from_an_export(self, run, tmp_path):
        folder, _ = run
        export(folder, tmp_path / "out", drop_bias=True)
        model = model_of(self.part(tmp_path / "out"), 0)
        assert same_weights(model, model_from_run(folder))
