"""From logits to a token: pure functions on ``[B, V]``.

The distribution is made in one documented order: temperature, then top-k, then top-p (of what top-k
left, renormalised), then min-p. All three filters keep the front of one ranking, by logit downwards
and by id upwards among equals, so ``top_k=1`` is exactly greedy even when logits tie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from llama4_core.errors import GenerationError

# Below this a float32 quotient of logits could divide by a denormal number; every temperature in
# (0, 1e-30] puts the whole mass on the largest logit anyway.
_SMALLEST_TEMPERATURE = 1e-30
# Tokens looked at first for top-p alone: a nucleus is usually smaller, and when it is not, the head
# is widened eightfold until it suffices. Sorting 200,000 logits takes ten times as long.
_FIRST_HEAD = 128
# The cumulative distribution is inverted in two steps, first over blocks of this many tokens: one
# sum over the vocabulary instead of a running sum in double precision.
_BLOCK = 512
# Blocks whose maxima are ranked to find the largest logits.
_RANKED_BLOCK = 64


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn.

    Attributes:
        temperature: logits are divided by it; 0 is greedy (largest logit, lowest id among equals).
        top_k: keep the k largest logits; None for all.
        top_p: keep the shortest front of the ranking whose probability is at least this; None or 1
            for all.
        min_p: keep tokens at least this many times as probable as the most probable one; None or 0
            for all.

    Raises:
        GenerationError: a value is outside its range.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.temperature) or not 0 <= self.temperature < math.inf:
            raise GenerationError(
                f"temperature is {self.temperature!r}; expected a finite number of at least 0 "
                "(0 is greedy)"
            )
        if self.top_k is not None and (
            not isinstance(self.top_k, int) or isinstance(self.top_k, bool) or self.top_k < 1
        ):
            raise GenerationError(
                f"top_k is {self.top_k!r}; expected a whole number of at least 1, or None for all"
            )
        if self.top_p is not None and (not _is_number(self.top_p) or not 0 < self.top_p <= 1):
            raise GenerationError(
                f"top_p is {self.top_p!r}; expected a number above 0 and at most 1, or None for all"
            )
        if self.min_p is not None and (not _is_number(self.min_p) or not 0 <= self.min_p <= 1):
            raise GenerationError(
                f"min_p is {self.min_p!r}; expected a number from 0 to 1, or None for all"
            )


class Sampler(Protocol):
    """Draws tokens. Built as ``target(sampling)``; keeps nothing from one call to the next.

    The distribution is the one that :class:`Sampling` documents; how it is computed and drawn from
    is the sampler's own affair. A temperature of 0 gives the largest logit, the lowest id among
    equals.
    """

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution ``[B, V]`` (float64) of the next tokens, given ``logits [B, V]``.

        Raises:
            GenerationError: a row holds NaN or +inf, or forbids every token.
        """

    def choose(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """One token id per row, ``[B]`` int64.

        Args:
            logits: ``[B, V]`` float32; ``-inf`` marks a forbidden token.
            uniforms: ``[B]`` float64 in ``[0, 1)`` on the host, the only source of chance; unused
                when greedy. A row's token depends on its own logits and its own number alone.

        Raises:
            GenerationError: as :meth:`probabilities`.
        """


class InversionSampler:
    """Inverts the cumulative distribution: :func:`probabilities` and :func:`choose` as an object.

    Args:
        sampling: how to draw.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def probabilities(self, logits: Tensor) -> Tensor:
        """See :func:`probabilities`."""
        return probabilities(logits, self._sampling)

    def choose(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """See :func:`choose`."""
        return choose(logits, self._sampling, uniforms)


def weights(logits: Tensor, sampling: Sampling) -> Tensor:
    """Unnormalised probabilities ``[B, V]`` after temperature and filters.

    Zero exactly where a filter removed the token; the most probable token has weight 1.

    Args:
        logits: ``[B, V]`` float32; ``-inf`` marks a forbidden token.
        sampling: with a temperature above 0.

    Raises:
        GenerationError: a row holds NaN or +inf, or forbids every token.
    """
    largest = logits.amax(-1, keepdim=True)
    _check(largest)
    scaled = (logits - largest) / max(sampling.temperature, _SMALLEST_TEMPERATURE)
    kept = scaled.exp()
    nucleus = sampling.top_p is not None and sampling.top_p < 1
    if nucleus or (sampling.top_k is not None and sampling.top_k < logits.shape[-1]):
        kept = kept.where(_front(scaled, kept, sampling), 0)
    if sampling.min_p:
        kept = kept.where(kept >= sampling.min_p, 0)
    return kept


def probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution ``[B, V]`` (float64) that :func:`choose` draws from; greedy is one-hot."""
    if sampling.temperature == 0:
        chosen = choose(logits, sampling, torch.zeros(logits.shape[0]))
        return functional.one_hot(chosen, logits.shape[-1]).double()
    kept = weights(logits, sampling).double()
    return kept / kept.sum(-1, keepdim=True)


def choose(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """One token id per row, ``[B]`` int64, by inversion of the cumulative distribution.

    Args:
        logits: ``[B, V]`` float32.
        sampling: how to draw.
        uniforms: ``[B]`` float64 in ``[0, 1)``, one number per row, unused when greedy. A row's
            token depends on its own logits and its own number alone.

    Raises:
        GenerationError: as :func:`weights`.
    """
    if sampling.temperature == 0:
        largest, tokens = logits.max(-1)
        _check(largest)
        return tokens
    kept = weights(logits, sampling)
    kept = functional.pad(kept, (0, -kept.shape[-1] % _BLOCK)).unflatten(-1, (-1, _BLOCK))
    # float64: in float32 the running sum over 200,000 tokens would swallow the tail.
    blocks = kept.sum(-1, dtype=torch.float64).cumsum(-1)
    uniforms = uniforms.to(blocks)[:, None]
    block = _invert(blocks, uniforms * blocks[:, -1:])
    before = functional.pad(blocks, (1, 0)).gather(-1, block)
    inside = kept[torch.arange(len(kept), device=kept.device), block[:, 0]].cumsum(
        -1, dtype=torch.float64
    )
    return (block * _BLOCK + _invert(inside, uniforms * blocks[:, -1:] - before)).squeeze(-1)


def log_probabilities(
    logits: Tensor, tokens: Tensor, alternatives: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Natural logarithms of probabilities under the model itself.

    Of the plain softmax of the logits: before temperature and filters, so that they can be compared
    between settings.

    Args:
        logits: ``[B, V]`` float32.
        tokens: ``[B]``, the chosen ids.
        alternatives: how many of the most probable tokens to report; at most V.

    Returns:
        Log-probabilities of the chosen tokens ``[B]``; ids and log-probabilities of the most
        probable tokens, both ``[B, alternatives]``, most probable first.
    """
    norm = logits.logsumexp(-1, keepdim=True)
    chosen = (logits.gather(-1, tokens[:, None]) - norm).squeeze(-1)
    top, ids = logits.topk(min(alternatives, logits.shape[-1]))
    return chosen, ids, top - norm


def _front(scaled: Tensor, kept: Tensor, sampling: Sampling) -> Tensor:
    """Which tokens ``[B, V]`` top-k and top-p keep, as one front of each row's ranking."""
    vocabulary = scaled.shape[-1]
    limit = min(sampling.top_k or vocabulary, vocabulary)
    share = 1.0 if sampling.top_p is None else sampling.top_p
    size = limit if sampling.top_k else min(_FIRST_HEAD, vocabulary)
    while True:
        head = _largest(scaled, size)
        mass = head.exp().cumsum(-1, dtype=torch.float64)
        total = mass[:, -1:] if size == limit else kept.sum(-1, keepdim=True, dtype=torch.float64)
        # A token stays while the mass in front of it has not reached the share yet.
        inside = functional.pad(mass[:, :-1], (1, 0)) < share * total
        if size == limit or not bool(inside[:, -1].any()):
            break
        size = min(8 * size, limit)
    if share == 1:
        # Not by mass: a tail that is lost in rounding still belongs to the top k.
        inside = torch.ones_like(inside)
    count = inside.sum(-1, keepdim=True)
    border = head.gather(-1, count - 1)
    front = scaled >= border
    if bool((front.sum(-1, keepdim=True) > count).any()):
        # Logits tie at the border: the lowest ids among them fill the remaining places.
        level = scaled == border
        missing = count - (scaled > border).sum(-1, keepdim=True)
        front &= (level.cumsum(-1) <= missing) | ~level
    return front


def _largest(values: Tensor, size: int) -> Tensor:
    """The ``size`` largest of each row of ``values [B, V]``, sorted downwards.

    They lie in the ``size`` blocks with the largest maxima, so most of the row need not be ranked.
    """
    rows, vocabulary = values.shape
    if 2 * size * _RANKED_BLOCK > vocabulary:
        return values.topk(size).values
    fill = (0, -vocabulary % _RANKED_BLOCK)
    blocks = functional.pad(values, fill, value=-math.inf).unflatten(-1, (-1, _RANKED_BLOCK))
    chosen = blocks.amax(-1).topk(size, sorted=False).indices
    candidates = blocks[torch.arange(rows, device=values.device)[:, None], chosen]
    return candidates.flatten(1).topk(size).values


def _invert(mass: Tensor, point: Tensor) -> Tensor:
    """The first entry of the running sum ``mass [B, n]`` beyond ``point [B, 1]``.

    A point that rounding put at or beyond the end belongs to the last entry that has any mass.
    """
    end = mass[:, -1:]
    return torch.searchsorted(mass, point.minimum(end.nextafter(end.new_zeros(()))), right=True)


def _check(largest: Tensor) -> None:
    """Refuses rows whose largest logit is not a number to reckon with (NaN propagates to it)."""
    if bool(largest.isfinite().all()):
        return
    row = int(largest.isfinite().logical_not().flatten().nonzero()[0, 0])
    value = float(largest.flatten()[row])
    if value == -math.inf:
        raise GenerationError(
            f"every logit of row {row} is -inf; expected at least one token that may follow"
        )
    raise GenerationError(
        f"the logits of row {row} contain {value}; expected finite numbers (or -inf): check the "
        "weights and the dtype, float16 overflows where bfloat16 does not"
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
