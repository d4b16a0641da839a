"""The examples that show the mixture in other people's models do what they say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tests.parity.oracle import BASE, CASES, oracle, random_tokens, tolerance

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_mixture_in_ones_own_model_learns(capsys: pytest.CaptureFixture[str]) -> None:
    """The loss of 60 steps falls to less than half, and no expert dies."""
    example("moe_in_my_model").main()
    shown = capsys.readouterr().out
    losses = [float(found) for found in re.findall(r"loss ([\d.]+)", shown)]
    assert len(losses) == 4
    assert losses[-1] < losses[0] / 2
    assert shown.splitlines()[-1].endswith("dead []")


@pytest.mark.parametrize("name", ["scout-like", "maverick-like", "top-2"])
def test_a_drop_in_for_transformers(name: str) -> None:
    """Same state dict, equal logits, and every weight gets a gradient."""
    theirs, ours = oracle(CASES[name]), oracle(CASES[name], seed=1)
    example("moe_inside_transformers").replace(ours)
    mixtures = [m for m in ours.modules() if type(m).__name__ == "RoutedMoe"]
    assert len(mixtures) == 8 // CASES[name].get("interleave_moe_layer_step", 1)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    ours.load_state_dict(theirs.state_dict())
    tokens = random_tokens(2, 19, BASE["vocab_size"], seed=2)
    expected, found = theirs(tokens).logits, ours(tokens).logits
    assert (found - expected).abs().max() <= tolerance(expected)
    found.square().mean().backward()
    assert all(weight.grad is not None for weight in ours.parameters())
    with torch.inference_mode():  # one token takes another way through the experts
        one = tokens[:1, :1]
        assert (ours(one).logits - theirs(one).logits).abs().max() <= tolerance(expected)
