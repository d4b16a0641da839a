"""What is refused of adapter files, in one line each, and that nothing is changed then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import llama4_core as l4
from llama4_core.errors import CheckpointError
from llama4_core.model.initialise import initialise
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import DenseSpec, ModelSpec, MoESpec, RopeSpec
from llama4_train.errors import TrainingError
from llama4_train.lora import adapted, apply_lora, load_adapter, save_adapter
from llama4_train.lora.attach import places
from llama4_train.lora.peft_config import read_config

PREFIX = "base_model.model.model.layers."
QUERY = f"{PREFIX}0.self_attn.q_proj.lora_A.weight"
EXPERTS = f"{PREFIX}1.feed_forward.experts"


def model_of(width: int = 16, inner: int = 12) -> Any:
    spec = ModelSpec(
        name="tiny-for-tests",
        vocabulary=31,
        width=width,
        norm_eps=1e-5,
        max_positions=64,
        tied=False,
        layers=llama4_layers(
            2,
            heads=2,
            kv_heads=1,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=4,
            qk_norm=False,
            temperature=None,
            position_free=every(2, 2),
            moe_layers=(1,),
            moe=MoESpec(4, top_k=1, width=inner, shared_width=8, router="sigmoid-top-k"),
            dense=DenseSpec(24),
        ),
        dtype="float32",
    )
    model = l4.assemble(spec, device="cpu")
    initialise(model, 0)
    return model.eval()


def shaken(model: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for place in places(model):
            place.adapter.B.copy_(torch.randn(place.adapter.B.shape, generator=generator))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = model_of()
    apply_lora(model, 2, 6.0, ["layers.*.attention", "**.experts"])
    save_adapter(shaken(model), tmp_path / "adapter")
    return tmp_path / "adapter"


def settings(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def stored(folder: Path, change: Any) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})


def without(*names: str) -> Any:
    return lambda tensors: {n: t for n, t in tensors.items() if n not in names}


def renamed(old: str, new: str) -> Any:
    return lambda tensors: {n.replace(old, new): t for n, t in tensors.items()}


def grown(name: str) -> Any:
    return lambda tensors: tensors | {name: torch.cat([tensors[name], tensors[name]], 1)}


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"peft_type": "LOHA"}, "peft_type is 'LOHA'; expected 'LORA'"),
    ({"bias": "all"}, "bias is 'all'; expected 'none'"),
    ({"use_dora": True}, "use_dora is True, which is not known here"),
    ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
    ({"alora_invocation_tokens": [1, 2]}, "alora_invocation_tokens is"),
    ({"some_later_idea": 3}, "some_later_idea is 3"),
    ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'"),
    ({"lora_alpha": "much"}, "lora_alpha is 'much'"),
    ({"lora_alpha": -1}, "lora_alpha is -1"),
    ({"alpha_pattern": ["q_proj"]}, "alpha_pattern"),
    ({"alpha_pattern": {"(": 3}}, "which is no regular expression"),
    ({"target_parameters": "experts"}, "target_parameters is 'experts'; expected a list"),
    ({"target_parameters": None}, "there are 2 adapters of .*experts, in which this model has 0"),
]


@pytest.mark.parametrize(("changes", "why"), SETTINGS)
def test_settings_are_honoured_or_refused_by_name(
    folder: Path, changes: dict[str, Any], why: str
) -> None:
    settings(folder, **changes)
    refused(folder, why)


def refused(folder: Path, why: str, kind: type[Exception] = CheckpointError) -> None:
    model = model_of()
    with pytest.raises(kind, match=why) as caught:
        load_adapter(model, folder)
    assert "\n" not in str(caught.value)
    assert not adapted(model)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without(QUERY), "q_proj lacks lora_A"),
        (without(QUERY.replace("A.w", "B.w")), "q_proj lacks lora_B"),
        (
            without(f"{EXPERTS}.lora_A.weight", f"{EXPERTS}.lora_B.weight"),
            "experts lacks lora_.*or a wrapper",
        ),
        (renamed("layers.0", "layers.7"), "there are 1 adapters of .*layers.7.* has 0 targeted"),
        (renamed("self_attn.q_proj", "self_attn.k_proj_"), "k_proj_, in which this model has 0"),
        (renamed("lora_A.weight", "lora_magnitude_vector"), "is no matrix of a plain LoRA"),
        (renamed("0.self_attn.q_proj", "1.feed_forward.router"), "expected \\[r, 16\\]|router"),
        (grown(QUERY), r"q_proj.* has matrices \[2, 32\]"),
        (grown(f"{EXPERTS}.lora_A.weight"), r"experts.down_proj has matrices \[8, 32\]"),
        (grown(f"{EXPERTS}.lora_B.weight"), r"experts.down_proj has matrices .*, 16\]"),
        (lambda tensors: {}, "holds no adapter|not a sound"),
    ],
)
def test_tensors_of_another_model_are_refused(folder: Path, change: Any, why: str) -> None:
    stored(folder, change)
    refused(folder, why)


@pytest.mark.parametrize("module", ["feed_forward.router", "lm_head"])
def test_routers_and_heads_are_refused(folder: Path, module: str) -> None:
    path = "base_model.model.lm_head" if module == "lm_head" else f"{PREFIX}1.{module}"
    rows = 31 if module == "lm_head" else 4
    extra = {
        f"{path}.lora_A.weight": torch.zeros(2, 16),
        f"{path}.lora_B.weight": torch.zeros(rows, 2),
    }
    stored(folder, lambda tensors: tensors | extra)
    refused(folder, "the adapter changes (head|layers.1.feed_forward.router).weight, which")


def test_files_that_are_not_there(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "adapter_config.json: cannot be read")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    refused(folder, "holds adapter_model.bin, a pickle, which is never read")
    (folder / "adapter_config.json").write_text("[]")
    refused(folder, "holds a JSON list")


def test_a_damaged_file_is_refused(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    refused(folder, "not a sound safetensors file")


def test_nothing_is_overwritten(folder: Path) -> None:
    model = model_of()
    apply_lora(model, 2, 4.0, ["**.experts"])
    before = (folder / "adapter_model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="exists and is not an empty folder"):
        save_adapter(model, folder)
    assert (folder / "adapter_model.safetensors").read_bytes() == before
    with pytest.raises(TrainingError, match="the model has no adapter"):
        save_adapter(model_of(), folder.parent / "other")
    with pytest.raises(TrainingError, match="has an adapter on it already"):
        load_adapter(model, folder)


def test_alphas_follow_their_patterns_and_roots() -> None:
    config = read_config(
        {
            "peft_type": "LORA",
            "lora_alpha": 8,
            "alpha_pattern": {"layers.1.self_attn.q_proj": 3, r"q_proj": 5, r".*\.experts.*": 7},
        },
        "there",
    )
    assert config.alpha_of("model.layers.1.self_attn.q_proj", 4) == 3
    assert config.alpha_of("model.layers.0.self_attn.q_proj", 4) == 5
    assert config.alpha_of("model.layers.0.self_attn.aq_proj", 4) == 8
    assert config.alpha_of("model.layers.0.feed_forward.experts.down_proj", 4) == 7
    root = read_config({"peft_type": "LORA", "lora_alpha": 8, "use_rslora": True}, "there")
    # The change is alpha / sqrt(rank) B A.
    assert root.alpha_of("q_proj", 16) / 16 == 8 / 4


def older(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """As releases of PEFT wrote stacks that took their second axis for the inputs."""
    found = dict(tensors)
    for path in (EXPERTS, f"{EXPERTS}.base_layer"):
        A, B = tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"]
        first = A.unflatten(0, (4, 2))  # E, r, out
        second = B.unflatten(1, (2, 4))  # in, r, E
        found[f"{path}.lora_A.weight"] = second.permute(2, 1, 0).flatten(0, 1).contiguous()
        found[f"{path}.lora_B.weight"] = first.permute(2, 1, 0).flatten(1, 2).contiguous()
    return found


def test_both_layouts_of_stacks_are_told_apart_by_their_shapes(folder: Path) -> None:
    model = model_of()
    load_adapter(model, folder)
    wanted = {place.name: place.adapter.change() for place in places(model)}
    stored(folder, older)
    other = model_of()
    load_adapter(other, folder)
    found = {place.name: place.adapter.change() for place in places(other)}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(change, wanted[name]) for name, change in found.items())


def test_a_square_stack_of_unknown_layout_is_refused(tmp_path: Path) -> None:
    """``down_proj`` is square where experts are as wide as the model."""
    model = model_of(inner=16)
    apply_lora(model, 2, 6.0, ["**.experts"])
    save_adapter(shaken(model), tmp_path / "adapter")
    other = model_of(inner=16)
    load_adapter(other, tmp_path / "adapter")
    changes = [
        torch.equal(a.adapter.change(), b.adapter.change())
        for a, b in zip(places(model), places(other), strict=True)
    ]
    assert all(changes)
    for version in ("0.18.0", "", "0.9"):
        settings(tmp_path / "adapter", peft_version=version)
        with pytest.raises(CheckpointError, match="is square, and PEFT"):
            load_adapter(model_of(inner=16), tmp_path / "adapter")
    settings(tmp_path / "adapter", peft_version="1.0")
    load_adapter(model_of(inner=16), tmp_path / "adapter")
