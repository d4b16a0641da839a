"""What each trained parameter is."""

from __future__ import annotations

from torch import nn

from llama4_train.protocols import Parameter

ROLES = ("embedding", "head", "router", "vector", "matrix", "experts")


def parameters_of(model: nn.Module) -> list[Parameter]:
    """Every parameter that requires a gradient, with its role, in the order of the model.

    A role follows from the modules that hold the parameter and from its shape, not from its name:
    a router is what has ``after_step``, with all that is in it; a stack of experts has three axes.
    Only the head and the learned positions of an encoder are told by name. A weight that is used
    twice, such as a tied embedding, is listed once, where the model names it first.
    """
    routers = tuple(path for path, module in model.named_modules() if hasattr(module, "after_step"))
    found: list[Parameter] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        in_router = any(path == router or path.startswith(f"{router}.") for router in routers)
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{path}.{name}" if path else name
            role = _role(path, name, module, parameter, in_router)
            found.append(Parameter(full, parameter, role))
    return found


def _role(path: str, name: str, module: nn.Module, parameter: nn.Parameter, in_router: bool) -> str:
    if parameter.dim() < 2:
        return "vector"
    if in_router:
        return "router"
    if isinstance(module, nn.Embedding) or name == "positional_embedding":
        return "embedding"
    if path == "head":
        return "head"
    return "experts" if parameter.dim() == 3 else "matrix"
