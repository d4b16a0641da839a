"""Accuracy of passkeys over the length of the text, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama4_core.show.drawing import COLOURS, blank_figure, check_path, plain, save
from llama4_train.errors import EvaluationError
from llama4_train.evaluation.results import Figure, Result

LINES = ("-", "--", ":", "-.")


def lengths(results: Sequence[Result]) -> dict[tuple[str, str], list[Figure]]:
    """(label, temperature) -> figures by length, of all passkey results."""
    found: dict[tuple[str, str], list[Figure]] = {}
    for result in results:
        for one in result.figures:
            if result.task == "passkey" and "length" in one.facts:
                key = (result.label, str(one.facts.get("temperature", "model")))
                found.setdefault(key, []).append(one)
    for figures in found.values():
        figures.sort(key=lambda one: float(one.facts["length"]))
    return found


def draw(results: Sequence[Result], name: str = "") -> Any:
    """Accuracy over length with 95 % intervals, one line per task and temperature.

    Raises:
        EvaluationError: there is no passkey result.
        DrawingError: matplotlib is not installed.
    """
    lines = lengths(results)
    if not lines:
        raise EvaluationError(
            "there is nothing to plot over the length; evaluate the task passkey too"
        )
    figure = blank_figure(6.4, 4.0)
    axes = figure.add_subplot()
    labels = {label for label, _ in lines}
    ticks: set[float] = set()
    for index, ((label, temperature), found) in enumerate(lines.items()):
        across = [float(one.facts["length"]) for one in found]
        ticks.update(across)
        below = [one.value - (one.value if one.low is None else one.low) for one in found]
        above = [(one.value if one.high is None else one.high) - one.value for one in found]
        said = {"model": "as it is", "off": "off"}.get(temperature, temperature)
        axes.errorbar(
            across,
            [one.value for one in found],
            yerr=[below, above],
            label=f"temperature {said}" + (f", {label}" if len(labels) > 1 else ""),
            color=COLOURS[index % len(COLOURS)],
            linestyle=LINES[index // len(COLOURS) % len(LINES)],
            marker="o",
            markersize=3.5,
            capsize=2.5,
            linewidth=1.4,
        )
    first = next(iter(lines.values()))[0]
    trained = float(first.facts["length"]) / float(first.facts["times"])
    axes.axvline(trained, color="0.75", linewidth=0.8, linestyle="--")
    if first.chance is not None:
        axes.axhline(first.chance, color="0.6", linewidth=0.8)
        axes.annotate("chance", (max(ticks), first.chance), va="bottom", ha="right", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(ticks), [f"{int(tick):,}" for tick in sorted(ticks)], rotation=30)
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("length of the text in tokens (dashed: in training)")
    axes.set_ylabel("passkeys found")
    axes.set_title(name, fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure


def write(results: Sequence[Result], path: Path, name: str = "") -> None:
    """Draws into a file.

    Raises:
        DrawingError: the name's ending is not a picture's, or matplotlib is not installed.
        EvaluationError: there is no passkey result.
    """
    check_path(path)
    save(draw(results, name), path)
