"""Bugs of mixers and of the contexts under them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.contexts.recurrent import RecurrentState
from llama4_core.model.linear import GatedLinearMixer
from llama4_core.model.softmax import SoftmaxMixer
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant, patched


class Broken(nn.Module):
    """A mixer, changed.

    Args:
        inner: the mixer.
        call: ``call(self, x, view)`` in place of the mixer's own.
        stated: changes its state_spec.
    """

    def __init__(
        self, inner: nn.Module, call: Callable[..., Tensor] | None, stated: Callable[[Any], Any]
    ) -> None:
        super().__init__()
        self.inner, self.call, self.stated = inner, call, stated
        self.count = 0

    @property
    def kind(self) -> Any:
        """The mixer's."""
        return self.inner.kind

    @property
    def variant(self) -> Any:
        """The mixer's."""
        return getattr(self.inner, "variant", None)

    @property
    def state_spec(self) -> Any:
        """The mixer's, changed."""
        return self.stated(self.inner.state_spec)

    def forward(self, x: Tensor, view: Any) -> Tensor:
        """Mixes."""
        out: Tensor = self.inner(x, view) if self.call is None else self.call(self, x, view)
        return out


def _sees_next(mixer: Broken, x: Tensor, view: Any) -> Tensor:
    return mixer.inner(x + 0.1 * x.roll(-1, 0), view)


def _forgets_between_steps(mixer: Broken, x: Tensor, view: Any) -> Tensor:
    first = (view.positions == 0)[:, None]
    return mixer.inner(x + 0.1 * torch.where(first, 0.0, x.roll(1, 0)), view)


def _mean_of_batch(mixer: Broken, x: Tensor, view: Any) -> Tensor:
    return mixer.inner(x, view) + 0.1 * x.mean(0)


def _counts(mixer: Broken, x: Tensor, view: Any) -> Tensor:
    mixer.count += 1
    return mixer.inner(x, view) * (1 + 0.01 * mixer.count)


def _untrained(mixer: Broken, x: Tensor, view: Any) -> Tensor:
    return (
        mixer.inner(x, view).detach()
        + 0 * x
        + sum((0 * p.sum() for p in list(mixer.parameters())[1:]), torch.zeros(()))
    )


def _commits_everything(self: RecurrentState, kept: Any) -> None:
    self.committed, self._pending = list(self.tip), []


def _mutant(
    bug: str,
    check: str,
    kind: type,
    call: Callable[..., Tensor] | None = None,
    stated: Callable[[Any], Any] = lambda spec: spec,
    **planted: Any,
) -> Mutant:
    subject = Subject(
        "mixers", f"{kind.__name__}, {bug}", lambda *a: Broken(kind(*a), call, stated)
    )
    return Mutant(bug, check, subject, **planted)


def _half(spec: Any) -> Any:
    return replace(spec, elements_per_token=spec.elements_per_token // 2)


def _more(spec: Any) -> Any:
    return replace(spec, constant_elements=spec.constant_elements + 1)


MUTANTS: tuple[Mutant, ...] = (
    _mutant("sees the next token", "causality", SoftmaxMixer, _sees_next),
    _mutant(
        "forgets the last token between steps",
        "incremental-equals-full",
        GatedLinearMixer,
        _forgets_between_steps,
    ),
    _mutant(
        "rejected tokens stay in the state",
        "rollback-is-exact",
        GatedLinearMixer,
        planted=patched(RecurrentState, "commit", _commits_everything),
    ),
    _mutant("adds the mean of the batch", "batch-invariance", SoftmaxMixer, _mean_of_batch),
    _mutant("counts its forwards", "forward-is-pure", GatedLinearMixer, _counts),
    _mutant("states half of its keys", "state-spec-is-true", SoftmaxMixer, stated=_half),
    _mutant("states one number too many", "state-spec-is-true", GatedLinearMixer, stated=_more),
    _mutant("one weight is never trained", "weights-get-gradients", SoftmaxMixer, _untrained),
)
