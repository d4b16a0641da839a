"""Assembly: the only place where the catalogue meets the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from llama4_core.errors import SpecError
from llama4_core.model.transformer import Transformer
from llama4_core.plugins.catalogue import Catalogue, catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.plugins.overrides import Overrides
from llama4_core.plugins.report import AssemblyReport
from llama4_core.specs.find import spec_named
from llama4_core.specs.model import ModelSpec

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def assemble(
    spec_or_preset: ModelSpec | str,
    overrides: Mapping[str, Any] | None = None,
    device: str = "meta",
    *,
    dtype: str | None = None,
    run_on: str | None = None,
    plugins: Sequence[str | Path] = (),
) -> Transformer:
    """Builds a model out of the catalogue's components.

    Args:
        spec_or_preset: a description, or the name of a model in the catalogue; ``NAME-text`` is
            its text model alone.
        overrides: slot path globs -> component names, names with settings
            (:class:`~llama4_core.plugins.overrides.Named`) or objects.
        device: where parameters are made; "meta" gives shapes without memory. On another device
            they are not initialised: load weights, or call ``model.initialise``.
        dtype: of the parameters; None for what the description says.
        run_on: device that the backends are chosen for; None for ``device``, or "cpu" on meta.
        plugins: the user's own plugin files.

    Raises:
        SpecError: an unknown dtype or device, or parts that do not fit the description.
        ComponentError: a part is unknown, refused or ambiguous.
        OverrideError: an override addresses nothing, or two clash.
    """
    known = catalogue().with_local(*plugins) if plugins else catalogue()
    spec = spec_named(spec_or_preset, known) if isinstance(spec_or_preset, str) else spec_or_preset
    dtype = dtype or spec.dtype
    if dtype not in DTYPES:
        raise SpecError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    target = usable_device(device)
    runs_on = run_on or ("cpu" if target.type == "meta" else target.type)
    parts = Assembler(
        known,
        Overrides(overrides),
        dtype=dtype,
        device=runs_on,
        report=AssemblyReport(spec.name, dtype, runs_on),
    )
    with making(target, DTYPES[dtype]):
        model = Transformer(spec, parts)
    parts.finish()
    model.report = parts.report
    model.catalogue = known
    return model.eval()


def usable_device(name: str) -> torch.device:
    """The device of this name.

    Raises:
        SpecError: torch knows no such device, or cannot use it here.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(
            f"device is {name!r}, which torch cannot use here ({reason}); expected 'cpu', 'cuda' "
            "where there is a GPU, or another device that `llama4 doctor` lists"
        ) from error
    return device


def cache_factory(name: str, known: Catalogue) -> Callable[..., Any]:
    """The cache component ``name``, ready to be called."""
    parts = Assembler(known, Overrides({}), dtype="float32", device="cpu")
    return parts.factory("caches", "cache", name)


@contextmanager
def making(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Modules that are built in this context have their parameters there, in this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device, _NothingToDraw() if device.type == "meta" else nullcontext():
            yield
    finally:
        torch.set_default_dtype(before)


class _NothingToDraw(TorchFunctionMode):
    """Skips random filling: on the meta device torch's own does nothing but import its compiler.

    That import takes seconds (measured 4 to 12), loading a mapped checkpoint milliseconds.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        filling = getattr(func, "__module__", "") == "torch.nn.init" and func.__name__.endswith("_")
        if filling or func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
