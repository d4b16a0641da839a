"""What each parameter of a model is."""

import torch
from torch import nn

from llama4_core.assembly.assemble import assemble
from llama4_train.optimizers.roles import ROLES, parameters_of


def test_every_role_of_a_model_with_experts():
    model = assemble("nano", device="meta")
    roles = {one.name: one.role for one in parameters_of(model)}
    assert roles.keys() == dict(model.named_parameters()).keys()
    for name, role in roles.items():
        if name == "embedding.weight":
            expected = "embedding"
        elif name == "head.weight":
            expected = "head"
        elif ".router." in name:
            expected = "router"
        elif ".experts." in name:
            expected = "experts"
        else:
            expected = "vector" if "norm" in name else "matrix"
        assert role == expected, name
    assert set(roles.values()) == set(ROLES)


class Gate(nn.Module):
    """A router that keeps its weight in a module of its own."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 2)

    def after_step(self, counts):
        pass


def test_what_is_inside_a_router_belongs_to_it():
    model = nn.ModuleDict({"gate": Gate(), "gate2": nn.Linear(3, 3)})
    roles = {one.name: one.role for one in parameters_of(model)}
    assert roles == {
        "gate.gate.weight": "router",
        "gate.gate.bias": "vector",
        "gate2.weight": "matrix",
        "gate2.bias": "vector",
    }


def test_frozen_weights_are_left_out_and_shared_ones_are_listed_once():
    model = nn.ModuleDict({"embedding": nn.Embedding(3, 4), "head": nn.Linear(4, 3, bias=False)})
    model["head"].weight = model["embedding"].weight
    assert [(one.name, one.role) for one in parameters_of(model)] == [
        ("embedding.weight", "embedding")
    ]
    model["embedding"].weight.requires_grad_(False)
    assert parameters_of(model) == []


def test_values_are_the_parameters_themselves():
    model = nn.Linear(2, 2)
    (weight, bias) = parameters_of(model)
    assert weight.value is model.weight
    assert bias.value is model.bias
    assert isinstance(weight.value, torch.nn.Parameter)
