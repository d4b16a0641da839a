"""Which expert backend can take which problem, and which is preferred. Imports without torch."""

from __future__ import annotations

from dataclasses import replace

from llama4_core.protocols.problems import ExpertProblem
from llama4_core.protocols.weights import PLAIN

# Bytes per element of the dtypes that torch's grouped product takes.
_GROUPED_BYTES = {"bfloat16": 2, "float32": 4}
# Its rows must start at multiples of this many bytes.
_ALIGNMENT = 16
# Tokens per expert, and D * F, up to which one batched product in bfloat16 wins over a loop when
# gradients are wanted: measured at 2 to 32 tokens with 128 * 64; lost at 32 with 512 * 512.
_FEW_TOKENS = 32
_SMALL_EXPERT = 1 << 14


def plain_only(problem: ExpertProblem) -> str | None:
    """Refuses packed weights."""
    if problem.weight_format != PLAIN:
        return f"runs plain weights only, got format {problem.weight_format!r}"
    return None


def loop(problem: ExpertProblem) -> str | None:
    """The loop reads counts on the host, which a captured graph cannot."""
    if problem.compiled:
        return "reads token counts on the host, which torch.compile(fullgraph=True) cannot capture"
    return plain_only(problem)


def grouped(problem: ExpertProblem) -> str | None:
    """The limits of ``F.grouped_mm`` (torch 2.13)."""
    size = _GROUPED_BYTES.get(problem.dtype)
    if size is None:
        return f"F.grouped_mm takes bfloat16 or float32, got {problem.dtype}"
    if problem.dtype != "bfloat16" and problem.device != "cpu":
        return f"F.grouped_mm takes bfloat16 on {problem.device}, got {problem.dtype}"
    if problem.dtype != "bfloat16" and problem.compiled:
        return f"F.grouped_mm takes bfloat16 under torch.compile, got {problem.dtype}"
    for name in ("hidden", "width"):
        value = getattr(problem, name)
        if value * size % _ALIGNMENT:
            return (
                f"F.grouped_mm needs rows of a multiple of {_ALIGNMENT} bytes; {name} {value} of "
                f"{problem.dtype} is {value * size}"
            )
    return plain_only(problem)


def preferred(problem: ExpertProblem) -> str:
    """Name of our backend that is measured to be the fastest.

    Without gradients by benchmarks/moe.py. With gradients, on a CPU, by
    ``python benchmarks/moe_training.py`` (forward and backward, time over that of the loop):

    * float32: grouped 0.33 to 0.61 with 128 experts, 0.6 to 0.8 where an expert gets a few dozen
      tokens, 0.95 to 1.0 where it gets hundreds; padded-bmm lies between them with small experts
      (D 128) and is 1.2 to 2.8 with larger ones. A loop pays for each expert's operations one by
      one, in both directions.
    * bfloat16: the loop, which multiplies in float32 where bfloat16 is emulated (at 32 tokens per
      expert and more, the others take 1.2 to 3.2 there), and with filled rows elsewhere:
      :mod:`llama4_moe.experts.rows`. With few tokens for each of many small experts padded-bmm
      takes 0.23 to 0.46. Its work grows with the largest count, so that it is not taken further.
    """
    if problem.device != "cpu" or problem.compiled:
        if grouped(problem) is None:
            return "grouped"
        return "padded-bmm" if problem.compiled else "loop"
    if problem.grad and problem.dtype == "float32" and _grouped_when_narrow(problem):
        return "grouped"
    if problem.grad and problem.dtype == "bfloat16" and _few_for_small_experts(problem):
        return "padded-bmm" if plain_only(problem) is None else "loop"
    return "loop"


def _few_for_small_experts(problem: ExpertProblem) -> bool:
    """Whether the cost of a product's call, once per expert, is most of the time."""
    few = problem.tokens is not None and (
        problem.tokens * problem.top_k <= _FEW_TOKENS * problem.experts
    )
    return few and problem.hidden * problem.width <= _SMALL_EXPERT


def _grouped_when_narrow(problem: ExpertProblem) -> bool:
    """Whether the grouped product also runs in bfloat16, which autocast may turn a model into."""
    return grouped(replace(problem, dtype="bfloat16")) is None


def _rank(name: str, otherwise: int, problem: ExpertProblem) -> int:
    return 100 if preferred(problem) == name else otherwise


def rank_loop(problem: ExpertProblem) -> int:
    """Priority of the loop: the fallback of everything that is not captured."""
    return _rank("loop", 50, problem)


def rank_grouped(problem: ExpertProblem) -> int:
    """Priority of the grouped product."""
    return _rank("grouped", 40, problem)


def rank_padded(problem: ExpertProblem) -> int:
    """Priority of the padded product: the fallback of captured graphs."""
    return _rank("padded-bmm", 20, problem)


def rank_dense(problem: ExpertProblem) -> int:
    """Priority of the oracle: the last resort."""
    return _rank("dense", 10, problem)
