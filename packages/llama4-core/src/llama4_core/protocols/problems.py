"""Problems: what an assembly asks of a component, as frozen values without tensors.

A component's ``supports`` takes its socket's problem and returns None, or the reason for refusing.
Dtypes and devices are strings ("bfloat16", "cpu", "cuda").
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AttentionProblem:
    """One attention slot of a model.

    Attributes:
        heads: query heads H.
        kv_heads: key/value heads G; H is a multiple of G.
        head_dim: K.
        dtype: of q, k and v.
        device: type of device.
        mask_kinds: names of the masks in play, e.g. ``{"Causal", "Chunked", "SameDocument"}``.
        score_terms: names of the score terms in play, e.g. ``{"SoftCap"}``.
        key_layout: "flat" (packed stream), "head_major" (preallocated cache) or "paged".
        grad: gradients will be asked for.
        lse: the log-sum-exp will be asked for.
        compiled: the call will be traced by torch.compile.
    """

    heads: int
    kv_heads: int
    head_dim: int
    dtype: str = "float32"
    device: str = "cpu"
    mask_kinds: frozenset[str] = frozenset({"Causal", "SameDocument"})
    score_terms: frozenset[str] = frozenset()
    key_layout: str = "flat"
    grad: bool = False
    lse: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class ExpertProblem:
    """One bank of experts of a model.

    Attributes:
        experts: E.
        top_k: routed experts per token.
        hidden: model width D.
        width: expert width F.
        dtype: of the tokens.
        weight_format: "plain", or the name of a packed format.
        weight_layout: "out_in" (``[E, out, in]``, ours) or "in_out" (a transposed view of a
            Hugging Face checkpoint).
        device: type of device.
        grad: gradients will be asked for.
        compiled: the call will be traced by torch.compile with fullgraph.
        tokens: number of tokens of the regime that is being decided, or None for any.
    """

    experts: int
    top_k: int
    hidden: int
    width: int
    dtype: str = "float32"
    weight_format: str = "plain"
    weight_layout: str = "out_in"
    device: str = "cpu"
    grad: bool = False
    compiled: bool = False
    tokens: int | None = None


@dataclass(frozen=True)
class LinearProblem:
    """One linear projection of a model: ``y [N, out] = x [N, in] W^T``."""

    inputs: int
    outputs: int
    dtype: str = "float32"
    weight_format: str = "plain"
    device: str = "cpu"
    grad: bool = False
    compiled: bool = False
    tokens: int | None = None


@dataclass(frozen=True)
class EncoderProblem:
    """The encoder of one model.

    Attributes:
        modality: what is encoded: "vision", or another that a plugin brings.
        channels, height, width: of one piece of the input.
        patch_size: edge of the squares that become one place of the grid.
        dtype: of the weights.
        device: type of device.
    """

    modality: str
    channels: int
    height: int
    width: int
    patch_size: int
    dtype: str = "float32"
    device: str = "cpu"
