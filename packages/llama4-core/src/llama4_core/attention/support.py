"""What each attention backend can run, without importing torch."""

from __future__ import annotations

from llama4_core.protocols.problems import AttentionProblem

_MASKS = frozenset({"Everything", "Causal", "Chunked", "SlidingWindow", "SameDocument"})
_LAYOUTS = ("flat", "head_major")


def eager_supports(problem: AttentionProblem) -> str | None:
    """Everything: the oracle evaluates the definitions of masks and score terms themselves."""
    return _layout(problem, *_LAYOUTS)


def sdpa_supports(problem: AttentionProblem) -> str | None:
    """Every mask that ends at the last key; no score terms."""
    return (
        _layout(problem, *_LAYOUTS) or _masks(problem, _MASKS) or _terms(problem, frozenset())
    )


def flex_supports(problem: AttentionProblem) -> str | None:
    """Masks and score terms without tensors."""
    return (
        _layout(problem, *_LAYOUTS)
        or _masks(problem, _MASKS)
        or _terms(problem, frozenset({"SoftCap", "DistanceBias"}))
    )


def xformers_supports(problem: AttentionProblem) -> str | None:
    """CUDA devices only."""
    if not problem.device.startswith("cuda"):
        return f"runs on CUDA devices only, not on {problem.device!r}"
    return (
        _layout(problem, *_LAYOUTS) or _masks(problem, _MASKS) or _terms(problem, frozenset())
    )


def _layout(problem: AttentionProblem, *known: str) -> str | None:
    if problem.key_layout in known:
        return None
    return f"reads key layouts {', '.join(known)}, not {problem.key_layout!r}"


def _masks(problem: AttentionProblem, known: frozenset[str]) -> str | None:
    unknown = sorted(problem.mask_kinds - known)
    return f"has no mask of kind {', '.join(unknown)}" if unknown else None


def _terms(problem: AttentionProblem, known: frozenset[str]) -> str | None:
    unknown = sorted(problem.score_terms - known)
    return f"has no score term {', '.join(unknown)}" if unknown else None
