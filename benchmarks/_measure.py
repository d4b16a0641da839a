"""What every benchmark needs: CPU time of one thread, probes of the machine, paired ratios."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F


def seconds(call: Callable[[], object]) -> float:
    """CPU time of one call on this thread; waiting for other programs does not count."""
    start = time.thread_time()
    call()
    return time.thread_time() - start


def probes() -> dict[str, float]:
    """What one core can do right now: GB/s read from memory, GFLOP/s of products."""
    memory = torch.zeros(1 << 27, dtype=torch.int64)
    memory.sum()
    found = {"read GB/s": 1.0737 / min(seconds(memory.sum) for _ in range(3))}
    for dtype in (torch.bfloat16, torch.float32):
        a, b = torch.randn(1024, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
        F.linear(a, b)
        best = min(seconds(lambda a=a, b=b: F.linear(a, b)) for _ in range(3))
        found[f"{str(dtype)[6:]} GFLOP/s"] = 2 * 1024 * 2048 * 2048 / best / 1e9
    return found


def paired(ours: Sequence[float], peer: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest of the neighbouring runs' ``peer / ours``."""
    ratios = sorted(p / m for m, p in zip(ours, peer, strict=True))
    return {
        "ours s": statistics.median(ours),
        "peer s": statistics.median(peer),
        "ratio": statistics.median(ratios),
        "lowest": ratios[0],
        "highest": ratios[-1],
    }


def write(path: Path | None, settings: dict[str, Any], roof: Any, rows: list[Any]) -> None:
    """Writes the results as JSON, when asked to; paths among the settings are left out."""
    if path is None:
        return
    shown = {name: value for name, value in settings.items() if not isinstance(value, Path)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps(
            {
                "settings": shown,
                "torch": torch.__version__,
                "machine": platform.machine(),
                "bfloat16 instructions": bool(torch.cpu.get_capabilities().get("avx512_bf16")),
                "probes": roof,
                "results": rows,
            },
            indent=2,
        )
        + "\n"
    )
