"""What this package offers. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterable

from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl


@hookimpl
def llama4_routers() -> Iterable[Component]:
    """One router."""
    yield Component(
        "hash",
        "llama4_hash_router.router:HashRouter",
        "experts by a hash of the token id, equal weights; nothing is learned",
    )
