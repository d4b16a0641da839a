"""What an evaluation found: figures with their intervals. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number.

    Attributes:
        name: what it is of: a kind of question, a source, a length.
        metric: "accuracy", "score", "perplexity", "bits_per_byte", ...
        value: the number.
        count: of questions or tokens behind it.
        low, high: ends of its 95 % interval, or None.
        chance, majority: what players reach who do not look, or None.
        facts: further numbers about it.
    """

    name: str
    metric: str
    value: float
    count: int = 0
    low: float | None = None
    high: float | None = None
    chance: float | None = None
    majority: float | None = None
    facts: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What one task found.

    Attributes:
        task: its name.
        label: its name in reports; two tasks never share it.
        settings: JSON values.
        figures: in order.
    """

    task: str
    label: str
    settings: Mapping[str, Any]
    figures: tuple[Figure, ...]

    def flat(self) -> dict[str, float]:
        """``LABEL.NAME.METRIC`` -> number."""
        return {f"{self.label}.{one.name}.{one.metric}": one.value for one in self.figures}

    def plain(self) -> dict[str, Any]:
        """JSON values, without what is None or empty."""
        figures = [
            {key: value for key, value in asdict(one).items() if value is not None and value != {}}
            for one in self.figures
        ]
        return {
            "task": self.task,
            "label": self.label,
            "settings": dict(self.settings),
            "figures": figures,
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Result:
        """What :meth:`plain` was made from."""
        figures = tuple(Figure(**one) for one in values["figures"])
        return cls(values["task"], values["label"], values["settings"], figures)


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """A table of figures for people, with its head."""
    found: list[tuple[str, ...]] = [
        ("task", "of", "figure", "value", "95 % interval", "n", "chance", "majority")
    ]
    for result in results:
        for one in result.figures:
            between = "" if one.low is None else f"{number(one.low)} to {number(one.high)}"
            found.append(
                (
                    result.label,
                    one.name,
                    one.metric.replace("_", " "),
                    number(one.value),
                    between,
                    f"{one.count:,}" if one.count else "",
                    number(one.chance),
                    number(one.majority),
                )
            )
    return found


def number(value: float | None) -> str:
    """Three places, or four digits of what is large; nothing for None."""
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}"
