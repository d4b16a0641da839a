"""Training some parts of a model and keeping the others as they are.

Parts are named by globs over the paths of parameters, in the language of overrides
(:mod:`llama4_core.plugins.overrides`); a glob that addresses a module means everything in it. The
published recipe for eyes, an encoder trained beside a frozen text model, is one line::

    train_only(model, ["vision"])

and ``freeze(model, ["embedding", "layers", "norm", "head"])`` says the same the other way round.
torch builds no graph for what needs none: with frozen eyes the encoder runs as in inference, with a
frozen text model only its activations are kept, and its weights get no gradient.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from llama4_core.errors import OverrideError
from llama4_core.plugins.overrides import Overrides


def freeze(model: nn.Module, globs: Iterable[str]) -> list[str]:
    """Lets no gradient reach the parameters that ``globs`` address; others stay as they are.

    Args:
        model: any module.
        globs: such as ``["embedding", "layers.*.feed_forward.router", "vision.**.weight"]``.

    Returns:
        The names of the addressed parameters, in the order of the model.

    Raises:
        OverrideError: a glob is malformed or addresses no parameter.
    """
    chosen = _addressed(model, globs)
    for parameter in chosen.values():
        parameter.requires_grad_(False)
        # Left from before, a gradient would still be taken by an optimizer.
        parameter.grad = None
    return list(chosen)


def unfreeze(model: nn.Module, globs: Iterable[str]) -> list[str]:
    """Lets gradients reach the parameters that ``globs`` address; others stay as they are.

    Args:
        model: any module.
        globs: as in :func:`freeze`.

    Returns:
        The names of the addressed parameters, in the order of the model.

    Raises:
        OverrideError: a glob is malformed, addresses no parameter, or one of whole numbers (a
            packed weight), which has no gradient.
    """
    chosen = _addressed(model, globs)
    _refuse_whole_numbers(chosen)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return list(chosen)


def train_only(model: nn.Module, globs: Iterable[str]) -> list[str]:
    """Freezes everything but the parameters that ``globs`` address, and unfreezes these.

    Args:
        model: any module.
        globs: as in :func:`freeze`.

    Returns:
        The names of the parameters that are trained, in the order of the model.

    Raises:
        OverrideError: as :func:`unfreeze`; nothing is changed then.
    """
    chosen = _addressed(model, globs)
    _refuse_whole_numbers(chosen)
    freeze(model, ["**"])
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    return list(chosen)


def _addressed(model: nn.Module, globs: Iterable[str]) -> dict[str, nn.Parameter]:
    """Name -> parameter, a shared one under its first name that is addressed."""
    if isinstance(globs, str):
        raise OverrideError(f"globs is the string {globs!r}; expected a list of them: [{globs!r}]")
    wanted = Overrides(dict.fromkeys(globs, "chosen"), "glob", "parameter")
    found: dict[str, nn.Parameter] = {}
    known: dict[str, None] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        segments = name.split(".")
        paths = [".".join(segments[:count]) for count in range(1, len(segments) + 1)]
        known |= dict.fromkeys(paths)
        # All paths are asked, so that each glob that fits counts as used.
        hits = [path for path in paths if wanted.take(path) is not None]
        if hits and not any(parameter is other for other in found.values()):
            found[name] = parameter
    wanted.check_all_used(known)
    return found


def _refuse_whole_numbers(chosen: dict[str, nn.Parameter]) -> None:
    for name, parameter in chosen.items():
        if not (parameter.is_floating_point() or parameter.is_complex()):
            raise OverrideError(
                f"{name} holds {parameter.dtype}, which has no gradient; train a model that is not "
                "quantised"
            )
