"""Low-rank adapters: small matrices that are trained beside frozen weights.

``W x`` becomes ``W x + (alpha / rank) B A x``. An adapter of a parameter ``P`` of a module ``M``
stands in the model at ``M.lora.P``, with parameters ``A [rank, in]`` and ``B [out, rank]``, or
``A [E, rank, in]`` and ``B [E, out, rank]`` for a stack of experts.
"""

from __future__ import annotations

from llama4_train.lora.apply import apply_lora
from llama4_train.lora.attach import Adapted, adapted
from llama4_train.lora.files import load_adapter, save_adapter
from llama4_train.lora.merge import merge, remove, unmerge

__all__ = [
    "Adapted",
    "adapted",
    "apply_lora",
    "load_adapter",
    "merge",
    "remove",
    "save_adapter",
    "unmerge",
]
