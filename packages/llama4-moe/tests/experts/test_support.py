"""Declared limits match what happens, and the preferred backend is never a refused one."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.protocols.problems import ExpertProblem
from llama4_moe import support
from llama4_moe.plugin import EXPERT_BACKENDS
from llama4_moe.testing.draws import ExpertCase

problems = st.builds(
    ExpertProblem,
    experts=st.sampled_from((1, 16, 128)),
    top_k=st.just(1),
    hidden=st.sampled_from((4, 20, 64, 2048)),
    width=st.sampled_from((4, 20, 64, 4096)),
    dtype=st.sampled_from(("bfloat16", "float32", "float16", "float64")),
    weight_format=st.just("plain"),
    device=st.sampled_from(("cpu", "cuda")),
    grad=st.booleans(),
    compiled=st.booleans(),
    tokens=st.sampled_from((None, 1, 8, 256, 4096)),
)


@given(problem=problems)
def test_the_preferred_backend_runs_and_ranks_first(problem):
    able = [each for each in EXPERT_BACKENDS if each.refusal(problem) is None]
    best = max(able, key=lambda component: component.rank(problem))
    assert best.name == support.preferred(problem)
    assert all(component.rank(problem) > 0 for component in able)


@pytest.mark.parametrize(
    ("dtype", "grad", "hidden", "name"),
    [
        ("float32", True, 128, "grouped"),
        ("float32", True, 132, "loop"),  # bfloat16 rows of 132 are not aligned: autocast would fail
        ("float32", False, 128, "loop"),
        ("bfloat16", True, 512, "loop"),
        ("bfloat16", False, 128, "loop"),
        ("float64", True, 128, "loop"),
    ],
)
@pytest.mark.parametrize("experts", [8, 128])
@pytest.mark.parametrize("tokens", [8, 256, 4096])
def test_what_auto_takes_on_a_cpu(dtype, grad, hidden, name, experts, tokens):
    problem = ExpertProblem(experts, 1, hidden, 64, dtype, grad=grad, tokens=tokens)
    assert support.preferred(problem) == name


@pytest.mark.parametrize(
    ("experts", "top_k", "tokens", "name"),
    [
        (128, 1, 4096, "padded-bmm"),
        (128, 2, 4096, "loop"),
        (16, 1, 256, "padded-bmm"),
        (16, 1, 4096, "loop"),
        (16, 1, None, "loop"),
    ],
)
def test_few_tokens_for_small_experts_are_one_product(experts, top_k, tokens, name):
    problem = ExpertProblem(experts, top_k, 128, 64, "bfloat16", grad=True, tokens=tokens)
    assert support.preferred(problem) == name


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("hidden", "width"), [(8, 8), (4, 8), (8, 4), (20, 20), (16, 12)])
def test_the_grouped_product_refuses_what_torch_refuses(dtype, hidden, width):
    case = ExpertCase(5, 2, 1, hidden, width, 0, "random", False, "input")
    problem = ExpertProblem(2, 1, hidden, width, dtype)
    component = next(each for each in EXPERT_BACKENDS if each.name == "grouped")
    x, routing, weights = case.build(getattr(torch, dtype))
    if component.refusal(problem) is None:
        component.build()(x, routing, weights)
    else:
        with pytest.raises(RuntimeError):
            component.build()(x, routing, weights)


def test_plugin_and_configuration_import_without_torch():
    code = (
        "import sys, llama4_moe, llama4_moe.plugin, llama4_moe.config;print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
