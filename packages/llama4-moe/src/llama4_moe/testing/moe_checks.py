"""What a mixture of experts has to survive in other people's training code.

Each check takes a factory ``make() -> nn.Module`` whose module maps ``[..., D]`` to the same shape,
deterministically initialised, and the width D. A module that also takes ``return_routing=True`` is
checked for its routing. Failures are ``AssertionError`` with a sentence.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Factory = Callable[[], nn.Module]


def tokens(width: int, *shape: int, seed: int = 0) -> Tensor:
    """Seeded tokens ``[*shape, width]``."""
    return torch.randn(*shape, width, generator=torch.Generator().manual_seed(seed))


def check_shapes(make: Factory, width: int) -> None:
    """Any leading shape, empty included, equals the flat form."""
    module = make()
    for shape in ((), (1,), (5,), (2, 3), (2, 1, 2), (0,), (2, 0)):
        x = tokens(width, *shape)
        y = module(x)
        assert y.shape == x.shape, f"input {list(x.shape)} gave output {list(y.shape)}"
        flat = module(x.reshape(-1, width)).reshape(x.shape)
        # The same rows in the same order: the same arithmetic.
        assert torch.equal(y, flat), f"shape {list(x.shape)} changes the result"


def check_autocast(make: Factory, width: int) -> None:
    """Under bfloat16 autocast: finite, near the float32 result, float32 gradients everywhere."""
    module = make()
    x = tokens(width, 32)
    want = module(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = module(x)
    # bfloat16 keeps 8 bits; two products and a gate in a row stay within a few of its steps. The
    # median token, because a routing may flip on a near tie.
    error = ((got.float() - want).norm(dim=-1) / want.norm(dim=-1)).median()
    assert error < 0.05, f"autocast is off by {error:.3f} of the result at the median token"
    got.float().square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient under autocast"
        assert parameter.grad.dtype == parameter.dtype, f"{name}: gradient {parameter.grad.dtype}"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"


def check_compile(make: Factory, width: int) -> None:
    """``torch.compile(fullgraph=True)`` gives the eager output and gradients."""
    module = make()
    twin = copy.deepcopy(module)
    x = tokens(width, 12).to(next(module.parameters()).dtype)
    want, got = module(x), torch.compile(twin, backend="aot_eager", fullgraph=True)(x)
    # The captured backend may differ from the eager one: other sums of the same terms, a few steps
    # of the dtype.
    step = 8 * torch.finfo(x.dtype).eps
    torch.testing.assert_close(got, want, rtol=step, atol=step * float(want.detach().abs().max()))
    want.square().sum().backward()
    got.square().sum().backward()
    for (name, a), b in zip(module.named_parameters(), twin.parameters(), strict=True):
        assert a.grad is not None, f"{name} has no gradient"
        assert b.grad is not None, f"{name} has no gradient when compiled"
        # Sums over tokens on top.
        scale = 4 * step * float(a.grad.abs().max())
        torch.testing.assert_close(b.grad, a.grad, rtol=4 * step, atol=scale)


def check_activation_checkpointing(make: Factory, width: int) -> None:
    """Recomputing the forward changes neither gradients nor state: forward is pure."""
    plain, again = make(), make()
    x = tokens(width, 16)
    before = {name: value.clone() for name, value in again.named_buffers()}
    results = []
    for module, recompute in ((plain, False), (again, True)):
        rows = x.clone().requires_grad_()
        y = checkpoint(module, rows, use_reentrant=False) if recompute else module(rows)
        y.square().sum().backward()
        results.append([rows.grad, *(parameter.grad for parameter in module.parameters())])
    for a, b in zip(*results, strict=True):
        assert a is not None, "a gradient is missing"
        assert b is not None, "a gradient is missing with activation checkpointing"
        assert torch.equal(a, b), "activation checkpointing changes a gradient"
    for name, value in again.named_buffers():
        assert torch.equal(value, before[name]), f"forward changed the buffer {name}"


def check_unvisited_experts_have_gradients(make: Factory, width: int) -> None:
    """One token, and no token at all, give every parameter a gradient (zeros count).

    Data-parallel training waits for the gradient of every parameter on every rank.
    """
    for count in (1, 0):
        module = make()
        module(tokens(width, count)).sum().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient with {count} token(s)"


CHECKS: dict[str, Callable[[Factory, int], None]] = {
    "shapes": check_shapes,
    "autocast": check_autocast,
    "compile": check_compile,
    "activation-checkpointing": check_activation_checkpointing,
    "unvisited-experts": check_unvisited_experts_have_gradients,
}
