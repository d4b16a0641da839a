"""Which parameters a glob freezes, what that does to gradients, and which globs are refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import llama4_core as l4
from llama4_core.errors import OverrideError
from llama4_core.model.initialise import initialise
from llama4_core.model.transformer import Transformer
from llama4_core.specs import AttentionSpec, DenseSpec, LayerSpec, ModelSpec, RopeSpec

LAYERS = 3


def make(*, tied: bool = False) -> Transformer:
    attention = AttentionSpec("irope-chunked", 2, 1, 8, rope=RopeSpec(1e4), chunk=4)
    layers = (LayerSpec(attention, DenseSpec(24)),) * LAYERS
    spec = ModelSpec("tiny", 32, 16, 1e-5, 512, tied, layers, dtype="float32")
    model = l4.assemble(spec, device="cpu")
    initialise(model, 1)
    return model


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def names(model: nn.Module, *starts: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(starts)}


@pytest.mark.parametrize(
    ("glob", "starts"),
    [
        ("embedding", ("embedding.",)),
        ("embedding.weight", ("embedding.",)),
        ("layers", ("layers.",)),
        ("layers.*", ("layers.",)),
        ("layers.**", ("layers.",)),
        ("layers.1", ("layers.1.",)),
        ("layers.[0,2]", ("layers.0.", "layers.2.")),
        ("layers.[1-2].attention", ("layers.1.attention.", "layers.2.attention.")),
        ("layers.*.feed_*.down_proj", tuple(f"layers.{i}.feed_forward.down" for i in range(3))),
        ("**.k_proj.weight", tuple(f"layers.{i}.attention.k_proj" for i in range(3))),
        ("norm", ("norm.",)),
        ("**", ("",)),
    ],
)
def test_a_glob_addresses_parameters_and_all_that_is_in_a_module(
    glob: str, starts: tuple[str, ...]
) -> None:
    model = make()
    everything = names(model, "")
    wanted = {
        name
        for name in names(model, *starts)
        if glob != "layers.[1-2].attention" or ".attention." in name
    }
    assert set(l4.freeze(model, [glob])) == wanted
    assert trained(model) == everything - wanted
    assert set(l4.unfreeze(model, [glob])) == wanted
    assert trained(model) == everything
    assert set(l4.train_only(model, [glob])) == wanted
    assert trained(model) == wanted


def test_names_come_in_the_order_of_the_model_and_once() -> None:
    model = make()
    found = l4.freeze(model, ["norm", "layers.*.attention", "layers.2", "layers.2.**"])
    assert found == [name for name, _ in model.named_parameters() if name in found]
    assert len(set(found)) == len(found)


def test_the_rest_keeps_its_state() -> None:
    model = make()
    l4.freeze(model, ["layers.0"])
    l4.unfreeze(model, ["norm"])
    l4.freeze(model, ["embedding"])
    assert trained(model) == names(model, "layers.1.", "layers.2.", "norm.", "head.")


@pytest.mark.parametrize("function", [l4.freeze, l4.unfreeze, l4.train_only])
@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("layers.3", r"addresses no parameter.*layers are 0 to 2"),
        ("layers.*.atention", r"nearest are layers\.\*\.attention,"),
        ("vision", "addresses no parameter"),
        ("layers.*.attention.k_proj.weight.more", "addresses no parameter"),
        ("", "not usable"),
        ("layers..norm", "segment ''"),
        ("layers.[3-1]", "range"),
    ],
)
def test_a_glob_that_addresses_nothing_changes_nothing(
    function: object, glob: str, message: str
) -> None:
    model = make()
    l4.freeze(model, ["norm"])
    before = trained(model)
    with pytest.raises(OverrideError, match=message):
        function(model, ["layers.0", glob])  # type: ignore[operator]
    assert trained(model) == before


def test_a_string_is_no_list_of_globs() -> None:
    with pytest.raises(OverrideError, match=r"expected a list of them: \['norm'\]"):
        l4.freeze(make(), "norm")


def test_frozen_weights_get_no_gradient_and_lose_the_one_they_had() -> None:
    model = make()
    model.logits([1, 2, 3]).sum().backward()
    assert model.norm.weight.grad is not None
    l4.train_only(model, ["layers.1"])
    assert model.norm.weight.grad is None
    model.zero_grad()
    model.logits([1, 2, 3]).logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("layers.1."), name


def test_before_the_first_trained_layer_there_is_no_graph() -> None:
    model = make()
    l4.train_only(model, ["layers.2", "norm"])
    seen = {}
    for index, layer in enumerate(model.layers):
        layer.register_forward_hook(
            lambda _m, _i, out, index=index: seen.update({index: out[0].requires_grad})
        )
    model.logits([1, 2, 3])
    assert seen == {0: False, 1: False, 2: True}


def test_a_shared_weight_is_frozen_by_any_of_its_names() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2, bias=False)
            self.two = nn.Linear(2, 2, bias=False)
            self.two.weight = self.one.weight

    for glob in ("one", "two"):
        module = Shared()
        assert l4.freeze(module, [glob]) == [f"{glob}.weight"]
        assert not module.one.weight.requires_grad
    assert l4.unfreeze(module, ["**"]) == ["one.weight"]


def test_whole_numbers_cannot_be_trained() -> None:
    module = nn.Module()
    module.packed = nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)
    module.scale = nn.Parameter(torch.ones(2))
    for function in (l4.unfreeze, l4.train_only):
        with pytest.raises(OverrideError, match=r"packed holds torch\.int8"):
            function(module, ["**"])
    assert l4.train_only(module, ["scale"]) == ["scale"]
    assert l4.freeze(module, ["**"]) == ["packed", "scale"]


@given(
    st.lists(st.sampled_from(["embedding", "layers.[0]", "layers.*.attention", "**"]), min_size=1)
)
def test_freezing_twice_is_freezing_once_and_unfreezing_takes_it_back(globs: list[str]) -> None:
    model = make()
    first = l4.freeze(model, globs)
    state = trained(model)
    assert l4.freeze(model, globs) == first
    assert trained(model) == state
    l4.unfreeze(model, globs)
    assert trained(model) == names(model, "")
