"""What encoders and adapters have in common under check: modules of plain tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from llama4_core.errors import Llama4Error, ModalityError
from llama4_core.model.initialise import initialise
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.strategies import strided, walled

STEP = {"float64": 1e-4, "float32": 3e-3}
"""Of finite differences: the error is its square times a third derivative, and rounding over it."""

SLOPE = {"float64": 1e-5, "float32": 1e-2}
"""How far a slope may be from the gradient, relative to the gradient's size, at these steps."""

Features = Callable[[Tensor], Tensor]


def fill(module: nn.Module, seed: int = 1) -> None:
    """Random weights that keep the size of activations; norms near one, none of them zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                drawn *= parameter.shape[-1] ** -0.5
            else:
                drawn = 1 + 0.2 * drawn if name.endswith("weight") else 0.3 * drawn
            parameter.copy_(drawn)


def check_alone(features: Features, pieces: Tensor, tolerance: float) -> None:
    """Each piece gives alone, and beside pieces of NaN, what it gives among others."""
    together = features(pieces)
    for row in range(len(pieces)):
        close(features(pieces[row : row + 1]), together[row : row + 1], tolerance, f"{row} alone")
        beside = torch.full_like(pieces, float("nan"))
        beside[row] = pieces[row]
        close(features(beside)[row], together[row], tolerance, f"{row} beside pieces of NaN")


def check_order(features: Features, pieces: Tensor, order: Tensor, tolerance: float) -> None:
    """Permuted pieces give permuted features."""
    close(features(pieces[order]), features(pieces)[order], tolerance, f"order {order.tolist()}")


def check_memory(module: nn.Module, features: Features, pieces: Tensor, tolerance: float) -> None:
    """Strides do not matter, nothing outside is read, and pieces and module stay as they were."""
    before, state = pieces.clone(), copy.deepcopy(module.state_dict())
    expected = features(pieces)
    same(features(pieces), expected, "the same pieces again")
    for change in (strided, walled):
        close(features(change(pieces)), expected, tolerance, f"{change.__name__} pieces")
    same(pieces, before, "pieces after the call")
    for name, value in module.state_dict().items():
        same(value, state[name], f"{name} after the call")


def check_refused(call: Callable[[Tensor], object], wrong: Sequence[tuple[str, Tensor]]) -> None:
    """Each of the inputs is a ModalityError."""
    for what, pieces in wrong:
        try:
            call(pieces)
        except ModalityError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{what} ended in {type(error).__name__}: {error}; expected a ModalityError"
            ) from error
        raise AssertionError(f"{what} was taken; expected a ModalityError")


def check_gradients(module: nn.Module, features: Features, pieces: Tensor, dtype: str) -> None:
    """Every weight and the pieces have a gradient: the slope along a random direction."""
    pieces = pieces.clone().requires_grad_()
    leaves = {"the input": pieces}
    leaves |= {name: p for name, p in module.named_parameters() if p.requires_grad}
    out = features(pieces)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    (out * weights).sum().backward()
    step = STEP[dtype]
    for name, leaf in leaves.items():
        if leaf.grad is None:
            raise AssertionError(f"{name} has no gradient")
        holds(bool(leaf.grad.isfinite().all()), f"the gradient of {name} is not finite")
        direction = torch.randn(leaf.shape, generator=torch.Generator().manual_seed(3)).to(leaf)
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                leaf.add_(direction, alpha=sign * step)
                values.append(float((features(pieces) * weights).double().sum()))
                leaf.sub_(direction, alpha=sign * step)
        slope = (values[0] - values[1]) / (2 * step)
        claimed = float((leaf.grad * direction).double().sum())
        bound = SLOPE[dtype] * (1 + float(leaf.grad.norm()) * leaf.numel() ** 0.5)
        holds(
            abs(slope - claimed) <= bound,
            f"the slope along a direction of {name} is {slope:.6g}, its gradient says "
            f"{claimed:.6g}",
        )


def check_reached(features: Features, pieces: Tensor, dims: tuple[int, ...], what: str) -> None:
    """Over several pieces, each place has some influence; ``dims`` are summed over."""
    pieces = pieces.clone().requires_grad_()
    out = features(pieces)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    (out * weights).sum().backward()
    if pieces.grad is None:
        raise AssertionError("the input has no gradient")
    reach = pieces.grad.abs().sum(dims)
    unread = (reach == 0).nonzero().tolist()
    holds(not unread, f"{len(unread)} {what} change nothing, the first at {unread[:1]}")


def check_weights(
    make: Callable[[], nn.Module], call: Callable[[nn.Module], Tensor], tolerance: float
) -> None:
    """A state dict makes an equal module; what no checkpoint holds can be drawn."""
    module, twin = make(), make()
    fill(twin, 7)
    twin.load_state_dict(module.state_dict(), strict=True)
    # Freshly copied weights may be laid out otherwise, and then be summed in another order.
    close(call(twin), call(module), tolerance, "after loading a state dict")
    for path, part in twin.named_modules():
        own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
        own = [(name, tensor) for name, tensor in own if tensor.is_floating_point()]
        if not own:
            continue
        if not hasattr(part, "reset_parameters"):
            raise AssertionError(
                f"{path or 'the module'} has {own[0][0]!r} and no reset_parameters() to fill it"
            )
        with torch.no_grad():
            for _, tensor in own:
                tensor.fill_(float("nan"))
        part.reset_parameters()
        for name, tensor in own:
            filled = bool(tensor.isfinite().all())
            holds(filled, f"reset_parameters() leaves {path}.{name} unfilled")
    holds(bool(call(twin).isfinite().all()), "drawn weights give features that are not finite")
    initialise(twin, 0)
    drawn = call(twin)
    holds(bool(drawn.isfinite().all()), "random=SEED gives features that are not finite")
    holds(bool((drawn != 0).any()), "random=SEED gives features that are all zero")


def check_export(module: nn.Module, pieces: Tensor, tolerance: float) -> None:
    """``torch.export`` in its strict mode gives a program with the eager features."""
    with torch.no_grad():
        program = torch.export.export(module, (pieces,), strict=True)
        close(_first(program.module()(pieces)), _first(module(pieces)), tolerance, "exported")


def check_compiled(module: nn.Module, pieces: Tensor, tolerance: float) -> None:
    """``torch.compile(fullgraph=True)`` gives the eager features, with and without gradients."""
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(module), backend="aot_eager", fullgraph=True)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            got, expected = _first(compiled(pieces)), _first(module(pieces))
        close(got, expected, tolerance, f"compiled, gradients {grad}")


def refusal_of(build: Callable[..., object], *arguments: object) -> str | None:
    """Why a description is refused, or None."""
    try:
        build(*arguments)
    except Llama4Error as error:
        return str(error)
    return None


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]
