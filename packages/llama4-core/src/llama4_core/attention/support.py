"""What each attention backend refuses, and why. Imports without torch.

Every function takes an :class:`~llama4_core.protocols.problems.AttentionProblem` and returns None,
or the reason for refusing it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil

from llama4_core.protocols.problems import AttentionProblem

LAYOUTS = ("flat", "head_major")
KNOWN_MASKS = frozenset({"Everything", "Causal", "Chunked", "SlidingWindow", "SameDocument"})
CPU_DTYPES = ("float32", "bfloat16", "float16", "float64")
HALF_DTYPES = ("bfloat16", "float16")
# The next release needs mslk, of which PyPI carries an empty placeholder only.
XFORMERS_OLDEST, XFORMERS_NEXT = (0, 0, 35), (0, 0, 36)


def eager_supports(problem: AttentionProblem) -> str | None:
    """The oracle takes every mask, score term and dtype; only a paged cache is beyond it."""
    return _shape(problem)


def sdpa_supports(problem: AttentionProblem) -> str | None:
    """``torch.nn.functional.scaled_dot_product_attention`` without a dense mask."""
    unknown = problem.mask_kinds - KNOWN_MASKS
    terms = problem.score_terms - {"Sink"}
    if unknown:
        return f"does not know the mask(s) {_names(unknown)}; eager and flex take any mask"
    if terms:
        return (
            f"torch's fused attention has no place for {_names(terms)} inside its softmax; "
            "eager and flex compute them"
        )
    if problem.grad and problem.lse:
        return "torch's log-sum-exp has no gradient; eager's has one"
    if problem.grad and "Sink" in problem.score_terms:
        return (
            "it applies a Sink through torch's log-sum-exp, which has no gradient; "
            "eager trains with a Sink"
        )
    if problem.dtype not in CPU_DTYPES:
        return f"runs {', '.join(CPU_DTYPES)}, not {problem.dtype}"
    if problem.device not in ("cpu", "cuda", "meta"):
        return f"is written for cpu and cuda, not {problem.device}"
    return _shape(problem)


def flex_supports(problem: AttentionProblem) -> str | None:
    """``torch.nn.attention.flex_attention``, compiled: any mask and every score term of ours."""
    terms = problem.score_terms - {"SoftCap", "Sink", "DistanceBias"}
    if terms:
        return f"has no score function for {_names(terms)}; eager computes any score term"
    if problem.device == "cpu" and problem.grad:
        return "flex_attention has no backward on CPU; eager and sdpa have one"
    if problem.grad and problem.score_terms & {"Sink"}:
        return "it applies a Sink through the log-sum-exp without training it; use eager"
    if problem.dtype not in ("float32", *HALF_DTYPES):
        return f"runs float32, bfloat16 and float16, not {problem.dtype}"
    if problem.device not in ("cpu", "cuda"):
        return f"runs on cpu and cuda, not {problem.device}"
    if problem.device == "cpu" and compiler() is None:
        return "needs a C++ compiler to be fast, and found none: install g++ or set CXX"
    return _shape(problem)


def xformers_supports(problem: AttentionProblem) -> str | None:
    """``xformers.ops.memory_efficient_attention``; CUDA only."""
    if problem.device != "cuda":
        return f"every xformers attention kernel needs a CUDA device; this one is {problem.device}"
    unknown = problem.mask_kinds - {"Causal", "Chunked", "SameDocument"}
    if unknown or "Causal" not in problem.mask_kinds:
        return (
            f"its block-diagonal biases express Causal, Chunked and SameDocument, "
            f"not {_names(problem.mask_kinds)}"
        )
    if problem.score_terms:
        return f"its kernels have no place for {_names(problem.score_terms)}"
    if problem.dtype not in HALF_DTYPES:
        return f"its kernels run bfloat16 and float16, not {problem.dtype}"
    if problem.grad and problem.lse:
        return "its log-sum-exp has no gradient; eager's has one"
    if problem.grad and problem.key_layout == "head_major":
        return "its padded-keys biases have no backward"
    return _shape(problem) or xformers_missing()


def xformers_missing() -> str | None:
    """Why xformers cannot be imported as the version that this code is written for, or None."""
    if importlib.util.find_spec("xformers") is None:
        return "xformers is not installed: pip install 'llama4-core[xformers]'"
    version = importlib.metadata.version("xformers")
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())
    if numbers < XFORMERS_OLDEST:
        return f"xformers {version} is older than 0.0.35: pip install 'xformers>=0.0.35,<0.0.36'"
    if numbers >= XFORMERS_NEXT:
        return (
            f"xformers {version} moved its kernels to mslk, which PyPI does not carry: "
            "pip install 'xformers>=0.0.35,<0.0.36'"
        )
    return None


def compiler() -> str | None:
    """Path of the C++ compiler that torch would call, or None."""
    named = os.environ.get("CXX")
    for name in ([named] if named else []) + ["g++", "clang++"]:
        found = shutil.which(name)
        if found:
            return found
    return None


def _shape(problem: AttentionProblem) -> str | None:
    if problem.key_layout not in LAYOUTS:
        return f"reads flat and head_major keys, not {problem.key_layout}"
    if problem.kv_heads < 1 or problem.heads % problem.kv_heads:
        return f"{problem.heads} query heads are not a multiple of {problem.kv_heads} kv heads"
    return None


def _names(kinds: frozenset[str]) -> str:
    return ", ".join(sorted(kinds))
