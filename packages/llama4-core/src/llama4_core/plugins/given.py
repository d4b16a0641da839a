"""What an override gives: a component with settings of the user's own, or an object."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import Any

from llama4_core.errors import OverrideError
from llama4_core.plugins.catalogue import Entry
from llama4_core.plugins.overrides import Override
from llama4_core.specs.suggest import nearest


def with_settings(entry: Entry, override: Override) -> Entry:
    """The entry, built with the settings of the override beside its own.

    Raises:
        OverrideError: its target has no such setting.
    """
    if not override.settings:
        return entry
    try:
        known = tuple(inspect.signature(entry.component.load()).parameters.values())
    except ValueError:  # built-in callables without a signature
        known = ()
    names = [one.name for one in known if one.default is not one.empty]
    free = not known or any(one.kind is one.VAR_KEYWORD for one in known)
    for name in override.settings:
        if name not in names and not free:
            raise OverrideError(
                f"override {override.glob!r}: {entry.name} has no setting {name!r}"
                f"{nearest(name, names)}; it has {', '.join(names) or 'none'}"
            )
    settings = {**entry.component.settings, **override.settings}
    return dataclasses.replace(
        entry, component=dataclasses.replace(entry.component, settings=settings)
    )


def from_object(override: Override, *args: Any, **kwargs: Any) -> Any:
    """An override's value as a part: a class or function is called, anything else is the part."""
    value = override.value
    if not (inspect.isclass(value) or inspect.isroutine(value) or _is_partial(value)):
        return value
    try:
        inspect.signature(value).bind(*args, **kwargs)
    except TypeError as error:
        raise OverrideError(
            f"override {override.glob!r}: {value!r} cannot be called to build the part: {error}; "
            "expected a class or function that takes what the socket passes, or a ready object"
        ) from error
    except ValueError:  # built-in callables without a signature
        pass
    return value(*args, **kwargs)


def _is_partial(value: Any) -> bool:
    return isinstance(value, functools.partial)
