"""Runs every arm with every seed, goes on where it was stopped, and compares."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llama4_core.plugins.catalogue import Catalogue, catalogue
from llama4_train.ablation.compare import Compared, Difference, compared, having
from llama4_train.ablation.plan import Plan
from llama4_train.checkpoints.folders import checkpoints, disk, write_text
from llama4_train.errors import EvaluationError, RecipeError, TrainingError
from llama4_train.recipe import ModelPart, Recipe
from llama4_train.trainer.step import Step

TOLERANCE = 0.01
"""Active FLOPs of the arms may differ by this share of the least."""

CURVE, DONE = "curve.jsonl", "done.json"

BATCHES = "batches"
"""Part of a step: a checksum of its batches."""

Start = Callable[[Recipe, Path, bool], Iterable[Step]]
"""Begins a run in a folder, or resumes it, and gives its steps; each with :data:`BATCHES`."""

Say = Callable[[str, int, int, int], None]
"""Called with the arm, the seed, the number of the step and the steps of a run."""


@dataclass(frozen=True)
class Outcome:
    """What an ablation found.

    Attributes:
        plan: what was compared.
        flops: arm -> active FLOPs of one token, forward and backward.
        curves: arm -> seed -> steps.
        outcomes: arm -> seed -> metric.
        differences: of each other arm and the control.
        costs: arm -> "seconds", "tokens", "flops", and "kwh" where it is known; of all its runs.
        unpaired: steps at which arms saw other batches than the control.
        also: the plan's further metrics.
    """

    plan: Plan
    flops: Mapping[str, float]
    curves: Mapping[str, Mapping[int, list[dict[str, Any]]]] = field(repr=False)
    outcomes: Mapping[str, Mapping[int, float]]
    differences: tuple[Difference, ...]
    costs: Mapping[str, Mapping[str, float]]
    unpaired: int
    also: Mapping[str, Compared] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """JSON values, without the curves."""
        return {
            "name": self.plan.name,
            "metric": self.plan.metric,
            "better": self.plan.better,
            "control": self.plan.control,
            "confidence": self.plan.confidence,
            "seeds": list(self.plan.seeds),
            "flops_per_token": dict(self.flops),
            **Compared(self.outcomes, self.differences).plain(self.plan.better),
            "also": {
                metric: {"better": better, **self.also[metric].plain(better)}
                for metric, better in self.plan.also.items()
            },
            "costs": {arm: dict(costs) for arm, costs in self.costs.items()},
            "unpaired_steps": self.unpaired,
        }


def ablate(
    plan: Plan,
    folder: str | Path,
    *,
    known: Catalogue | None = None,
    start: Start | None = None,
    flops: Mapping[str, float] | None = None,
    say: Say | None = None,
) -> Outcome:
    """Runs what has not been run, and compares.

    Each run has the folder ``ARM/seed-SEED``. A finished one is read, one that was stopped goes on
    from its latest checkpoint.

    Args:
        plan: what is compared.
        folder: for all runs.
        known: the catalogue.
        start: what trains; None for the trainer.
        flops: arm -> active FLOPs of one token; None to count them.
        say: called after each step.

    Raises:
        RecipeError: the active FLOPs of the arms differ by more than 1 %.
        TrainingError: a run cannot start or go on; the folder holds runs of other recipes; or arms
            that should have seen the same batches did not.
    """
    found = known or catalogue()
    per_token = flops if flops is not None else flops_of(plan, found)
    check_flops(per_token)
    begin = start or _trainer(found)
    place = Path(folder)
    curves: dict[str, dict[int, list[dict[str, Any]]]] = {arm: {} for arm in plan.arms}
    # Seed by seed, so that a stopped ablation has whole pairs.
    for seed in plan.seeds:
        for arm in plan.arms:
            recipe = plan.recipe(arm, seed)
            told = None if say is None else _told(say, arm, seed, recipe.steps)
            curves[arm][seed] = run(recipe, place / arm / f"seed-{seed}", begin, told)
    unpaired = _unpaired(plan, curves)
    if plan.paired and unpaired:
        raise TrainingError(
            f"{unpaired} steps of arms saw other batches than those of {plan.control!r} with the "
            "same seed; something of the arms changes the data: set paired = false if that is meant"
        )
    first = compared(curves, plan.metric, plan.control, tail=plan.tail, confidence=plan.confidence)
    also = {
        metric: compared(
            having(curves, metric, plan.control),
            metric,
            plan.control,
            tail=plan.tail,
            confidence=plan.confidence,
        )
        for metric in plan.also
    }
    return Outcome(
        plan,
        per_token,
        curves,
        first.outcomes,
        first.differences,
        {arm: _costs(place / arm, curves[arm], per_token[arm]) for arm in plan.arms},
        unpaired,
        also,
    )


def _told(say: Say, arm: str, seed: int, steps: int) -> Callable[[int], None]:
    return lambda number: say(arm, seed, number, steps)


def flops_of(plan: Plan, known: Catalogue) -> dict[str, float]:
    """Active FLOPs of one token of each arm.

    Raises:
        SpecError: a model's description is not understood.
    """
    from llama4_train.flops import training_flops

    found = {}
    for arm, one in plan.arms.items():
        length = plan.length or one.data.length
        found[arm] = training_flops(spec_of(one.model, known), [length]).total / length
    return found


def spec_of(part: ModelPart, known: Catalogue) -> Any:
    """The description of what a recipe trains; no weight is read."""
    from llama4_core.checkpoints.load import resolve
    from llama4_core.specs.find import spec_from_path
    from llama4_train.checkpoints.runs import MODEL, is_run

    start = Path(part.start).expanduser()
    if is_run(start):
        folder = start / MODEL if (start / MODEL).is_dir() else start.absolute().parents[1] / MODEL
        return spec_from_path(folder)
    if start.is_file():
        return spec_from_path(start)
    found = resolve(part.start, known)
    return spec_from_path(found) if isinstance(found, Path) else found


def check_flops(per_token: Mapping[str, float]) -> None:
    """Refuses arms that cannot be compared.

    Raises:
        RecipeError: their active FLOPs differ by more than 1 %; gives them.
    """
    least, most = min(per_token.values()), max(per_token.values())
    if most - least > TOLERANCE * least:
        listed = ", ".join(f"{arm} {value:.4g}" for arm, value in per_token.items())
        raise RecipeError(
            f"the arms differ by {most / least - 1:.1%} in active FLOPs of a token ({listed}); "
            "expected at most 1 %: make widths or experts of the arms fit each other"
        )


def run(
    recipe: Recipe, folder: Path, start: Start, told: Callable[[int], None] | None = None
) -> list[dict[str, Any]]:
    """The steps of one run: read where it has been finished, else taken.

    Raises:
        TrainingError: the folder holds another run, or its curve has gaps.
    """
    text = recipe.to_toml()
    done = folder / DONE
    if done.is_file():
        if _json(done).get("recipe") != text:
            raise TrainingError(
                f"{folder}: holds a finished run of another recipe; choose another folder"
            )
        return _curve(folder)
    with disk(folder, "written"):
        folder.mkdir(parents=True, exist_ok=True)
    resume = (folder / "recipe.toml").is_file()
    before = _curve(folder) if resume else []
    # A checkpoint may be newer than the last step that was written down: go on from one before it.
    for number, newer in checkpoints(folder):
        if number > len(before):
            with disk(newer, "removed"):
                shutil.rmtree(newer)
    steps = iter(start(recipe, folder, resume))
    curve: list[dict[str, Any]] = []
    first = next(steps, None)
    # And it may be older: steps that are taken again are written again.
    number = recipe.steps if first is None else first.number
    curve = before[:number]
    if [one["step"] for one in curve] != list(range(number)):
        raise TrainingError(
            f"{folder}: the run goes on at step {number}, but {CURVE} holds {len(before)} of the "
            "steps before; remove the folder to run it anew"
        )
    with disk(folder, "written"):
        write_text(folder / CURVE, "".join(f"{json.dumps(one)}\n" for one in curve))
        with (folder / CURVE).open("a", encoding="utf-8") as file:
            for step in _all(first, steps):
                curve.append(_line(step))
                file.write(f"{json.dumps(curve[-1])}\n")
                file.flush()
                if told is not None:
                    told(step.number)
    if len(curve) != recipe.steps:
        raise TrainingError(
            f"{folder}: the run ended after {len(curve)} of {recipe.steps} steps; run it again to "
            "go on"
        )
    with disk(folder, "written"):
        write_text(done, json.dumps({"recipe": text, "steps": len(curve)}) + "\n")
    return curve


def _all(first: Step | None, rest: Iterator[Step]) -> Iterator[Step]:
    if first is not None:
        yield first
    yield from rest


def _line(step: Step) -> dict[str, Any]:
    found: dict[str, Any] = {
        "step": step.number,
        "loss": step.loss,
        "tokens": step.tokens,
        "seconds": step.seconds,
        "parts": dict(step.parts),
    }
    if step.evaluation:
        found["evaluation"] = dict(step.evaluation)
    return found


def _curve(folder: Path) -> list[dict[str, Any]]:
    """Steps that were written down; a line that was cut by a kill ends them."""
    file = folder / CURVE
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def _json(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file}: cannot be read as JSON: {error}") from error
    return found


def _unpaired(plan: Plan, curves: Mapping[str, Mapping[int, list[dict[str, Any]]]]) -> int:
    """Steps whose batches were not those of the control."""
    found = 0
    for by_seed in curves.values():
        for seed, curve in by_seed.items():
            for one, other in zip(curve, curves[plan.control][seed], strict=True):
                found += one["parts"].get(BATCHES) != other["parts"].get(BATCHES)
    return found


def _costs(
    folder: Path, by_seed: Mapping[int, list[dict[str, Any]]], flops: float
) -> dict[str, float]:
    steps = [step for curve in by_seed.values() for step in curve]
    tokens = sum(step["tokens"] for step in steps)
    found = {
        "seconds": sum(step["seconds"] for step in steps),
        "tokens": float(tokens),
        "flops": tokens * flops,
    }
    used = [energy(folder / f"seed-{seed}") for seed in by_seed]
    if all(one is not None for one in used):
        found["kwh"] = sum(one for one in used if one is not None)
    return found


def energy(folder: Path) -> float | None:
    """Kilowatt hours of a run, where the tracker ``carbon`` measured them; else None.

    Raises:
        EvaluationError: its file is damaged.
    """
    from llama4_train.trackers.carbon import CARBON

    file = folder / CARBON
    if not file.is_file():
        return None
    try:
        return float(_json(file)["energy_kwh"])
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"{file}: does not say the energy of a run: {error!r}") from error


def _trainer(known: Catalogue) -> Start:
    """The trainer, watching the batches."""

    def start(recipe: Recipe, folder: Path, resume: bool) -> Iterator[Step]:
        from llama4_train.evaluation.run import evaluate
        from llama4_train.trainer.loop import Trainer
        from llama4_train.trainer.parts import Parts

        parts = Parts.of(recipe, folder=folder, known=known)
        watched = Watched(parts.data)
        parts.data = watched  # type: ignore[assignment]
        trainer = Trainer(parts, resume=resume)
        for step in trainer:
            step = replace(step, parts={**step.parts, BATCHES: float(watched.taken())})
            last = step.number == recipe.steps - 1
            if last and recipe.evaluation.tasks and not step.evaluation:
                measured = evaluate(
                    trainer.model, recipe.evaluation.tasks, known=known, length=recipe.data.length
                )
                step = replace(step, evaluation=measured)
            yield step

    return start


class Watched:
    """The data of a run, with a checksum of the batches that were taken.

    Args:
        data: gives batches.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._sum = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def batch(self) -> Any:
        """The next batch."""
        batch = self._data.batch()
        tensors = [batch.tokens, batch.targets, batch.weights]
        tensors += [tensor for _, tensor in sorted(batch.inputs.items())]
        for tensor in tensors:
            plain = tensor.detach().cpu().contiguous()
            if plain.is_floating_point():
                plain = plain.float()  # numpy knows no bfloat16
            self._sum = zlib.crc32(plain.numpy().tobytes(), self._sum)
        return batch

    def taken(self) -> int:
        """The checksum of the batches since the last call."""
        found, self._sum = self._sum, 0
        return found
