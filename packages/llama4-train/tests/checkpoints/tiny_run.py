"""A run of seconds that is stopped on purpose; imported by tests and run as a program.

As a program it gets a JSON list of tasks. Each is done by a child process of its own, so that it
can be killed; a task that reaches its last step writes the digest of the whole state. The first of
each kind has to: the moments at which others die (``die_at``) are counted in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import llama4_core as l4
from llama4_core.model.initialise import initialise
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import DenseSpec, ModelSpec, MoESpec, RopeSpec, TemperatureSpec
from llama4_train.checkpoints.runs import RECIPE
from llama4_train.data.mixture import Mixture
from llama4_train.data.pipeline import Pipeline
from llama4_train.objectives.next_token import NextToken
from llama4_train.optimizers.adamw import adamw
from llama4_train.optimizers.muon import muon
from llama4_train.optimizers.roles import parameters_of
from llama4_train.protocols import Batch, Example, Loss, Piece, Record, StepFacts
from llama4_train.recipe import Recipe
from llama4_train.trainer.loop import Trainer
from llama4_train.trainer.parts import Parts
from llama4_train.trainer.state import capture

VOCABULARY = 320


def recipe_of(kind: str = "adamw", steps: int = 8, **changes: Any) -> Recipe:
    """A recipe of 8 steps with a checkpoint after every second."""
    settings = {"lr": 0.01} if kind == "adamw" else {"lr": 0.02, "adamw_lr": 0.01}
    recipe = Recipe.of(
        {
            "name": "tiny-for-tests",
            "steps": steps,
            "model": {"start": "tiny.toml", "dtype": "float32" if kind == "adamw" else "bfloat16"},
            "data": {
                "length": 12,
                "tokens": 24,
                "accumulate": 2,
                "sources": [{"name": "shuffled", "label": "a"}, {"name": "shuffled", "label": "b"}],
            },
            "optimizer": {"name": kind, "settings": settings},
            "schedule": {"shape": "cosine", "warmup": 2},
            "checkpoints": {"every": 2, "keep": 2},
        }
    )
    return recipe.override(changes)


def spec_of(router: str = "sigmoid-top-k-balanced") -> ModelSpec:
    """Four layers: chunked and position-free, with experts and without."""
    return ModelSpec(
        name="tiny-for-tests",
        vocabulary=VOCABULARY,
        width=16,
        norm_eps=1e-5,
        max_positions=256,
        tied=False,
        layers=llama4_layers(
            4,
            heads=2,
            kv_heads=1,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=4,
            qk_norm=True,
            temperature=TemperatureSpec(scale=0.1, floor=3),
            position_free=every(2, 4),
            moe_layers=every(2, 4),
            moe=MoESpec(4, top_k=1, width=12, shared_width=12, router=router),
            dense=DenseSpec(24),
        ),
        dtype="float32",
    )


def model_of(recipe: Recipe, router: str = "sigmoid-top-k-balanced") -> Any:
    """Random weights; everything is trained."""
    model = l4.assemble(spec_of(router), device="cpu", dtype=recipe.model.dtype)
    initialise(model, recipe.seed)
    return model.train()


class Shuffled:
    """Endless documents through a shuffle buffer: the state is more than a number."""

    def __init__(self, seed: int) -> None:
        self.drawn = random.Random(seed)
        self.buffer = [self.drawn.randrange(10**6) for _ in range(8)]

    def __iter__(self) -> Shuffled:
        return self

    def __next__(self) -> Record:
        place = self.drawn.randrange(len(self.buffer))
        taken, self.buffer[place] = self.buffer[place], self.drawn.randrange(10**6)
        return Record(pieces=(Piece(str(taken) * 2),))

    def state(self) -> dict[str, Any]:
        version, numbers, gauss = self.drawn.getstate()
        return {"buffer": self.buffer, "drawn": [version, list(numbers), gauss]}

    def restore(self, state: Mapping[str, Any]) -> None:
        version, numbers, gauss = state["drawn"]
        self.drawn.setstate((version, tuple(numbers), gauss))
        self.buffer = list(state["buffer"])


class Letters:
    """Encodes each character as its code."""

    length = 12

    def __call__(self, record: Record) -> Example:
        text = str(record.pieces[0].part)[:12]
        tokens = tuple(ord(one) for one in text)
        return Example(tokens, (0.0, *[1.0] * (len(tokens) - 1)), source=record.source)


class Noisy:
    """Next-token prediction whose loss depends on every global generator of random numbers."""

    def __init__(self) -> None:
        self.inner = NextToken()

    def __call__(self, model: Any, batch: Batch, step: StepFacts) -> Loss:
        loss = self.inner(model, batch, step)
        noise = float(torch.rand(())) + random.random() + float(np.random.rand())  # noqa: NPY002
        loss.total = loss.total * (1 + 0.1 * noise)
        return loss


def trainer_of(
    recipe: Recipe,
    folder: Path | None = None,
    *,
    resume: bool = False,
    model: Any = None,
) -> Trainer:
    """What ``Trainer.of`` does, with parts that no catalogue knows."""
    model = model or model_of(recipe)
    build = adamw if recipe.optimizer.name == "adamw" else muon
    settings = dict(recipe.optimizer.settings)
    mixture = Mixture([("a", Shuffled(1)), ("b", Shuffled(2))], [1.0, 2.0], recipe.seed)
    letters: Any = Letters()
    parts = Parts(
        recipe=recipe,
        model=model,
        data=Pipeline(mixture, letters, recipe.data.tokens),
        objective=Noisy(),
        optimizer=build(parameters_of(model), settings.pop("lr"), **settings),
        folder=folder,
    )
    return Trainer(parts, resume=resume)


def digest(trainer: Trainer) -> str:
    """Of every bit of the state."""
    found = hashlib.sha256()
    for name, value in sorted(capture(trainer).items()):
        found.update(name.encode())
        if isinstance(value, torch.Tensor):
            raw: Any = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
            found.update(raw.tobytes())
        else:
            found.update(json.dumps(value, sort_keys=True).encode())
    return found.hexdigest()


class Points:
    """Counts the moments at which a checkpoint is half written; dies at one of them."""

    def __init__(self, die: int | None) -> None:
        self.die = die
        self.seen: list[str] = []

    def __call__(self, name: str) -> None:
        if len(self.seen) == self.die:
            os._exit(9)
        self.seen.append(name)

    def watch(self) -> None:
        """Before and after everything that reaches the disk, and between tensors of a file."""
        import shutil

        from llama4_train.checkpoints import storage

        for owner, name in (
            (os, "fsync"),
            (Path, "replace"),
            (Path, "mkdir"),
            (shutil, "rmtree"),
            (storage, "_raw"),
        ):
            self._wrap(owner, name)

    def _wrap(self, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def wrapped(*args: Any, **settings: Any) -> Any:
            self(f"before {name}")
            result = original(*args, **settings)
            if name != "_raw":
                self(f"after {name}")
            return result

        setattr(owner, name, wrapped)


def do(task: Mapping[str, Any]) -> None:
    """One run, perhaps killed: after ``die_step`` steps, or at the point ``die_point``."""
    torch.set_num_threads(1)
    points = Points(task.get("die_point"))
    points.watch()
    recipe = recipe_of(task.get("kind", "adamw"), **task.get("changes", {}))
    folder = Path(task["folder"])
    # One that was killed before it had a recipe begins as if it had never been.
    resume = task.get("resume") == "if begun" and (folder / RECIPE).is_file()
    trainer = trainer_of(recipe, folder, resume=resume)
    for step in trainer:
        if step.number + 1 == task.get("die_step"):
            os.kill(os.getpid(), signal.SIGKILL)
    result = {"digest": digest(trainer), "points": points.seen}
    Path(task["result"]).write_text(json.dumps(result))


def die_point(points: list[str], inside: bool, share: float) -> int:
    """The point at ``share`` of those inside files of tensors, or of all others."""
    chosen = [index for index, name in enumerate(points) if inside == (name == "before _raw")]
    return chosen[int(share * len(chosen))]


def main(tasks: list[dict[str, Any]]) -> None:
    """Each task in a child, one after the other; prints how each ended."""
    import llama4_train.checkpoints.whole  # noqa: F401 - a second to import, once for all children

    ends = []
    points: dict[str, list[str]] = {}
    for task in tasks:
        if "die_at" in task:
            task = {**task, "die_point": die_point(points[task["kind"]], *task["die_at"])}
        child = os.fork()
        if child == 0:
            do(task)
            # As at the end of a program: what is still being written is waited for.
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ends.append(os.waitstatus_to_exitcode(status))
        if ends[-1] == 0:
            points.setdefault(task["kind"], json.loads(Path(task["result"]).read_text())["points"])
    print(json.dumps(ends))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
