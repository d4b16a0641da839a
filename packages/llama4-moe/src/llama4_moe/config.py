"""The configuration of a standalone mixture of experts. Imports without torch."""

from __future__ import annotations

from dataclasses import dataclass

from llama4_core.errors import SpecError

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2")


@dataclass(frozen=True)
class MoEConfig:
    """What :class:`llama4_moe.MoE` is made of.

    Attributes:
        hidden: D, size of the last axis of the input.
        experts: E.
        top_k: routed experts per token.
        width: F, of a routed expert.
        activation: of the gate: "silu" (SwiGLU), "gelu" (exact), "gelu_tanh", "relu" or "relu2"
            (the square of relu).
        weight_on: the routing weight multiplies the expert's "input" (Llama 4) or "output".
        renormalise: divide the weights of a token's experts by their sum.
        shared_width: of an expert that every token visits; 0 for none.
        router: "sigmoid-top-k" (Llama 4), "sigmoid-top-k-balanced" or "softmax-top-k".
    """

    hidden: int
    experts: int
    top_k: int
    width: int
    activation: str = "silu"
    weight_on: str = "input"
    renormalise: bool = False
    shared_width: int = 0
    router: str = "sigmoid-top-k"

    def __post_init__(self) -> None:
        for name, least in (
            ("hidden", 1),
            ("experts", 1),
            ("top_k", 1),
            ("width", 1),
            ("shared_width", 0),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise SpecError(
                    f"MoEConfig.{name} is {value!r}; expected a whole number of at least {least}"
                )
        if self.top_k > self.experts:
            raise SpecError(
                f"MoEConfig.top_k is {self.top_k}; expected at most experts, {self.experts}"
            )
        if self.activation not in ACTIVATIONS:
            raise SpecError(
                f"MoEConfig.activation is {self.activation!r}; expected one of "
                f"{', '.join(ACTIVATIONS)}"
            )
        if self.weight_on not in ("input", "output"):
            raise SpecError(
                f"MoEConfig.weight_on is {self.weight_on!r}; expected 'input' or 'output'"
            )
