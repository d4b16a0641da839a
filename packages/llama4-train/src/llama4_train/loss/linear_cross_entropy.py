"""Cross-entropy of a linear head, without ever keeping its logits.

At Llama 4's vocabulary of 202,048 the float32 logits of 1,024 tokens are 0.77 GiB, and their
gradient as much again. One function here serves training, log-probabilities and distillation.

``F.linear_cross_entropy`` of torch 2.13 returns its loss in the dtype of its inputs, so that
bfloat16 inputs round a loss of 12.4 to a multiple of 1/16, and gives neither log-sum-exp nor terms
of a teacher.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llama4_train.errors import TrainingError
from llama4_train.loss.vocabulary_blocks import Head, Sums, backward, forward

IGNORED = -100
"""The target of a token without one, as in ``F.cross_entropy``."""

MEMORY = 160 * 2**20
"""Bytes for blocks of logits, unless another number is asked for."""


class Teacher(NamedTuple):
    """What a teacher said: its K likeliest tokens, and how likely all others are together.

    Attributes:
        ids: ``[N, K]`` int64, without repeats in a row.
        log_probs: ``[N, K]`` natural logarithms; -inf for none.
        tail: ``[N]``, probability of all other tokens together; 0 where there are none.
    """

    ids: Tensor
    log_probs: Tensor
    tail: Tensor


class TokenLosses(NamedTuple):
    """Numbers per token, float32 (float64 for float64 inputs); 0 where a token is ignored.

    Attributes:
        nll: ``[N]``, ``-log softmax(z)[target]``: the negative log-likelihood.
        lse: ``[N]``, ``log sum exp z``: its square is the z-loss.
        divergence: ``[N]``, ``KL(teacher || student)`` over K + 1 classes, the last of which is
            "any other token"; 0 where the student agrees, else more. None without a teacher.
    """

    nll: Tensor
    lse: Tensor
    divergence: Tensor | None


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    teacher: Teacher | None = None,
    memory: int = MEMORY,
) -> TokenLosses:
    """Losses of each token for logits ``z = hidden weight^T`` that are never there as a whole.

    Exact: sums over the vocabulary are in float32 whatever the inputs' dtype, and nothing is
    approximated. Every number is differentiable with respect to ``hidden`` and ``weight`` (once;
    a teacher gets no gradient), so any function of them can be minimised: weighted sums for
    training, ``-nll`` as log-probabilities, ``mean(lse ** 2)``, ``divergence``. A tensor that needs
    no gradient costs none: with a frozen head its product is left out, without any gradient
    nothing is kept. Ignored tokens are left out before anything is computed.

    The temperature T of distillation is ``hidden / T``, with log-probabilities and tail of the
    teacher at the same temperature.

    Under autocast the inputs are rounded as those of ``F.linear`` are. Under ``torch.compile`` this
    is a break in the graph.

    Args:
        hidden: ``[N, D]`` floating point.
        weight: ``[V, D]``: of the head, or the embedding of a model that ties them.
        targets: ``[N]`` int64 ids, or -100 for tokens that are ignored.
        teacher: to compare with, or None.
        memory: bytes for blocks of logits; the gradient of the head comes on top. What is not
            needed for one block keeps others for the backward, which saves computing them again.

    Raises:
        TrainingError: shapes or dtypes do not fit, or an id is outside the vocabulary.
    """
    _check(hidden, weight, targets, teacher)
    return _losses(hidden, weight, targets, teacher, memory)


# Opaque to the compiler, which would trace the loop over hundreds of blocks.
@torch.compiler.disable
def _losses(
    hidden: Tensor, weight: Tensor, targets: Tensor, teacher: Teacher | None, memory: int
) -> TokenLosses:
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        narrow = torch.get_autocast_dtype(device)
        hidden, weight = (x if x.dtype == torch.float64 else x.to(narrow) for x in (hidden, weight))
    with torch.autocast(device, enabled=False):
        kept = (targets != IGNORED).nonzero().squeeze(1)
        if len(kept) == len(targets):
            return _compose(hidden, weight, targets, teacher, memory)
        if teacher is not None:
            teacher = Teacher(*(part[kept] for part in teacher))
        found = _compose(hidden[kept], weight, targets[kept], teacher, memory)
        spread = (None if x is None else _spread(x, kept, len(targets)) for x in found)
        return TokenLosses(*spread)  # type: ignore[arg-type] # only the last may be None


def _spread(values: Tensor, places: Tensor, count: int) -> Tensor:
    return values.new_zeros(count).index_copy(0, places, values)


def _compose(
    hidden: Tensor, weight: Tensor, targets: Tensor, teacher: Teacher | None, memory: int
) -> TokenLosses:
    """The losses, as functions of few numbers per token."""
    listed = targets.new_empty(len(targets), 0) if teacher is None else teacher.ids.detach()
    rest, target, chosen = _Sums.apply(hidden, weight, targets, listed, memory)
    if teacher is None:
        return TokenLosses(-target, rest, None)
    # log(sum of all / sum of those that are not listed), at least 0.
    more = torch.cat([torch.zeros_like(rest)[:, None], chosen], dim=1).logsumexp(dim=1)
    log_probs, tail = teacher.log_probs.detach().to(more), teacher.tail.detach().to(more)
    probs = log_probs.exp()
    # Probabilities of 0 add nothing, whatever the student says there.
    terms = probs * (log_probs - (chosen - more[:, None])).where(probs > 0, 0.0)
    others = tail * (tail.log() + more).where(tail > 0, 0.0)
    return TokenLosses(more - target, rest + more, terms.sum(dim=1) + others)


class _Sums(torch.autograd.Function):
    """The sums of :mod:`llama4_train.loss.vocabulary_blocks` with their gradients."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, listed: Tensor, memory: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        head = Head(hidden, weight, targets, listed, memory)
        sums, ctx.kept = forward(head, keep=any(ctx.needs_input_grad[:2]))
        ctx.save_for_backward(hidden, weight, targets, listed, sums.rest)
        ctx.memory = memory
        return sums.rest, sums.target, sums.listed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *change: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, listed, rest = ctx.saved_tensors
        with torch.autocast(hidden.device.type, enabled=False):
            to_hidden, to_weight = backward(
                Head(hidden, weight, targets, listed, ctx.memory),
                rest,
                ctx.kept,
                Sums(*change),
                *ctx.needs_input_grad[:2],
            )
        if to_hidden is not None:
            to_hidden = to_hidden.to(hidden.dtype)
        return to_hidden, to_weight, None, None, None


def _check(hidden: Tensor, weight: Tensor, targets: Tensor, teacher: Teacher | None) -> None:
    if hidden.dim() != 2 or weight.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise TrainingError(
            f"hidden states have shape {list(hidden.shape)} and the head {list(weight.shape)}; "
            "expected [N, D] and [V, D]: flatten batches into one stream of tokens"
        )
    if not hidden.is_floating_point() or not weight.is_floating_point():
        raise TrainingError(
            f"hidden states are {hidden.dtype} and the head {weight.dtype}; expected floating "
            "point: widen a quantised head first"
        )
    ids: dict[str, tuple[Tensor, tuple[int, ...]]] = {"targets": (targets, hidden.shape[:1])}
    if teacher is not None:
        ids["teacher.ids"] = (teacher.ids, (*hidden.shape[:1], *teacher.ids.shape[1:2]))
        if teacher.ids.dim() == 2 and teacher.ids.shape[1] >= weight.shape[0]:
            raise TrainingError(
                f"the teacher lists {teacher.ids.shape[1]} of {weight.shape[0]} tokens; expected "
                "fewer: some token must be left for the tail"
            )
        for name, part, shape in (
            ("log_probs", teacher.log_probs, teacher.ids.shape),
            ("tail", teacher.tail, hidden.shape[:1]),
        ):
            if part.shape != shape:
                raise TrainingError(
                    f"teacher.{name} has shape {list(part.shape)}; expected {list(shape)}"
                )
    for name, (part, expected) in ids.items():
        if part.shape != expected or part.dtype != torch.int64:
            raise TrainingError(
                f"{name} is {part.dtype} {list(part.shape)}; expected int64 {list(expected)}"
            )
        _check_range(name, part, weight.shape[0], ignored=name == "targets")


def _check_range(name: str, ids: Tensor, vocabulary: int, ignored: bool) -> None:
    """Looks at ids where that does not make a GPU wait; there the gather stops the program."""
    if ids.device.type != "cpu" or not ids.numel():
        return
    wrong = (ids < 0) | (ids >= vocabulary)
    if ignored:
        wrong &= ids != IGNORED
    if bool(wrong.any()):
        raise TrainingError(
            f"{name} holds the id {int(ids[wrong][0])}; expected 0 to {vocabulary - 1}"
            f"{f' (or {IGNORED} for none)' if ignored else ''}: the tokenizer and the model differ"
        )
