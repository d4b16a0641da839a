"""Adapters in PEFT's files, both ways, through the models of transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.oracle import (
    CASES,
    PATCH,
    VISION_BASE,
    RouteGaps,
    features_per_tile,
    oracle,
    random_tiles,
    random_tokens,
    saved,
    seeing_oracle,
    tolerance,
)
from torch import Tensor

import llama4_core as l4
from llama4_core.errors import CheckpointError
from llama4_train.errors import RecipeError
from llama4_train.lora import adapted, apply_lora, load_adapter, merge, save_adapter, unmerge
from llama4_train.lora.attach import places
from llama4_train.recipe import Recipe
from llama4_train.trainer.parts import model_of

peft = pytest.importorskip("peft")


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    """In the place of the folder's fixture: PEFT cannot change what inference mode made."""
    with torch.no_grad():
        yield


LAYERS = {"num_hidden_layers": 4}
EXPERTS = ["experts.gate_up_proj", "experts.down_proj"]

# What of a text model is adapted; ranks that differ by target, roots and patterns among them.
ADAPTERS: dict[str, dict[str, Any]] = {
    "attention": {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "k_proj", "o_proj"]},
    "experts": {"r": 3, "lora_alpha": 5, "target_parameters": EXPERTS},
    "experts-down": {"r": 3, "target_parameters": ["feed_forward.experts.down_proj"]},
    "everything": {
        "r": 4,
        "lora_alpha": 2,
        "target_modules": r".*\.(q|k|v|o|gate|up|down)_proj",
        "target_parameters": EXPERTS,
        "rank_pattern": {"q_proj": 2, "experts.down_proj": 1},
        "alpha_pattern": {"v_proj": 9, "experts.gate_up_proj": 7},
    },
    "root": {"r": 9, "use_rslora": True, "target_modules": ["v_proj"], "lora_dropout": 0.1},
    "matrix-as-parameter": {"r": 2, "target_parameters": ["self_attn.q_proj.weight"]},
}


def shaken(model: Any, seed: int = 0) -> Any:
    """Gives every matrix of every adapter of PEFT numbers that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.5 * noise * parameter.shape[1] ** -0.5)
    return model.eval()


def theirs_of(name: str) -> Any:
    return oracle({**CASES[name], **LAYERS})


@pytest.mark.parametrize("case", ["scout-like", "maverick-like", "top-2"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_of_peft_gives_the_same_logits(tmp_path: Path, case: str, kind: str) -> None:
    """Put onto our model of the same checkpoint; merged too."""
    base = theirs_of(case)
    path = saved(base, tmp_path / "base")
    gaps = RouteGaps(base)
    theirs = shaken(peft.get_peft_model(base, peft.LoraConfig(**ADAPTERS[kind])))
    theirs.save_pretrained(tmp_path / "adapter")
    tokens = random_tokens(2, 19, 512, seed=1)
    expected = theirs(tokens, use_cache=False).logits
    assert gaps.smallest > 1e-4
    ours = l4.load(path)
    plain = ours.logits(tokens)
    load_adapter(ours, tmp_path / "adapter")
    limit = tolerance(expected)
    assert float((plain - expected).abs().max()) > 1000 * limit
    assert float((ours.logits(tokens) - expected).abs().max()) <= limit
    merge(ours)
    # Merging adds another order of the same sums.
    assert float((ours.logits(tokens) - expected).abs().max()) <= 2 * limit
    unmerge(ours)
    assert float((ours.logits(tokens) - expected).abs().max()) <= limit


@pytest.mark.parametrize("case", ["scout-like", "maverick-like"])
def test_our_adapter_gives_the_same_logits_in_peft(tmp_path: Path, case: str) -> None:
    """Ranks and alphas that differ by layer; the model is the one that we exported."""
    ours = l4.load(saved(theirs_of(case), tmp_path / "base"))
    l4.save(ours, tmp_path / "exported", format="huggingface")
    apply_lora(ours, 4, 6.0, ["layers.*.attention", "layers.[1,3].feed_forward"], dropout=0.1)
    apply_lora(ours, 2, 3.0, ["layers.[0,2].feed_forward"])
    generator = torch.Generator().manual_seed(1)
    for place in places(ours):
        place.adapter.B.copy_(0.3 * torch.randn(place.adapter.B.shape, generator=generator))
    save_adapter(ours, tmp_path / "adapter")
    base = type(theirs_of(case)).from_pretrained(tmp_path / "exported", attn_implementation="eager")
    gaps = RouteGaps(base)
    # What PEFT misses in the file it warns of.
    with warnings.catch_warnings(record=True) as seen:
        theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert not [one for one in seen if "adapter keys" in str(one.message)]
    tokens = random_tokens(2, 19, 512, seed=2)
    expected = theirs(tokens, use_cache=False).logits
    assert gaps.smallest > 1e-4
    found = ours.logits(tokens)
    assert float((found - expected).abs().max()) <= tolerance(expected)
    with theirs.disable_adapter():
        plain = theirs(tokens, use_cache=False).logits
    assert float((plain - expected).abs().max()) > 1000 * tolerance(expected)
    # And back again from what PEFT writes.
    theirs.save_pretrained(tmp_path / "back")
    again = l4.load(tmp_path / "exported")
    load_adapter(again, tmp_path / "back")
    assert [one.rank for one in adapted(again)] == [one.rank for one in adapted(ours)]
    state = ours.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def pictures() -> tuple[Tensor, Tensor]:
    """Ids with a picture of two tiles, and the tiles."""
    words = (3 + random_tokens(1, 12, PATCH - 3, seed=3))[0].tolist()
    ids = [*words[:4], *[PATCH] * (2 * features_per_tile(VISION_BASE)), *words[4:]]
    return torch.tensor([ids]), random_tiles(2, VISION_BASE, seed=4)


def test_eyes_both_ways(tmp_path: Path) -> None:
    """Encoder, adapter, projection and text of a model that sees."""
    base = seeing_oracle(LAYERS, VISION_BASE)
    path = saved(base, tmp_path / "base")
    gaps = RouteGaps(base.language_model)
    targets = ["q_proj", "v_proj", "fc1", "fc2", "linear_1", "patch_embedding.linear"]
    config = peft.LoraConfig(r=3, target_modules=targets, target_parameters=EXPERTS)
    theirs = shaken(peft.get_peft_model(base, config))
    theirs.save_pretrained(tmp_path / "adapter")
    tokens, pixels = pictures()
    expected = theirs(input_ids=tokens, pixel_values=pixels, use_cache=False).logits
    assert gaps.smallest > 1e-4
    ours = l4.load(path)
    plain = ours.logits(tokens, pixels)
    found = load_adapter(ours, tmp_path / "adapter")
    names = {one.name for one in found}
    assert {"vision.projector.weight", "vision.encoder.patch_embedding.weight"} <= names
    limit = tolerance(expected)
    assert float((plain - expected).abs().max()) > 1000 * limit
    assert float((ours.logits(tokens, pixels) - expected).abs().max()) <= limit
    save_adapter(ours, tmp_path / "ours")
    fresh = seeing_oracle(LAYERS, VISION_BASE)
    back = peft.PeftModel.from_pretrained(fresh, tmp_path / "ours").eval()
    again = back(input_ids=tokens, pixel_values=pixels, use_cache=False).logits
    assert float((again - expected).abs().max()) <= limit


def test_an_adapter_of_the_text_model_fits_a_model_that_sees(tmp_path: Path) -> None:
    """Trained on ``Llama4ForCausalLM``, whose names begin elsewhere."""
    base = seeing_oracle(LAYERS, VISION_BASE)
    path = saved(base, tmp_path / "base")
    text = base.language_model
    theirs = shaken(peft.get_peft_model(text, peft.LoraConfig(**ADAPTERS["everything"])))
    theirs.save_pretrained(tmp_path / "adapter")
    tokens = random_tokens(1, 15, PATCH, seed=5)
    expected = theirs(tokens, use_cache=False).logits
    ours = l4.load(path)
    load_adapter(ours, tmp_path / "adapter")
    assert float((ours.logits(tokens) - expected).abs().max()) <= tolerance(expected)
    blind = l4.load(path, overrides={"vision": "none"})
    load_adapter(blind, tmp_path / "adapter")
    assert torch.equal(blind.logits(tokens), ours.logits(tokens))


def test_gradients_equal_those_of_peft(tmp_path: Path) -> None:
    """A and B of every adapter, experts among them, in float32."""
    base = theirs_of("scout-like")
    path = saved(base, tmp_path / "base")
    theirs = shaken(peft.get_peft_model(base, peft.LoraConfig(**ADAPTERS["everything"])))
    theirs.save_pretrained(tmp_path / "adapter")
    ours = l4.load(path)
    load_adapter(ours, tmp_path / "adapter")
    tokens = random_tokens(2, 11, 512, seed=6)
    with torch.enable_grad():
        cotangent = torch.randn(2, 11, 512, generator=torch.Generator().manual_seed(7))
        (theirs(tokens, use_cache=False).logits * cotangent).sum().backward()
        (ours.logits(tokens) * cotangent).sum().backward()
    expected = dict(theirs.named_parameters())
    compared = 0
    for place in places(ours):
        if place.path.endswith(".experts"):
            continue
        foreign = "base_model.model.model." + place.path.replace("attention", "self_attn")
        for name in "AB":
            wanted = expected[f"{foreign}.lora_{name}.default.weight"].grad
            found = getattr(place.adapter, name).grad
            # 1e-5 relative: two backward passes in float32 that share no code.
            assert float((found - wanted).norm()) <= 1e-5 * float(wanted.norm())
            compared += 1
    layer = "base_model.model.model.layers.0.feed_forward.experts."
    bank = ours.layers[0].feed_forward.experts.lora
    for key, adapter, rank in (
        (layer, bank["down_proj"], 1),
        (f"{layer}base_layer.", bank["gate_up_proj"], 4),
    ):
        theirs_a = expected[f"{key}lora_A.default.weight"].grad.unflatten(0, (4, rank))
        theirs_b = expected[f"{key}lora_B.default.weight"].grad.unflatten(1, (rank, 4))
        for found, wanted in (
            (adapter.B.grad, theirs_a.transpose(1, 2)),
            (adapter.A.grad, theirs_b.permute(2, 1, 0)),
        ):
            assert float((found - wanted).norm()) <= 1e-5 * float(wanted.norm())
            compared += 1
    assert compared == 4 * 2 * 7 + 4


ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_recipe_adapts_the_model() -> None:
    """The table ``lora`` of a recipe, and what it is refused with."""
    tiny = str(ROOT / "tests" / "data" / "tiny-hf")
    part = {"start": tiny, "weights": "stored", "lora": {"rank": 2, "targets": ["**.experts"]}}
    data = {"length": 8, "tokens": 8, "sources": [{"name": "text"}]}
    recipe = Recipe.of({"name": "a", "steps": 1, "model": part, "data": data})
    model = model_of(recipe.model, seed=3)
    found = adapted(model)
    assert found
    assert all("experts" in one.name and (one.rank, one.alpha) == (2, 4.0) for one in found)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * len(found)
    again = list(places(model_of(recipe.model, seed=3)))
    other = list(places(model_of(recipe.model, seed=4)))
    for place, same, another in zip(places(model), again, other, strict=True):
        assert torch.equal(place.adapter.A, same.adapter.A)
        assert not torch.equal(place.adapter.A, another.adapter.A)
    for change, why in (
        ({"model.lora.rank": 0}, "rank is 0"),
        ({"model.lora.alpha": -1.0}, "alpha is -1"),
        ({"model.lora.dropout": 1.0}, "dropout is 1"),
        ({"model.lora.targets": []}, "targets is empty"),
        ({"model.train": ["norm"]}, "there is lora; expected one of them"),
        ({"model.lora.ranks": 3}, "did you mean 'rank'"),
    ):
        with pytest.raises(RecipeError, match=why):
            recipe.override(change)


def test_load_names_the_way(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"llama4_train\.lora\.load_adapter"):
        l4.load(ROOT / "tests" / "data" / "tiny-hf", adapters=[tmp_path])
