"""The assembly report: what runs in every slot, from whom, and why the others do not."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

# Longer slot names stand on a line of their own, so that the second column stays near.
_NAME_WIDTH = 36


@dataclass(frozen=True)
class Provider:
    """Who a part comes from.

    Attributes:
        name: bare name of the component, or the type of an object.
        distribution, version: of the plugin; a local file is "local:<file>" and "sha256:<hash>", an
            object handed in is "object" and its repr.
    """

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        if self.distribution == "object":
            return f"an object handed in: {self.version}"
        shown = self.version[:19] if self.version.startswith("sha256:") else self.version
        return f"{self.distribution} {shown}"


@dataclass(frozen=True)
class Row:
    """What runs in one regime; ``error`` says why nothing does."""

    regime: str
    provider: Provider | None
    error: str = ""


@dataclass(frozen=True)
class Refusal:
    """Why a candidate does not run in these regimes."""

    name: str
    regimes: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Choice:
    """One slot: what was asked for, what runs, who was refused."""

    socket: str
    asked: str
    override: str
    rows: tuple[Row, ...]
    refused: tuple[Refusal, ...] = ()


@dataclass
class AssemblyReport:
    """Slot by slot, in the order of assembly.

    Attributes:
        model: name of the model.
        dtype, device: what it was assembled for.
        choices: slot path -> choice.
    """

    model: str = ""
    dtype: str = ""
    device: str = ""
    choices: dict[str, Choice] = field(default_factory=dict)

    def record(self, slot: str, choice: Choice) -> None:
        """Notes the choice for one slot."""
        self.choices[slot] = choice

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "model": self.model,
            "dtype": self.dtype,
            "device": self.device,
            "slots": {slot: asdict(choice) for slot, choice in self.choices.items()},
        }

    def to_json(self) -> str:
        """The report as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_text(self) -> str:
        """The report for people; layers that agree share a line (``layers.0-2,4-6``)."""
        merged: dict[tuple[str, str, Choice], list[int]] = {}
        for slot, choice in self.choices.items():
            before, number, after = _split(slot)
            numbers = merged.setdefault((before, after, choice), [])
            if number is not None:
                numbers.append(number)
        order: dict[tuple[str, str], int] = {}
        for before, after, _ in merged:
            order.setdefault((before, after), len(order))
        rows = sorted(merged.items(), key=lambda row: (order[row[0][:2]], row[1][:1]))
        named = [
            (f"{before}{ranges(numbers)}{after}", choice)
            for (before, after, choice), numbers in rows
        ]
        width = min(_NAME_WIDTH, max((len(name) for name, _ in named), default=0))
        lines = [f"{self.model or 'model'}: {self.dtype or 'dtype unset'} on {self.device}"]
        for name, choice in named:
            if len(name) > width:
                lines.append(f"  {name}")
                name = ""
            lines += _lines(name.ljust(width), choice)
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.to_text()


def ranges(numbers: list[int]) -> str:
    """``[0, 1, 2, 4, 5, 6]`` as ``"0-2,4-6"``."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _split(slot: str) -> tuple[str, int | None, str]:
    """Splits at the first index: ``("layers.", 3, ".attention")``."""
    segments = slot.split(".")
    for place, segment in enumerate(segments):
        if segment.isdecimal():
            before, after = segments[:place], segments[place + 1 :]
            return "".join(f"{s}." for s in before), int(segment), "".join(f".{s}" for s in after)
    return slot, None, ""


def _lines(name: str, choice: Choice) -> list[str]:
    indent = " " * (len(name) + 4)
    why = f"   (override {choice.override})" if choice.override else ""
    first, *more = choice.rows
    if not more and first.regime == "always":
        lines = [f"  {name}  {_ran(first)}{why}"]
    else:
        lines = [f"  {name}  by regime{why}"]
        lines += [f"{indent}  {row.regime}: {_ran(row)}" for row in choice.rows]
    for refusal in choice.refused:
        when = f" ({'; '.join(refusal.regimes)})" if refusal.regimes else ""
        lines.append(f"{indent}  not {refusal.name}{when}: {refusal.reason}")
    return lines


def _ran(row: Row) -> str:
    if row.provider is None:
        return f"nothing: {row.error}"
    return f"{row.provider.name}  [{row.provider}]"
