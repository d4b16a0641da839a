"""What the ablations of recipes/claims found: JSON, pictures and tables of docs/claims.

python recipes/claims/report.py length build/claims/length build/claims/length-long
python recipes/claims/report.py experts build/claims/experts
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from llama4_core.show.drawing import COLOURS, blank_figure, plain, save
from llama4_train.ablation.compare import course, outcome
from llama4_train.evaluation.statistics import t_interval

ROOT = Path(__file__).resolve().parents[2]
TRAINED = 128
TIMES = (1, 4, 16, 64)

BEGIN, END = "<!-- figures of recipes/claims/report.py -->", "<!-- end of figures -->"

Curves = dict[str, dict[int, list[dict[str, Any]]]]


def read(folder: Path) -> Curves:
    """Arm -> seed -> steps, of the seeds that every arm has finished."""
    found: Curves = {}
    for done in sorted(folder.glob("*/seed-*/done.json")):
        arm, seed = done.parent.parent.name, int(done.parent.name.removeprefix("seed-"))
        text = (done.parent / "curve.jsonl").read_text(encoding="utf-8")
        found.setdefault(arm, {})[seed] = [json.loads(line) for line in text.splitlines()]
    if not found:
        raise SystemExit(f"{folder}: holds no finished run; run llama4 train ablate first")
    whole = set.intersection(*(set(by_seed) for by_seed in found.values()))
    return {arm: {seed: by_seed[seed] for seed in sorted(whole)} for arm, by_seed in found.items()}


def measured(curves: Curves, arm: str, metric: str) -> dict[int, float]:
    """Seed -> metric; of the last tenth of the steps where it is no evaluation."""
    return {seed: outcome(curve, metric, 0.1) for seed, curve in curves[arm].items()}


def summary(values: Mapping[int, float]) -> dict[str, Any]:
    """The values of all seeds with Student's interval of their mean."""
    some = [values[seed] for seed in sorted(values)]
    mean, low, high = t_interval(some) if len(some) > 1 else (some[0], None, None)
    return {"values": some, "mean": mean, "low": low, "high": high}


def less(one: Mapping[int, float], other: Mapping[int, float]) -> dict[str, Any]:
    """The differences, paired by seed."""
    return summary({seed: one[seed] - other[seed] for seed in one if seed in other})


def costs(curves: Curves) -> dict[str, dict[str, float]]:
    """Seconds of training steps and their tokens, by arm, of all seeds."""
    return {
        arm: {
            "runs": len(by_seed),
            "seconds": round(sum(step["seconds"] for run in by_seed.values() for step in run), 1),
            "tokens": sum(step["tokens"] for run in by_seed.values() for step in run),
        }
        for arm, by_seed in curves.items()
    }


def length(curves: Curves) -> tuple[dict[str, Any], dict[str, Any]]:
    """Passkeys over the length of the text, of arms with and without the temperature."""
    lines: dict[str, dict[int, dict[int, float]]] = {}
    for arm, by_seed in curves.items():
        last = next(iter(by_seed.values()))[-1]["evaluation"]
        for end, name in (("", arm), ("@off", f"{arm}, temperature off")):
            if f"passkey.{TRAINED}{end}.accuracy" in last:
                lines[name] = {
                    times: measured(
                        curves, arm, f"evaluation.passkey.{TRAINED * times}{end}.accuracy"
                    )
                    for times in TIMES
                }
    found = {
        "accuracy": {
            name: {str(times * TRAINED): summary(values) for times, values in by.items()}
            for name, by in lines.items()
        },
        "less irope": {
            name: {
                str(times * TRAINED): less(values, lines["irope"][times])
                for times, values in by.items()
            }
            for name, by in lines.items()
            if name != "irope"
        },
        "nll.passkey": {arm: summary(measured(curves, arm, "nll.passkey")) for arm in curves},
    }
    figure = blank_figure(6.4, 4.0)
    axes = figure.add_subplot()
    across = [times * TRAINED for times in TIMES]
    for index, (name, by) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        for seed in by[1]:
            values = [by[times][seed] for times in TIMES]
            axes.plot(across, values, color=colour, linewidth=0.6, alpha=0.4)
        mean = [summary(by[times])["mean"] for times in TIMES]
        style = "--" if name.endswith("off") else "-"
        axes.plot(across, mean, color=colour, marker="o", markersize=3.5, label=name, ls=style)
    axes.axhline(0.25, color="0.6", linewidth=0.8)
    axes.annotate("one of the four keys at random", (TRAINED, 0.255), fontsize=8, va="bottom")
    axes.set_xscale("log", base=2)
    axes.set_xticks(across, [f"{one:,}" for one in across])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("length of the text in tokens (trained on 128)")
    axes.set_ylabel("passkeys found (thin: each seed)")
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return found, {"length": figure}


HELD = "evaluation.held-out.{}.bits_per_byte"
KINDS = ("all", "source", "sentences", "sums")


def experts(curves: Curves) -> tuple[dict[str, Any], dict[str, Any]]:
    """Held-out text by arm, and the load of experts."""
    values = {
        kind: {arm: measured(curves, arm, HELD.format(kind)) for arm in curves} for kind in KINDS
    }
    values["training nll"] = {arm: measured(curves, arm, "nll") for arm in curves}
    mixtures = [arm for arm in curves if arm != "dense"]
    for name in ("router.violation", "router.idle"):
        values[name] = {arm: measured(curves, arm, name) for arm in mixtures}
    found = {
        name: {
            "arms": {arm: summary(one) for arm, one in by.items()},
            "less dense": _all_less(by, "dense"),
            "less plain": _all_less({arm: by[arm] for arm in mixtures}, "plain"),
        }
        for name, by in values.items()
    }
    return found, {"experts": _against(values, curves), "balance": _loads(curves, mixtures)}


def _all_less(by: Mapping[str, Mapping[int, float]], control: str) -> dict[str, Any]:
    if control not in by:
        return {}
    return {arm: less(one, by[control]) for arm, one in by.items() if arm != control}


def _against(values: Mapping[str, Any], curves: Curves) -> Any:
    figure = blank_figure(6.4, 3.6)
    axes = figure.add_subplot()
    axes.axhline(0, color="0.6", linewidth=0.8)
    arms = [arm for arm in curves if arm != "dense"]
    for index, arm in enumerate(arms):
        colour = COLOURS[index % len(COLOURS)]
        for place, kind in enumerate(KINDS):
            one = less(values[kind][arm], values[kind]["dense"])
            at = place + 0.18 * (index - (len(arms) - 1) / 2)
            axes.plot([at] * len(one["values"]), one["values"], "o", color=colour, ms=3, alpha=0.5)
            if one["low"] is not None:
                axes.errorbar(
                    at,
                    one["mean"],
                    yerr=[[one["mean"] - one["low"]], [one["high"] - one["mean"]]],
                    color=colour,
                    capsize=3,
                    marker="_",
                    label=arm if place == 0 else None,
                )
    axes.set_xticks(range(len(KINDS)), KINDS)
    axes.set_ylabel("held-out bits per byte less those of dense")
    axes.set_title("below 0: better than dense; points: seeds, bars: 95 % t intervals", fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure


def _loads(curves: Curves, mixtures: Sequence[str]) -> Any:
    figure = blank_figure(6.4, 3.6)
    said = {"violation": "largest load / mean load - 1", "idle": "idle experts of 32"}
    for place, short in enumerate(said):
        name = f"router.{short}"
        axes = figure.add_subplot(1, 2, place + 1)
        for index, arm in enumerate(mixtures):
            colour = COLOURS[index % len(COLOURS)]
            for seed, curve in curves[arm].items():
                across = course({seed: curve}, name, 40)
                axes.plot(*zip(*across, strict=True), color=colour, linewidth=0.5, alpha=0.35)
            across = course(curves[arm], name, 40)
            axes.plot(*zip(*across, strict=True), color=colour, label=arm)
        axes.set_xlabel("step")
        axes.set_ylabel(said[short])
        axes.set_ylim(bottom=0)
        plain(axes)
    axes.legend(frameon=False, fontsize=8)
    return figure


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def change(one: Mapping[str, Any], places: int) -> str:
    """A difference with its interval."""
    if one["low"] is None:
        return f"{one['mean']:+.{places}f} (one seed)"
    return f"{one['mean']:+.{places}f} ({one['low']:+.{places}f} to {one['high']:+.{places}f})"


def length_tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Page -> its tables."""
    tokens = [f"{times * TRAINED:,}" for times in TIMES]
    keys = [str(times * TRAINED) for times in TIMES]
    shares = [[name, *(_shown(by[key]) for key in keys)] for name, by in found["accuracy"].items()]
    changes = [
        [name, *(change(by[key], 2) for key in keys)] for name, by in found["less irope"].items()
    ]
    return {
        "length": table(["passkeys found: mean (each seed)", *tokens], shares)
        + "\n\n"
        + table(["less irope (95 % interval)", *tokens], changes)
    }


def _shown(one: Mapping[str, Any]) -> str:
    return f"{one['mean']:.2f} (" + ", ".join(f"{value:.2f}" for value in one["values"]) + ")"


def experts_tables(found: Mapping[str, Any]) -> dict[str, str]:
    """Page -> its tables."""
    against, loads = [], []
    for name, one in found.items():
        arms, changes = one["arms"], one["less dense"]
        if changes:
            others = [change(changes[arm], 4) for arm in ("plain", "bias")]
            against.append([name, f"{arms['dense']['mean']:.4f}", *others])
        pair = [f"{arms[arm]['mean']:.4f}" for arm in ("plain", "bias")]
        loads.append([name, *pair, change(one["less plain"]["bias"], 4)])
    head = ["bits per byte of held-out text", "dense", "plain less dense", "bias less dense"]
    return {
        "experts": table(head, against),
        "balance": table(["figure", "plain", "bias", "bias less plain (95 % interval)"], loads),
    }


def put(text: str, page: Path) -> None:
    """Replaces what stands between the marks of a page."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page}: has no marks {BEGIN} and {END}; put them where the tables go")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Writes the JSON and the pictures of one claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("claim", choices=("length", "experts"))
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="what llama4 train ablate wrote; arms of a second one are called by their steps too",
    )
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--pages", type=Path, default=ROOT / "docs" / "claims")
    arguments = parser.parse_args()
    curves = read(arguments.folders[0])
    for folder in arguments.folders[1:]:
        for arm, by_seed in read(folder).items():
            steps = len(next(iter(by_seed.values())))
            curves[f"{arm}, {steps:,} steps"] = by_seed
    found, figures = {"length": length, "experts": experts}[arguments.claim](curves)
    facts = {"torch": torch.__version__, "machine": platform.machine(), "costs": costs(curves)}
    seeds = {arm: sorted(by_seed) for arm, by_seed in curves.items()}
    text = json.dumps({"claim": arguments.claim, "seeds": seeds, **facts, "found": found}, indent=2)
    (arguments.results / f"claims-{arguments.claim}.json").write_text(text + "\n")
    for name, figure in figures.items():
        save(figure, arguments.pages / f"{name}.png")
    tables = {"length": length_tables, "experts": experts_tables}[arguments.claim](found)
    for name, shown in tables.items():
        put(shown, arguments.pages / f"{name}.md")


if __name__ == "__main__":
    main()
