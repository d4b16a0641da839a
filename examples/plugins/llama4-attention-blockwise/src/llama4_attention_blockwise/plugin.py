"""What this package offers. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterable

from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl
from llama4_core.protocols.problems import AttentionProblem


def supports(problem: AttentionProblem) -> str | None:
    """Every mask and score term; the two key layouts of a single machine."""
    if problem.key_layout not in ("flat", "head_major"):
        return f"reads flat and head_major keys, not {problem.key_layout}"
    if problem.heads % problem.kv_heads:
        return f"{problem.heads} heads are not a multiple of {problem.kv_heads} kv heads"
    return None


@hookimpl
def llama4_attention_backends() -> Iterable[Component]:
    """One backend."""
    yield Component(
        "blockwise",
        "llama4_attention_blockwise.backend:BlockwiseAttention",
        "blocks of keys and an online softmax, in plain torch",
        supports=supports,
    )
