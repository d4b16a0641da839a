"""Mixture of experts: routers, expert kernels, the feed-forward, routing statistics.

``from llama4_moe import MoE, MoEConfig`` works in anybody's model, on plain tensors. Importing this
package imports no torch; asking for :class:`MoE` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llama4_moe.config import MoEConfig
    from llama4_moe.moe import MoE

__version__ = "0.1.0"
__all__ = ["MoE", "MoEConfig", "__version__"]

_HOMES = {"MoE": "llama4_moe.moe", "MoEConfig": "llama4_moe.config"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
