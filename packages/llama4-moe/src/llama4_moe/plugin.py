"""What this package offers to the catalogue. Imports without torch."""

from __future__ import annotations

from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl
from llama4_moe import support

ROUTERS = (
    Component(
        "sigmoid-top-k",
        "llama4_moe.routers.sigmoid:SigmoidTopK",
        "Llama 4: the largest logits, weighted by their sigmoid",
        priority=10,
    ),
    Component(
        "sigmoid-top-k-balanced",
        "llama4_moe.routers.sigmoid:BalancedSigmoidTopK",
        "the same with a bias that balances the load and never enters the weights",
    ),
    Component(
        "softmax-top-k",
        "llama4_moe.routers.softmax:SoftmaxTopK",
        "the largest logits, weighted by the softmax over all experts",
    ),
    Component(
        "softmax-top-k-renormalised",
        "llama4_moe.routers.softmax:SoftmaxTopK",
        "the same, the weights of each token scaled to sum 1",
        settings={"renormalise": True},
    ),
)

EXPERT_BACKENDS = (
    Component(
        "loop",
        "llama4_moe.experts.loop:LoopExperts",
        "sorted by expert, one expert after the other",
        supports=support.loop,
        priority=support.rank_loop,
    ),
    Component(
        "grouped",
        "llama4_moe.experts.grouped:GroupedExperts",
        "sorted by expert, torch's grouped matrix product",
        supports=support.grouped,
        priority=support.rank_grouped,
    ),
    Component(
        "padded-bmm",
        "llama4_moe.experts.padded:PaddedExperts",
        "every expert padded to the largest count, one batched product",
        supports=support.plain_only,
        priority=support.rank_padded,
    ),
    Component(
        "dense",
        "llama4_moe.experts.dense:DenseExperts",
        "all experts on all tokens: the definition",
        supports=support.plain_only,
        priority=support.rank_dense,
    ),
)

FEED_FORWARDS = (
    Component(
        "moe",
        "llama4_moe.feed_forward:MoEFeedForward",
        "routed SwiGLU experts beside a shared one",
        expected_failures={
            "compiles": "backends are frozen by number of tokens, and the one that 'auto' takes "
            "for a few, 'loop', counts on the host; override backend with 'padded-bmm' to compile"
        },
    ),
)


@hookimpl
def llama4_routers() -> tuple[Component, ...]:
    """Our routers."""
    return ROUTERS


@hookimpl
def llama4_expert_backends() -> tuple[Component, ...]:
    """Our expert backends."""
    return EXPERT_BACKENDS


@hookimpl
def llama4_feed_forwards() -> tuple[Component, ...]:
    """Our feed-forward."""
    return FEED_FORWARDS
