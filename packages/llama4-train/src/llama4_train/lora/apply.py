"""Adding fresh adapters to the weights that globs address."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from torch import nn

from llama4_core.errors import OverrideError
from llama4_core.plugins.overrides import Overrides
from llama4_train.errors import TrainingError
from llama4_train.lora.attach import Adapted, Adapters, adapted, attach, places, refusal
from llama4_train.lora.low_rank import LowRank


def apply_lora(
    model: nn.Module,
    rank: int,
    alpha: float,
    targets: Iterable[str],
    dropout: float = 0.0,
    *,
    seed: int = 0,
) -> list[Adapted]:
    """Adds an adapter to every matrix that ``targets`` address, and freezes everything else.

    ``W x`` becomes ``W x + (alpha / rank) B A x``, of experts each with matrices of its own. A is
    drawn, B is zero: the model computes what it did before. Adapters that it has already stay and
    stay trained, so experts may get another rank than attention by a second call.

    Args:
        model: any module of linear projections and banks of stacked experts.
        rank: of each adapter.
        alpha: see above.
        targets: globs over modules and parameters, in the language of overrides, such as
            ``["layers.*.attention.*_proj", "layers.*.feed_forward", "vision.projector"]``. A
            module means every matrix in it that can have an adapter; routers, norms and embeddings
            have none.
        dropout: probability with which an input of A is dropped in training.
        seed: of the drawn numbers; each adapter's follow from it and from the parameter's name.

    Returns:
        What was adapted, in the order of the model.

    Raises:
        OverrideError: a glob is malformed, or addresses nothing that can have an adapter.
        TrainingError: rank, alpha or dropout is out of range, or a target has an adapter already.
            Nothing is changed then.
    """
    _check(rank, alpha, dropout)
    if isinstance(targets, str):
        raise OverrideError(f"targets is the string {targets!r}; expected a list: [{targets!r}]")
    chosen = _chosen(model, list(targets))
    fresh: list[tuple[nn.Module, Adapters]] = []
    for name, (module, parameter) in chosen.items():
        adapter = LowRank(getattr(module, parameter), rank, alpha, dropout)
        # The same whatever else is adapted.
        adapter.reset(seed * 1_000_003 + zlib.crc32(name.encode()))
        fresh.append((module, Adapters({parameter: adapter.train(module.training)})))
    for module, adapters in fresh:
        attach(module, adapters)
    freeze_rest(model)
    return [one for one in adapted(model) if one.name in chosen]


def freeze_rest(model: nn.Module) -> None:
    """Lets gradients reach adapters alone."""
    kept = {id(p) for place in places(model) for p in place.adapter.parameters()}
    for parameter in model.parameters():
        if id(parameter) in kept:
            parameter.requires_grad_(True)
        else:
            parameter.requires_grad_(False)
            # Left from before, a gradient would still be taken by an optimizer.
            parameter.grad = None


def check_free(model: nn.Module, names: Iterable[str]) -> None:
    """Complains about a parameter that has an adapter.

    Raises:
        TrainingError: names the first.
    """
    taken = {place.name: place for place in places(model)}
    for name in names:
        if name in taken:
            state = "merged into it" if taken[name].merged else "on it"
            raise TrainingError(
                f"{name} has an adapter {state} already; take it off with llama4_train.lora.remove,"
                " which keeps what is merged"
            )


def _check(rank: int, alpha: float, dropout: float) -> None:
    if rank < 1:
        raise TrainingError(f"rank is {rank}; expected at least 1")
    if not alpha > 0:
        raise TrainingError(f"alpha is {alpha}; expected a number above 0, such as the rank")
    if not 0 <= dropout < 1:
        raise TrainingError(f"dropout is {dropout}; expected a probability below 1")


def _chosen(model: nn.Module, targets: list[str]) -> dict[str, tuple[nn.Module, str]]:
    """Name of the parameter -> module and name in it, of everything that gets an adapter."""
    if not targets:
        raise OverrideError("targets is empty; expected globs such as 'layers.*.attention'")
    modules = dict(model.named_modules())
    found: dict[str, tuple[nn.Module, str]] = {}
    for glob in targets:
        wanted = Overrides({glob: "chosen"}, "target", "parameter")
        refused: dict[str, str] = {}
        fits = False
        known: dict[str, None] = {}
        for name, _ in model.named_parameters(remove_duplicate=False):
            segments = name.split(".")
            paths = [".".join(segments[:count]) for count in range(1, len(segments) + 1)]
            known |= dict.fromkeys(paths)
            if all(wanted.take(path) is None for path in paths):
                continue
            path, _, parameter = name.rpartition(".")
            reason = refusal(model, modules[path], parameter)
            if reason is None:
                fits = True
                found[name] = (modules[path], parameter)
            else:
                refused[name] = reason
        wanted.check_all_used(known)
        if not fits:
            name, reason = next(iter(refused.items()))
            raise OverrideError(
                f"target {glob!r} addresses nothing that can have an adapter: {name} {reason}; "
                "expected projections or experts, such as 'layers.*.attention'"
            )
    ordered = {name: found[name] for name, _ in model.named_parameters() if name in found}
    check_free(model, ordered)
    return ordered
