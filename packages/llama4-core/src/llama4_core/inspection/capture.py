"""Reading and changing activations of one forward, without leaving hooks behind.

An activation has the path of the module that gives it (``layers.3.feed_forward``), and a few have
a name of their own:

=================================== ==============================================================
``layers.N``                        output of the block, ``[N, D]``
``layers.N.attention.variant.q``    queries as they meet the keys, ``[N, H, K]``; likewise ``.k``
``layers.N.attention.mixed``        what the tokens brought back, before ``o_proj``, ``[N, H K]``
``layers.N.feed_forward.router.*``  ``logits [N, E]``, ``experts [N, K]``, ``weights [N, K]``
``logits``                          of every token, ``[N, V]``, float32
=================================== ==============================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor, nn

from llama4_core.errors import ContextError
from llama4_core.plugins.overrides import Overrides
from llama4_core.protocols.routing import Routing

Patch = Callable[[Tensor, str], "Tensor | None"]
"""``patch(value, path) -> replacement``, of the same shape and dtype, or None to leave it."""

Capture = Iterable[str] | Mapping[str, "Patch | None"]
"""Globs to read, or globs with the function that sees (and may replace) each activation."""

_ROUTING = ("logits", "experts", "weights")


class Captured(NamedTuple):
    """What ``model.logits(tokens, capture=...)`` returns.

    Attributes:
        logits: as without ``capture``.
        values: path -> activation over the flat stream ``[N, ...]``, documents back to back, after
            any replacement; in the order in which they were computed.
    """

    logits: Tensor
    values: dict[str, Tensor]


def activations(model: nn.Module) -> tuple[str, ...]:
    """Every path that can be captured, in module order."""
    found = []
    for path, module in model.named_modules():
        last = path.rpartition(".")[2]
        if not path or isinstance(module, nn.ModuleList) or ".variant." in path:
            continue
        if last == "variant":
            found += [f"{path}.q", f"{path}.k"]
        elif last == "router":
            found += [f"{path}.{name}" for name in _ROUTING]
        else:
            found += [f"{path.rpartition('.')[0]}.mixed"] if last == "o_proj" else []
            found.append(path)
    return (*found, "logits")


class Record:
    """The activations of one forward, as they come by.

    Attributes:
        values: path -> activation.
    """

    def __init__(self, model: nn.Module, capture: Capture) -> None:
        if isinstance(capture, str):
            raise ContextError(
                f"capture is the string {capture!r}; expected a list of globs: [{capture!r}]"
            )
        patches = dict(capture) if isinstance(capture, Mapping) else dict.fromkeys(capture)
        read = Overrides({glob: "read" for glob, f in patches.items() if f is None}, "capture")
        write = Overrides({glob: f for glob, f in patches.items() if f is not None}, "capture")
        self.values: dict[str, Tensor] = {}
        self._patches: dict[str, Patch | None] = {}
        known = activations(model)
        for path in known:
            reading, writing = read.take(path), write.take(path)
            if reading or writing:
                self._patches[path] = writing.value if writing else None
        read.check_all_used(known)
        write.check_all_used(known)

    def wants(self, *paths: str) -> bool:
        """Whether any of the paths is captured."""
        return any(path in self._patches for path in paths)

    def see(self, path: str, value: Tensor) -> Tensor:
        """Keeps an activation if it is captured; returns it, or what a function put in its place.

        Raises:
            ContextError: the path comes by twice, or the replacement has another shape or dtype.
        """
        if path not in self._patches:
            return value
        if path in self.values:
            raise ContextError(
                f"{path} was computed twice in one capture; capture one forward at a time, and "
                "give every layer a module of its own"
            )
        patch = self._patches[path]
        changed = None if patch is None else patch(value, path)
        if changed is not None:
            got = (list(getattr(changed, "shape", ())), getattr(changed, "dtype", type(changed)))
            if got != (list(value.shape), value.dtype):
                raise ContextError(
                    f"the replacement of {path} has shape {got[0]} and dtype {got[1]}; expected "
                    f"{list(value.shape)} and {value.dtype}, or None to leave it"
                )
            value = changed
        self.values[path] = value
        return value

    def check_all_ran(self) -> None:
        """Complains about a function that never ran, because its part was never called.

        Raises:
            ContextError: names the first such path.
        """
        for path, patch in self._patches.items():
            if patch is not None and path not in self.values:
                raise ContextError(
                    f"{path} was not computed in this forward, so its function never ran; capture "
                    "a part that the model calls"
                )


@contextmanager
def capturing(model: nn.Module, capture: Capture) -> Iterator[Record]:
    """Captures during one forward of ``model``; afterwards no hook is left, come what may.

    For whole documents ``model.logits(tokens, capture=...)`` is simpler; this is for forwards with
    a context of one's own. ``logits`` is seen only there: pass it through ``record.see``.

    Args:
        model: a text model. Other threads must not run it meanwhile: they would be captured too.
        capture: globs as in overrides (``*`` is one segment, ``**`` any number), or globs with
            functions ``(value, path) -> replacement or None``.

    Raises:
        OverrideError: a glob matches nothing, or two functions fit one path.
        ContextError: see :class:`Record`.
    """
    record = Record(model, capture)
    with ExitStack() as hooks:
        for path, module in model.named_modules():
            parent, _, last = path.rpartition(".")
            if last == "o_proj" and record.wants(f"{parent}.mixed"):
                before = module.register_forward_pre_hook(_input_hook(record, f"{parent}.mixed"))
                hooks.callback(before.remove)
            names = [path, *(f"{path}.{name}" for name in ("q", "k", *_ROUTING))]
            if record.wants(*names):
                hooks.callback(module.register_forward_hook(_output_hook(record, path)).remove)
        yield record
    record.check_all_ran()


def _input_hook(record: Record, path: str) -> Callable[[nn.Module, Any], Any]:
    def hook(module: nn.Module, inputs: Any) -> Any:
        return (record.see(path, inputs[0]), *inputs[1:])

    return hook


def _output_hook(record: Record, path: str) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        if isinstance(output, Routing):
            seen: dict[str, Any] = {
                name: record.see(f"{path}.{name}", value)
                for name in _ROUTING
                if (value := getattr(output, name)) is not None
            }
            return replace(output, **seen)
        if path.endswith(".variant"):
            q, k = output
            return record.see(f"{path}.q", q), record.see(f"{path}.k", k)
        if isinstance(output, tuple) and isinstance(output[0], Tensor):
            return (record.see(path, output[0]), *output[1:])
        return record.see(path, output) if isinstance(output, Tensor) else output

    return hook
