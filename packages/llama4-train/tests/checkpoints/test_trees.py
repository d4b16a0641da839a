"""Nested states of optimizers come back as they were, keys and containers included."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import CheckpointError
from llama4_train.checkpoints.trees import first_difference, outline, rebuilt

LEAF = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
    | st.builds(torch.tensor, st.lists(st.integers(0, 9), max_size=3))
)
TREE = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers(0, 9) | st.sampled_from("abcdef"), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


@given(tree=TREE)
def test_a_tree_comes_back_from_json(tree):
    tensors = {}
    drawn = json.loads(json.dumps(outline(tree, "state", tensors)))
    back = rebuilt(drawn, tensors)
    assert same(tree, back)
    assert first_difference(tree, back, "state") is None


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"a": {(1, 2): 3}}, r"state.a has the key \(1, 2\)"),
        ({"a": [0, {1}]}, "state.a.1 is a set"),
        ({1: torch.zeros(1), "1": torch.zeros(1)}, "two tensors"),
    ],
)
def test_what_cannot_be_stored_is_named(tree, said):
    with pytest.raises(CheckpointError, match=said):
        outline(tree, "state", {})


@pytest.mark.parametrize("drawn", [{"tensor": "absent"}, {"other": []}, {"map": 3}, {}])
def test_what_is_no_outline_is_refused(drawn):
    with pytest.raises(CheckpointError, match="not understood"):
        rebuilt(drawn, {})


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"a": [torch.zeros(2, dtype=torch.bfloat16)]}, "s.a.0 is torch.bfloat16"),
        ({"a": [torch.zeros(3)]}, r"s.a.0 is torch.float32 \(3,\)"),
        ({"a": [1]}, "s.a.0 is int"),
        ({"a": []}, "s.a has 0 entries"),
        ({"b": []}, "s differs in its keys: a, b"),
    ],
)
def test_differences_are_named(own, said):
    import re

    assert re.search(said, first_difference({"a": [torch.zeros(2)]}, own, "s") or "")
