"""Bugs of optimizers, planted into AdamW and Muon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant, patched
from llama4_train.optimizers import adamw as adamw_module
from llama4_train.optimizers import masters as masters_module
from llama4_train.optimizers import muon as muon_module
from llama4_train.optimizers.adamw import adamw
from llama4_train.optimizers.masters import Masters
from llama4_train.optimizers.muon import muon, orthogonalise
from llama4_train.optimizers.together import Together
from llama4_train.protocols import Parameter

Change = Callable[[Any, Sequence[Parameter]], None]


class Broken:
    """An optimizer, changed around its steps.

    Args:
        inner: the optimizer.
        parameters: that it was built with.
        before, after: called around every step.
    """

    def __init__(
        self,
        inner: Any,
        parameters: Sequence[Parameter],
        before: Change | None,
        after: Change | None,
    ) -> None:
        self.inner, self.parameters = inner, parameters
        self.before, self.after = before, after
        self.load_state_dict, self.zero_grad = inner.load_state_dict, inner.zero_grad
        self.state_dict = inner.state_dict

    @property
    def param_groups(self) -> Any:
        """Those of the inner optimizer."""
        return self.inner.param_groups

    @torch.no_grad()
    def step(self) -> None:
        """Steps between the changes."""
        if self.before is not None:
            self.before(self.inner, self.parameters)
        self.inner.step()
        if self.after is not None:
            self.after(self.inner, self.parameters)


def _before(change: Change, build: Any = adamw) -> Callable[..., Any]:
    return lambda parameters, lr: Broken(build(parameters, lr), parameters, change, None)


def _after(change: Change) -> Callable[..., Any]:
    return lambda parameters, lr: Broken(adamw(parameters, lr), parameters, None, change)


def _no_base(parameters: Sequence[Parameter], lr: float) -> Any:
    return torch.optim.AdamW([one.value for one in parameters], lr=lr)


def _another_rate(parameters: Sequence[Parameter], lr: float) -> Any:
    return adamw(parameters, lr / 3)


def _without(*roles: str) -> Callable[..., Any]:
    def build(parameters: Sequence[Parameter], lr: float) -> Any:
        return adamw([one for one in parameters if one.role not in roles] or parameters, lr)

    return build


def _twice(parameters: Sequence[Parameter], lr: float) -> Any:
    matrices = [one for one in parameters if one.role == "matrix"]
    return Together([adamw(parameters, lr), adamw(matrices or parameters, lr)])


def _uphill(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    for one in parameters:
        if one.value.grad is not None:
            one.value.grad.neg_()


def _vectors_uphill(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    _uphill(optimizer, [one for one in parameters if one.role == "vector"])


def _own_rate(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"]


def _decays(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    for one in parameters:
        one.value.mul_(0.99)


def _decays_by_base(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    for one in parameters:
        if one.value.grad is not None:
            one.value.mul_(0.99)


def _zeros(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    for one in parameters:
        if one.value.grad is None:
            one.value.grad = torch.zeros_like(one.value)


def _scales_gradients(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    for one in parameters:
        if one.value.grad is not None:
            one.value.grad.mul_(0.5)


def _clips(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    torch.nn.utils.clip_grad_norm_([one.value for one in parameters], 1.0)


def _needs_matrices(parameters: Sequence[Parameter], lr: float) -> Any:
    groups = [
        {"params": [one.value for one in parameters if one.role in roles], "base_lr": lr}
        for roles in (("matrix", "experts"), ("vector", "embedding", "head", "router"))
    ]
    if not all(group["params"] for group in groups):
        raise ValueError("empty parameter list")
    return torch.optim.AdamW(groups, lr=lr)


def _one_matrix(matrices: Tensor) -> Tensor:
    return orthogonalise(matrices.flatten(0, -2)).view_as(matrices)


def _common_norm(matrices: Tensor) -> Tensor:
    return orthogonalise(matrices) * (matrices.norm(dim=(-2, -1), keepdim=True) / matrices.norm())


def _normalised(matrices: Tensor) -> Tensor:
    return matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)


def _no_masters(parameters: Sequence[Parameter], lr: float) -> Any:
    return adamw(parameters, lr, masters=False)


class _Forgetful(Masters):
    """Takes the copies from the rounded weights, before every step."""

    @torch.no_grad()
    def step(self) -> None:
        """Steps from the rounded weights."""
        for parameter, master in self.pairs:
            master.copy_(parameter)
        super().step()


class _Unsaved(Masters):
    """Keeps its copies to itself."""

    def state_dict(self) -> dict[str, Any]:
        """The rounded copies."""
        state = super().state_dict()
        return {**state, "masters": [one.bfloat16().float() for one in state["masters"]]}


class _NoMoments(Together):
    """Stores nothing of its moments."""

    def state_dict(self) -> dict[str, Any]:
        """Groups without state."""
        members = super().state_dict()["members"]
        return {"members": [{**one, "state": {}} for one in members]}


class _Objects(Together):
    """Stores objects."""

    def state_dict(self) -> dict[str, Any]:
        """The state, and what it is of."""
        return {**super().state_dict(), "kind": type(self)}


def _wrapped(kind: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    return lambda parameters, lr: kind([adamw(parameters, lr)])


def _noise(optimizer: Any, parameters: Sequence[Parameter]) -> None:
    for one in parameters:
        if one.value.grad is not None:
            one.value.grad.add_(torch.randn_like(one.value), alpha=0.01)


def _slow_matrices(parameters: Sequence[Parameter], lr: float) -> Any:
    # Half the rate for a stack, "because its experts are many".
    inner = adamw(parameters, lr)
    if any(one.role == "experts" for one in parameters):
        for group in inner.param_groups:
            group["lr"] = group["base_lr"] = lr / 2
    return inner


def _mutant(check: str, bug: str, build: Callable[..., Any], **settings: Any) -> Mutant:
    # Under the name that the published laws hold for.
    name = "muon" if build is muon else "adamw"
    subject = Subject("optimizers", name, build, distribution="llama4-train")
    return Mutant(bug, check, subject, **settings)


def _masters(kind: type[Masters]) -> dict[str, Any]:
    return {"planted": patched(masters_module, "Masters", kind)}


def _orthogonal(by: Callable[[Tensor], Tensor]) -> dict[str, Any]:
    return {"planted": patched(muon_module, "orthogonalise", by)}


def _decayed(*roles: str) -> dict[str, Any]:
    return {"planted": patched(adamw_module, "NOT_DECAYED", roles)}


MUTANTS: tuple[Mutant, ...] = (
    _mutant("groups-of-the-contract", "groups without base_lr", _no_base),
    _mutant("groups-of-the-contract", "a third of the rate", _another_rate),
    _mutant("groups-of-the-contract", "leaves the router out", _without("router")),
    _mutant("groups-of-the-contract", "matrices twice", _twice),
    _mutant("descends", "the other sign", _before(_uphill)),
    _mutant("descends", "the other sign for vectors", _before(_vectors_uphill)),
    _mutant("descends", "leaves the head out", _without("head")),
    _mutant("the-rate-is-obeyed", "always base_lr", _before(_own_rate)),
    _mutant("the-rate-is-obeyed", "decay apart from the rate", _before(_decays_by_base)),
    _mutant("only-what-has-a-gradient-moves", "no gradient is zero", _before(_zeros)),
    _mutant("only-what-has-a-gradient-moves", "decays all", _before(_decays)),
    _mutant("only-what-has-a-gradient-moves", "scales gradients", _before(_scales_gradients)),
    _mutant("only-what-has-a-gradient-moves", "leaves the head out", _without("head")),
    _mutant("roles-are-enough-alone", "empty groups", _needs_matrices),
    _mutant("roles-are-enough-alone", "clips all together", _before(_clips, muon)),
    _mutant("experts-are-for-themselves", "one tall matrix", muon, **_orthogonal(_one_matrix)),
    _mutant("experts-are-for-themselves", "a common norm", muon, **_orthogonal(_common_norm)),
    _mutant("small-updates-are-kept", "no masters", _no_masters),
    _mutant("small-updates-are-kept", "masters from weights", adamw, **_masters(_Forgetful)),
    _mutant("resumes-bit-equal", "moments are not stored", _wrapped(_NoMoments)),
    _mutant("resumes-bit-equal", "masters are not stored", adamw, **_masters(_Unsaved)),
    _mutant("resumes-bit-equal", "stores a class", _wrapped(_Objects)),
    _mutant("deterministic", "noise", _before(_noise)),
    _mutant("published-decay", "vectors decay", adamw, **_decayed("embedding")),
    _mutant("published-decay", "embeddings decay", adamw, **_decayed("vector")),
    _mutant("published-decay", "matrices do not", adamw, **_decayed("matrix")),
    _mutant("published-stack", "half the rate", _slow_matrices),
    _mutant("published-stack", "one tall matrix", muon, **_orthogonal(_one_matrix)),
    _mutant("published-orthogonality", "unit norm", muon, **_orthogonal(_normalised)),
)
