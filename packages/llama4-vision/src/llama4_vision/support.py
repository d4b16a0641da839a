"""What each encoder refuses, and why. Imports without torch."""

from __future__ import annotations

from llama4_core.protocols.problems import EncoderProblem

FLOATS = ("float32", "bfloat16", "float16", "float64")


def square_images(problem: EncoderProblem) -> str | None:
    """Encoders of square tiles that whole patches cover."""
    if problem.modality != "vision":
        return f"encodes images, not {problem.modality}"
    if problem.height != problem.width:
        return f"encodes square tiles, not {problem.height} x {problem.width}"
    if problem.height % problem.patch_size:
        return f"tiles of {problem.height} are no multiple of patches of {problem.patch_size}"
    if problem.dtype not in FLOATS:
        return f"runs {', '.join(FLOATS)}, not {problem.dtype}"
    return None
