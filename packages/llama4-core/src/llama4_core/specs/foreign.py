"""Reading somebody else's configuration: every key is taken, or refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from llama4_core.errors import SpecError
from llama4_core.specs.model import is_number
from llama4_core.specs.suggest import nearest


class ForeignKeys:
    """A mapping that knows which of its keys have been understood.

    Args:
        values: the mapping as it was parsed.
        where: file and section, the beginning of every error.
        known: all keys that are understood, for suggestions.

    Raises:
        SpecError: ``values`` is no mapping.
    """

    def __init__(self, values: object, where: str, known: Collection[str]) -> None:
        self.where = where
        if not isinstance(values, Mapping):
            raise SpecError(f"{where} is {values!r}; expected a table of keys and values")
        self._left: dict[str, Any] = dict(values)
        self._known = known

    def __contains__(self, key: str) -> bool:
        """Whether the key is there and not yet taken."""
        return key in self._left

    def fail(self, key: str, got: object, expected: str) -> NoReturn:
        """Raise the error about one key."""
        raise SpecError(f"{self.where}: {key} is {got!r}; expected {expected}")

    def _missing(self, key: str) -> NoReturn:
        raise SpecError(
            f"{self.where}: {key} is missing; add it: the model depends on it and no default "
            "is safe"
        )

    def take(self, key: str, *default: Any) -> Any:
        """The value as it stands, or ``default``; without a default a missing key is an error."""
        if key not in self._left:
            if default:
                return default[0]
            self._missing(key)
        return self._left.pop(key)

    def count(self, key: str, *default: int | None, at_least: int = 1) -> Any:
        """A whole number; null counts as missing."""
        value = self.take(key, *default)
        if value is None:
            if default:
                return default[0]
            self._missing(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            self.fail(key, value, f"a whole number of at least {at_least}")
        return value

    def number(self, key: str, *default: float | None) -> Any:
        """A positive, finite number, as a float; null counts as missing."""
        value = self.take(key, *default)
        if value is None:
            if default:
                return default[0]
            self._missing(key)
        if not is_number(value) or not value > 0:
            self.fail(key, value, "a number above 0")
        return float(value)

    def flag(self, key: str, *default: bool) -> bool:
        """True or false; null counts as missing."""
        value = self.take(key, *default)
        if value is None:
            if default:
                return default[0]
            self._missing(key)
        if not isinstance(value, bool):
            self.fail(key, value, "true or false")
        return bool(value)

    def indices(self, key: str) -> list[int] | None:
        """A list of whole numbers, or None when it is null or missing."""
        value = self.take(key, None)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or any(
            not isinstance(item, int) or isinstance(item, bool) for item in value
        ):
            self.fail(key, value, "a list of whole numbers")
        return list(value)

    def neutral(self, values: Mapping[str, Any], reason: str) -> dict[str, Any]:
        """Keys that are understood with one value only (null is fine too); those that were given.

        Raises:
            SpecError: another value, with ``reason``.
        """
        given: dict[str, Any] = {}
        for key, expected in values.items():
            if key in self._left:
                value = self._left.pop(key)
                if value is None:
                    continue
                if value != expected:
                    self.fail(key, value, f"{expected!r}: {reason}")
                given[key] = value
        return given

    def carried(self, keys: Collection[str]) -> dict[str, Any]:
        """Keys without a meaning to the architecture, kept for writing back; null is dropped."""
        given = {key: self._left.pop(key) for key in keys if key in self._left}
        return {key: value for key, value in given.items() if value is not None}

    def refuse(self, reasons: Mapping[str, str]) -> None:
        """Keys that are never accepted, each with its reason; null is as good as absent.

        Raises:
            SpecError: one is present.
        """
        for key, reason in reasons.items():
            if key in self._left:
                value = self._left.pop(key)
                if value is not None:
                    raise SpecError(f"{self.where}: {key} cannot be honoured: {reason}")

    def finish(self) -> None:
        """Check that nothing is left.

        Raises:
            SpecError: a key is unknown; the nearest known one is suggested.
        """
        for key in self._left:
            raise SpecError(
                f"{self.where}: unknown key {key!r}{nearest(key, self._known)}; every key must be "
                "understood, so correct it, or remove it if the model does not depend on it"
            )
