"""Whether this process is alone, and who speaks for a group."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist


def grouped() -> bool:
    """Whether this process is one of a group."""
    return dist.is_available() and dist.is_initialized()


def leads(group: Any = None) -> bool:
    """Whether this process is alone, or the first of ``group`` (None: of all)."""
    return not grouped() or dist.get_rank(group) == 0
