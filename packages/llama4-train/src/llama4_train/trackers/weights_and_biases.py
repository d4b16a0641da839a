"""Weights & Biases."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama4_train.errors import RecipeError, TrainingError
from llama4_train.recipe import Recipe
from llama4_train.trackers.values import Value, scalars

MODES = ("offline", "online", "disabled")
_RUN = "wandb-run.txt"


class WeightsAndBiases:
    """Logs a run with wandb; offline until it is told otherwise: ``wandb sync`` sends it later.

    A resumed run goes on under the same id, which is kept in the folder.

    Args:
        folder: of the run.
        recipe: of the run: its name, and its values as wandb's configuration.
        project: of wandb.
        mode: "offline", "online" or "disabled".
        entity: account or team of wandb; None for its default.

    Raises:
        RecipeError: there is no such mode.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        *,
        project: str = "llama4",
        mode: str = "offline",
        entity: str | None = None,
    ) -> None:
        if mode not in MODES:
            raise RecipeError(f"wandb's mode is {mode!r}; expected one of {', '.join(MODES)}")
        self.folder = Path(folder)
        self.recipe = recipe
        self.settings = {"project": project, "mode": mode, "entity": entity}
        self._run: Any = None

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Logs the numbers of one step.

        Raises:
            TrainingError: wandb is not installed.
        """
        if self._run is None:
            self._run = self._open()
        self._run.log(dict(scalars(values)), step=step)

    def finish(self) -> None:
        """Ends wandb's run."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _open(self) -> Any:
        try:
            import wandb
        except ImportError as error:
            raise TrainingError(
                "the tracker wandb needs wandb, which is not installed: pip install "
                "'llama4-train[wandb]'"
            ) from error
        self.folder.mkdir(parents=True, exist_ok=True)
        place = self.folder / _RUN
        known = place.read_text(encoding="utf-8").strip() if place.is_file() else None
        run = wandb.init(
            **self.settings,
            name=self.recipe.name,
            dir=str(self.folder),
            config=tomllib.loads(self.recipe.to_toml()),
            id=known,
            resume="allow",
        )
        if known is None:
            place.write_text(f"{run.id}\n", encoding="utf-8")
        return run
