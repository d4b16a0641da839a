"""What a run did, from its log: curves of the loss and of the load of experts.

As text without any other package; pictures need matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from llama4_core.errors import DrawingError
from llama4_core.show.drawing import COLOURS, blank_figure, levels, plain
from llama4_train.trackers.carbon import read_carbon
from llama4_train.trackers.jsonl import LOG, read_log
from llama4_train.trackers.progress import duration
from llama4_train.trackers.values import EVALUATION, LOAD, VIOLATION

_POINTS = 800
"""Points of a curve: longer ones are means of their parts."""

_PANELS = 12
"""Layers whose loads are drawn at most, spread over the depth."""

_LEVELS = 60
_TAIL = 20
"""Last steps over which closing figures are averaged."""

_CURVES = ("loss", "learning_rate", "gradient_norm")


@dataclass(frozen=True)
class Training:
    """A run, read from its folder.

    Attributes:
        name: of the folder.
        steps: numbers of the steps.
        curves: "loss", "learning_rate" and "gradient_norm", a value for each step; NaN where a step
            has none.
        violations: layer -> ``max(load) / mean(load) - 1`` of each step.
        loads: layer -> for each step the share of its tokens that each expert got; empty where a
            step has none.
        evaluation: task -> (step, figure) pairs.
        tokens, seconds: of all steps.
        carbon: what ``carbon.json`` says, or None.
    """

    name: str
    steps: tuple[int, ...]
    curves: dict[str, tuple[float, ...]]
    violations: dict[int, tuple[float, ...]]
    loads: dict[int, tuple[tuple[float, ...], ...]]
    evaluation: dict[str, tuple[tuple[int, float], ...]]
    tokens: int
    seconds: float
    carbon: dict[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """A summary for JSON, which has no numbers that are not finite: they are null there."""
        last = {name: _tail(values) for name, values in self.curves.items()}
        carbon = self.carbon or {}
        return {
            "name": self.name,
            "steps": len(self.steps),
            "last_step": self.steps[-1],
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens / self.seconds if self.seconds else None,
            "loss": {"first": _finite(self.curves["loss"][0]), "last": _finite(last["loss"])},
            "learning_rate": _finite(self.curves["learning_rate"][-1]),
            "gradient_norm": _finite(last["gradient_norm"]),
            "router": {
                str(layer): {
                    "violation": _finite(_tail(values)),
                    "load": list(_mean(self.loads.get(layer, ())[-_TAIL:])),
                }
                for layer, values in self.violations.items()
            },
            "evaluation": {
                task: {"step": pairs[-1][0], "value": _finite(pairs[-1][1])}
                for task, pairs in self.evaluation.items()
            },
            "energy_kwh": carbon.get("energy_kwh"),
            "co2_kg": carbon.get("co2_kg"),
        }


def read_training(folder: Path) -> Training:
    """A run from the folder that it writes to.

    Raises:
        TrainingError: there is no log, or it is damaged.
        DrawingError: no step is logged yet.
    """
    lines = read_log(folder / LOG)
    if not lines:
        raise DrawingError(f"{folder / LOG} has no step yet; wait for the first")
    names = {name for line in lines for name in line}
    violations = _layers(names, VIOLATION)
    loads = _layers(names, LOAD)
    found = {layer: tuple(_shares(line.get(f"{LOAD}{layer}")) for line in lines) for layer in loads}
    return Training(
        name=folder.resolve().name,
        steps=tuple(line["step"] for line in lines),
        curves={name: tuple(_value(line, name) for line in lines) for name in _CURVES},
        violations={
            # The load says it too, for logs without the figure itself.
            layer: tuple(_value(line, f"{VIOLATION}{layer}") for line in lines)
            if layer in violations
            else tuple(map(_violation, found[layer]))
            for layer in sorted({*violations, *loads})
        },
        loads=found,
        evaluation={
            name.removeprefix(EVALUATION): tuple(
                (line["step"], _value(line, name)) for line in lines if name in line
            )
            for name in sorted(names)
            if name.startswith(EVALUATION)
        },
        tokens=int(_total(lines, "tokens")),
        seconds=_total(lines, "seconds"),
        carbon=read_carbon(folder),
    )


def text(run: Training) -> str:
    """Figures, and a curve of the loss out of characters."""
    facts = run.plain()
    loss = run.curves["loss"]
    lines = [f"{run.name}: {facts['steps']:,} steps, {run.tokens:,} tokens"]
    if run.seconds:
        lines[0] += f", {duration(round(run.seconds))}, {run.tokens / run.seconds:,.0f} tokens/s"
    shown = _thinned(loss, _LEVELS)
    low = min((value for value in shown if math.isfinite(value)), default=0.0)
    curve = levels([max(value - low, 1e-9) if math.isfinite(value) else 0.0 for value in shown])
    lines += ["", f"  loss  {curve}  {loss[0]:.4f} -> {_tail(loss):.4f}"]
    broken = sum(not math.isfinite(value) for value in loss)
    if broken:
        lines.append(f"  {broken} steps have no finite loss")
    if run.violations:
        lines += ["", "  load of the experts, mean of the last steps"]
    for layer, values in run.violations.items():
        shares = _mean(run.loads.get(layer, ())[-_TAIL:])
        picture = f"{levels(shares)}  " if shares else ""
        lines.append(f"  layer {layer:>2}  {picture}largest {_tail(values):+.0%} over the mean")
    if run.evaluation:
        lines += ["", "  evaluation"]
        lines += [
            f"  {task}: {pairs[-1][1]:.4g} (step {pairs[-1][0]:,})"
            for task, pairs in run.evaluation.items()
        ]
    if run.carbon is not None:
        carbon = run.carbon["co2_kg"]
        amount = "" if carbon is None else f", {carbon:.3g} kg of CO2"
        lines += ["", f"  energy {run.carbon['energy_kwh']:.3g} kWh{amount}"]
    return "\n".join(lines)


def draw(run: Training) -> Any:
    """Loss, learning rate and violations above; below them the load of each layer's experts.

    Raises:
        DrawingError: matplotlib is not installed.
    """
    layers = _spread(sorted(run.loads), _PANELS)
    rows = math.ceil(len(layers) / 4)
    figure = blank_figure(11, 3.4 + 1.9 * rows)
    upper, lower = (
        figure.subfigures(2, 1, height_ratios=[3.4, 1.9 * rows]) if rows else (figure, None)
    )
    wide = bool(run.violations)
    above = upper.subplots(1, 2 if wide else 1, squeeze=False)[0]
    _draw_loss(above[0], run)
    if wide:
        _draw_violations(above[1], run)
    if lower is not None:
        _draw_loads(lower.subplots(rows, 4, squeeze=False, sharey=True), run, layers)
    return figure


def _draw_loss(axes: Any, run: Training) -> None:
    steps, loss = run.steps, run.curves["loss"]
    axes.plot(_thinned(steps), _thinned(loss), color="#9ec5e3", linewidth=0.8)
    axes.plot(
        _thinned(steps), _thinned(_running(loss)), color=COLOURS[0], linewidth=1.6, label="loss"
    )
    axes.set_title(f"{run.name}: loss", fontsize=10, loc="left")
    axes.set_xlabel("step")
    plain(axes)
    if all(map(math.isnan, run.curves["learning_rate"])):
        return
    rate = axes.twinx()
    rate.plot(
        _thinned(steps), _thinned(run.curves["learning_rate"]), color="#9aa4ae", linewidth=1.0
    )
    rate.set_ylabel("learning rate", color="#6b757f", fontsize=8)
    rate.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    rate.tick_params(labelsize=7, colors="#6b757f")
    rate.set_ylim(bottom=0)
    rate.spines[["top"]].set_visible(False)


def _draw_violations(axes: Any, run: Training) -> None:
    layers = sorted(run.violations)
    colours = _colours(len(layers))
    for colour, layer in zip(colours, layers, strict=True):
        axes.plot(
            _thinned(run.steps),
            _thinned(_running(run.violations[layer])),
            color=colour,
            linewidth=1.1,
            label=f"layer {layer}",
        )
    axes.set_title("largest load over the mean, less 1", fontsize=10, loc="left")
    axes.set_xlabel("step")
    axes.set_ylim(bottom=0)
    if len(layers) <= 8:
        axes.legend(frameon=False, fontsize=8)
    plain(axes)


def _draw_loads(panels: Any, run: Training, layers: Sequence[int]) -> None:
    for axes in panels.flat[len(layers) :]:
        axes.set_visible(False)
    for axes, layer in zip(panels.flat, layers, strict=False):
        known = [
            (step, shares)
            for step, shares in zip(run.steps, run.loads[layer], strict=True)
            if shares
        ]
        experts = max(len(shares) for _, shares in known)
        steps = _thinned([step for step, _ in known])
        series = [
            _thinned([shares[expert] if expert < len(shares) else 0.0 for _, shares in known])
            for expert in range(experts)
        ]
        axes.stackplot(steps, series, colors=_colours(experts), linewidth=0)
        for expert in range(1, experts):
            axes.axhline(expert / experts, color="white", linewidth=0.4, linestyle=":")
        title = f"layer {layer}: load of {experts} experts"
        axes.set_title(title, fontsize=8, loc="left")
        axes.set_xlim(steps[0], max(steps[-1], steps[0] + 1))
        axes.set_ylim(0, 1)
        axes.tick_params(labelsize=7)
        plain(axes)


def _colours(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    from matplotlib import colormaps

    return [colormaps["turbo"](index / (count - 1)) for index in range(count)]


def _layers(names: set[str], prefix: str) -> list[int]:
    ends = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted(int(end) for end in ends if end.isdecimal())


def _value(line: dict[str, Any], name: str) -> float:
    value = line.get(name, math.nan)
    return float(value) if isinstance(value, int | float) else math.nan


def _shares(value: Any) -> tuple[float, ...]:
    return tuple(float(one) for one in value) if isinstance(value, list) else ()


def _violation(shares: Sequence[float]) -> float:
    return max(shares) * len(shares) / sum(shares) - 1 if shares and sum(shares) else math.nan


def _total(lines: Sequence[dict[str, Any]], name: str) -> float:
    values = (_value(line, name) for line in lines)
    return sum(value for value in values if math.isfinite(value))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _average(values: Sequence[float]) -> float:
    """Of what is finite."""
    kept = [value for value in values if math.isfinite(value)]
    return sum(kept) / len(kept) if kept else math.nan


def _tail(values: Sequence[float]) -> float:
    return _average(values[-_TAIL:])


def _mean(rows: Sequence[Sequence[float]]) -> tuple[float, ...]:
    known = [row for row in rows if row]
    if not known:
        return ()
    return tuple(map(_average, zip(*known, strict=False)))


def _thinned(values: Sequence[float], points: int = _POINTS) -> list[float]:
    """At most so many values: means of parts as long as each other, give or take one."""
    if len(values) <= points:
        return list(values)
    edges = [index * len(values) // points for index in range(points + 1)]
    return [_average(values[start:end]) for start, end in pairwise(edges)]


def _running(values: Sequence[float]) -> list[float]:
    """Mean of the last fiftieth of the run at each step."""
    width = max(1, len(values) // 50)
    found, total, count = [], 0.0, 0
    for index, value in enumerate(values):
        if math.isfinite(value):
            total, count = total + value, count + 1
        if index >= width and math.isfinite(values[index - width]):
            total, count = total - values[index - width], count - 1
        found.append(total / count if count else math.nan)
    return found


def _spread(values: Sequence[int], count: int) -> list[int]:
    """``count`` of the values, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    return [values[round(index * (len(values) - 1) / (count - 1))] for index in range(count)]
