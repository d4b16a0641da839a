"""One Markdown page about an ablation, with figures where matplotlib is installed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from llama4_core.errors import DrawingError
from llama4_core.show.drawing import COLOURS, blank_figure, plain, save
from llama4_core.specs.tables import value_text
from llama4_train.ablation.compare import course, course_of_difference
from llama4_train.ablation.plan import EVALUATION
from llama4_train.ablation.runs import Outcome
from llama4_train.checkpoints.folders import disk, write_text
from llama4_train.evaluation.results import number

CARD, CURVES, DIFFERENCES = "card.md", "curves.png", "differences.png"


def write_card(outcome: Outcome, folder: str | Path) -> Path:
    """Writes ``card.md`` and its figures.

    Without matplotlib the page says that there are no figures.

    Returns:
        The page.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    place = Path(folder)
    with disk(place, "written"):
        place.mkdir(parents=True, exist_ok=True)
        figures = _figures(outcome, place)
        write_text(place / CARD, card(outcome, figures))
    return place / CARD


def card(outcome: Outcome, figures: Sequence[str] = ()) -> str:
    """The text of the page.

    Args:
        outcome: of the ablation.
        figures: names of pictures beside the page.
    """
    plan = outcome.plan
    share = f"{plan.confidence:.0%}"
    lines = [f"# {plan.name}", ""]
    if plan.description:
        lines += [plan.description, ""]
    lines += [
        f"{len(plan.arms)} arms, {len(plan.seeds)} seeds ({', '.join(map(str, plan.seeds))}), "
        f"{plan.arms[plan.control].steps:,} steps each. Metric: {_metric(plan)}; {plan.better} is "
        "better. "
        + (
            "In every arm a seed sees the same batches in the same order (their checksums agree)."
            if plan.paired
            else f"The arms were not asked to see the same batches; {outcome.unpaired:,} steps "
            "differ from the control's."
        ),
        "",
        "## Differences",
        "",
        *_table(
            ("arm", f"less {plan.control}", f"{share} interval", "verdict"),
            (
                (
                    one.arm,
                    _signed(one.mean),
                    f"{_signed(one.low)} to {_signed(one.high)}",
                    one.verdict(plan.better),
                )
                for one in outcome.differences
            ),
        ),
        "",
        _statistics(outcome),
        "",
        *_also(outcome),
        "## Arms",
        "",
        *_table(
            ("arm", "changes", "active FLOPs per token", plan.metric),
            (
                (
                    arm + (" (control)" if arm == plan.control else ""),
                    _changes(plan.changes.get(arm, {})),
                    f"{outcome.flops[arm]:.4g}",
                    ", ".join(number(values[seed]) for seed in plan.seeds),
                )
                for arm, values in outcome.outcomes.items()
            ),
        ),
        "",
        "FLOPs are of forward and backward; arms that differ by more than 1 % are refused.",
        "",
        *[line for name in figures for line in (f"![{Path(name).stem}]({name})", "")],
        *([] if figures else ["No figures: matplotlib is not installed.", ""]),
        "## Cost",
        "",
        *_table(
            ("arm", "hours", "tokens", "FLOPs", "kWh"),
            (
                (
                    arm,
                    f"{costs['seconds'] / 3600:.3f}",
                    f"{costs['tokens']:,.0f}",
                    f"{costs['flops']:.3g}",
                    f"{costs['kwh']:.3g}" if "kwh" in costs else "not measured",
                )
                for arm, costs in outcome.costs.items()
            ),
        ),
        "",
        "Hours are of the steps that count: what was repeated after a stop is not among them.",
        "",
        "## The control",
        "",
        "```toml",
        plan.arms[plan.control].to_toml().rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _statistics(outcome: Outcome) -> str:
    seeds = len(outcome.plan.seeds)
    return (
        f"Paired by seed: the mean of {seeds} differences with Student's t interval, {seeds - 1} "
        f"degrees of freedom. It holds {outcome.plan.confidence:.0%} for each arm alone; "
        f"{len(outcome.differences)} were compared. Few seeds make it wide: an interval that "
        "covers zero says that nothing can be told, not that there is nothing."
    )


def _also(outcome: Outcome) -> list[str]:
    """The plan's further metrics, where it has some."""
    plan = outcome.plan
    if not plan.also:
        return []
    rows = []
    for metric, better in plan.also.items():
        found = outcome.also[metric]
        by_arm = {one.arm: one for one in found.differences}
        for arm in plan.arms:
            name = f"{metric} ({better} is better)"
            if arm not in found.outcomes:
                rows.append((name, arm, "has none", "", "", ""))
                continue
            row = (name, arm, number(fmean(found.outcomes[arm].values())))
            one = by_arm.get(arm)
            if one is None:
                rows.append((*row, "", "", "control"))
            else:
                between = f"{_signed(one.low)} to {_signed(one.high)}"
                rows.append((*row, _signed(one.mean), between, one.verdict(better)))
    head = (
        "metric", "arm", "mean", f"less {plan.control}", f"{plan.confidence:.0%} interval",
        "verdict",
    )  # fmt: skip
    return ["## Other metrics", "", *_table(head, rows), ""]


def _metric(plan: Any) -> str:
    if plan.metric.startswith(EVALUATION):
        return f"`{plan.metric}` after the last step"
    return f"`{plan.metric}`, mean over the last {plan.tail:.0%} of the steps"


def _signed(value: float) -> str:
    return f"{value:+.4f}" if abs(value) < 10 else f"{value:+.4g}"


def _changes(changes: Any) -> str:
    return "; ".join(f"`{key} = {value_text(value)}`" for key, value in changes.items()) or "none"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *(line(row) for row in rows)]


def _figures(outcome: Outcome, folder: Path) -> list[str]:
    try:
        figures = {CURVES: _curves(outcome), DIFFERENCES: _differences(outcome)}
    except DrawingError:
        return []  # the page says so
    for name, figure in figures.items():
        save(figure, folder / name)
    return list(figures)


def _shown(outcome: Outcome) -> str:
    """The part of the loss whose course is drawn."""
    metric = outcome.plan.metric
    return "loss" if metric.startswith(EVALUATION) else metric


def _curves(outcome: Outcome) -> Any:
    figure = blank_figure(6.4, 3.8)
    axes = figure.add_subplot()
    metric = _shown(outcome)
    for index, (arm, curves) in enumerate(outcome.curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        for seed, curve in curves.items():
            across = course({seed: curve}, metric)
            axes.plot(*zip(*across, strict=True), color=colour, linewidth=0.6, alpha=0.35)
        axes.plot(*zip(*course(curves, metric), strict=True), color=colour, label=arm)
    axes.set_xlabel("step")
    axes.set_ylabel(f"{metric} (thin: each seed)")
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure


def _differences(outcome: Outcome) -> Any:
    plan = outcome.plan
    figure = blank_figure(6.4, 3.8)
    axes = figure.add_subplot()
    metric = _shown(outcome)
    axes.axhline(0, color="0.6", linewidth=0.8)
    for index, (arm, curves) in enumerate(outcome.curves.items()):
        if arm == plan.control:
            continue
        colour = COLOURS[index % len(COLOURS)]
        found = course_of_difference(curves, outcome.curves[plan.control], metric, plan.confidence)
        steps, mean, low, high = zip(*found, strict=True)
        axes.plot(steps, mean, color=colour, label=f"{arm} less {plan.control}")
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("step")
    axes.set_ylabel(f"paired difference in {metric}")
    axes.set_title(f"mean over seeds with {plan.confidence:.0%} t interval", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure
