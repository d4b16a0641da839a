"""How many operations a second the machine does where it does nothing but multiply matrices."""

from __future__ import annotations

import time

import torch

from llama4_core.assembly.assemble import DTYPES

# Edges of square matrices that fill the machine: 2 GFLOP on a processor, 1 TFLOP on a GPU.
_EDGES = {"cpu": 1024}
_EDGE = 8192
_ROUNDS = 4


def measured_peak(dtype: str, device: str = "cpu") -> float:
    """Operations per second of the fastest of a few products, in ``dtype`` or in float32.

    A processor without instructions for a narrow dtype is faster in float32, and that is what such
    models are computed in there. Takes well under a second, with random numbers of its own.

    Args:
        dtype: of the weights.
        device: type of device.
    """
    edge = _EDGES.get(device, _EDGE)
    generator = torch.Generator(device=device).manual_seed(0)
    square = torch.randn(edge, edge, generator=generator, device=device)
    best = 0.0
    with torch.inference_mode():
        for one in {torch.float32, DTYPES[dtype]}:
            matrix = square.to(one)
            for _ in range(_ROUNDS):
                start = time.perf_counter()
                matrix @ matrix
                if device != "cpu":
                    torch.accelerator.synchronize()
                best = max(best, 2 * edge**3 / (time.perf_counter() - start))
    return best
