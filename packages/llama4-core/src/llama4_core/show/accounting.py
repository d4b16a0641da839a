"""Where a model's parameters are, and how a user's keys and values grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llama4_core.show.drawing import COLOURS, bar, blank_figure, plain, segments
from llama4_core.specs.accounting import (
    LENGTHS,
    Accounting,
    KeyValueBytes,
    account,
    cache_bytes,
    states_of,
)
from llama4_core.specs.model import ModelSpec

_GIB = 2**30
_BAR = 64
_LETTERS = {
    "embedding": "e",
    "head": "h",
    "attention": "a",
    "router": "r",
    "routed_experts": "E",
    "shared_experts": "S",
    "dense_feed_forward": "D",
    "norms": "n",
    "vision_encoder": "v",
    "vision_adapter": "v",
    "vision_projector": "v",
}


@dataclass(frozen=True)
class Costs:
    """What :func:`costs_of` finds.

    Attributes:
        name: of the model.
        account: its accounting.
        parts: parameters of the parts that there are, in the order of the model.
        growth: keys and values of one user, at lengths that double from 1K to 10M.
    """

    name: str
    account: Accounting
    parts: Mapping[str, int]
    growth: tuple[KeyValueBytes, ...]

    def plain(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        return {
            "name": self.name,
            "parameters": dict(self.parts),
            "total": self.account.total,
            "active": self.account.active,
            "unknown": list(self.account.unknown),
            "weight_bytes": dict(self.account.weight_bytes),
            "cache_bytes": [
                {"length": x.length, "bounded": x.bounded, "full": x.full} for x in self.growth
            ],
        }


def costs_of(spec: ModelSpec) -> Costs:
    """Counts a description.

    Raises:
        SpecError: a mixer whose parameters are not known.
    """
    found = account(spec)
    states = states_of(spec)
    lengths = sorted({1024 << doubling for doubling in range(14)} | set(LENGTHS))
    return Costs(
        spec.name,
        found,
        {name: count for name, count in found.parts.items() if count},
        tuple(cache_bytes(states, length) for length in lengths),
    )


def text(costs: Costs) -> str:
    """Bars of characters: shares of the parameters, and the growth of one user's cache."""
    account = costs.account
    sizes = segments(list(costs.parts.values()), _BAR)
    strip = "".join(
        _LETTERS.get(name, "?") * size for name, size in zip(costs.parts, sizes, strict=True)
    )
    lines = [
        f"{costs.name}: {account.total / 1e9:.3f}B parameters, {account.active / 1e9:.3f}B active",
        "",
        f"  [{strip}]",
    ]
    most = max(costs.parts.values())
    for name, count in costs.parts.items():
        share = count / account.total
        lines.append(
            f"  {_LETTERS.get(name, '?')} {name.replace('_', ' '):18}  {count / 1e9:>9.4f}B  "
            f"{share:6.2%}  {bar(count / most, 32)}".rstrip()
        )
    if account.unknown:
        lines.append(f"  not counted, as only the component knows: {', '.join(account.unknown)}")
    lines += ["", "keys and values of ONE user, bf16: bounded by the masks | kept whole"]
    shown = [x for x in costs.growth if x.length in LENGTHS]
    top = max(x.full for x in shown)
    for x in shown:
        lines.append(
            f"  {_short(x.length):>4}  {x.bounded / _GIB:>8.2f} GiB  {bar(x.bounded / top, 24)}  | "
            f"{x.full / _GIB:>8.2f} GiB  {bar(x.full / top, 24)}".rstrip()
        )
    weights = account.weight_bytes
    lines += [
        "",
        "weights: " + ", ".join(f"{name} {size / _GIB:.1f} GiB" for name, size in weights.items()),
    ]
    return "\n".join(lines)


def draw(costs: Costs) -> Any:
    """Stacked bars of parameters at the left, growth of keys and values at the right."""
    figure = blank_figure(10, 4.4)
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.25])
    big = {name: n for name, n in costs.parts.items() if n >= 0.005 * costs.account.total}
    big["the rest"] = costs.account.total - sum(big.values())
    base = 0.0
    for index, (name, count) in enumerate((k, v) for k, v in big.items() if v):
        size = count / 1e9
        label = f"{name.replace('_', ' ')}  {size:.3g}B"
        left.bar(0, size, bottom=base, width=0.6, color=COLOURS[index % 8], label=label)
        base += size
    left.bar(1, costs.account.active / 1e9, width=0.6, color="#9aa4ae")
    left.set_xticks(
        [0, 1],
        [
            f"all\n{costs.account.total / 1e9:.4g}B",
            f"active\nper token\n{costs.account.active / 1e9:.4g}B",
        ],
    )
    left.set_title(f"{costs.name}: billions of parameters", fontsize=11, loc="left")
    handles, labels = left.get_legend_handles_labels()
    left.set_xlim(-0.5, 3.1)
    left.legend(handles[::-1], labels[::-1], frameon=False, fontsize=9, loc="upper right")
    plain(left)

    lengths = [x.length for x in costs.growth]
    for kept, colour, label in (
        ("full", "#9aa4ae", "every layer keeps everything"),
        ("bounded", COLOURS[0], "bounded by the masks"),
    ):
        sizes = [getattr(x, kept) / _GIB for x in costs.growth]
        right.plot(lengths, sizes, color=colour, marker=".", label=label)
    for (name, size), colour in zip(
        costs.account.weight_bytes.items(), (COLOURS[5], COLOURS[1], COLOURS[2]), strict=False
    ):
        right.axhline(
            size / _GIB, color=colour, linewidth=1, linestyle=":", label=f"{name} weights"
        )
    right.set_xscale("log", base=2)
    right.set_yscale("log")
    right.set_xticks(LENGTHS, [_short(length) for length in LENGTHS])
    right.set_xlabel("tokens of one user")
    right.set_ylabel("GiB")
    right.set_title("keys and values of one user, bf16", fontsize=11, loc="left")
    right.grid(color="#e3e7eb")
    right.legend(frameon=False, fontsize=9)
    plain(right)
    return figure


def _short(number: int) -> str:
    return f"{number >> 20}M" if number >= 1 << 20 else f"{number >> 10}K"
