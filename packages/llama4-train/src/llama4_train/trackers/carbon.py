"""Energy and CO2 of a run, as codecarbon estimates them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llama4_core.specs.suggest import nearest
from llama4_train.errors import RecipeError, TrainingError
from llama4_train.recipe import Recipe
from llama4_train.trackers.values import Value

CARBON = "carbon.json"
"""Name of the file in the folder of a run."""


class Carbon:
    """Measures energy from the start of the run to its end, and CO2 where the country is known.

    ``carbon.json`` holds ``energy_kwh``, ``co2_kg`` (null without a country), ``seconds``,
    ``country``, and in ``runs`` the same for the first run and each resumed one: what was computed
    and thrown away when a run broke off has cost its energy too. Nothing is asked of the network:
    the carbon intensity is the yearly mean of the country in codecarbon's tables. Where the machine
    has no meter that can be read, codecarbon estimates the power of processor and memory.

    Args:
        folder: of the run.
        recipe: of the run; only its name is used.
        country: three letters of ISO 3166, such as "CHE"; None for energy alone.
        every: steps between two writings of the file, for runs that break off.

    Raises:
        TrainingError: codecarbon is not installed, or ``carbon.json`` is no such file.
        RecipeError: codecarbon knows no such country, or ``every`` is below 1.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, *, country: str | None = None, every: int = 100
    ) -> None:
        if every < 1:
            raise RecipeError(f"every is {every}; expected at least 1")
        self.path = Path(folder) / CARBON
        self.country = country
        self.every = every
        self._earlier = _runs(self.path)
        self._count = 0
        self._totals = _Totals()
        self._meter = self._start(recipe.name)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Writes the file now and then; the values themselves are not its affair."""
        self._count += 1
        if self._count % self.every == 0 and self._meter is not None:
            self._meter.flush()
            self._write()

    def finish(self) -> None:
        """Ends the measurement and writes the file."""
        if self._meter is not None:
            self._meter.stop()
            self._meter = None
            self._write()

    def _start(self, name: str) -> Any:
        try:
            from codecarbon import OfflineEmissionsTracker
            from codecarbon.input import DataSource
        except ImportError as error:
            raise TrainingError(
                "the tracker carbon needs codecarbon, which is not installed: pip install "
                "'llama4-train[carbon]'"
            ) from error
        # Its lines about every processor that it looks at are not ours to show; the import sets a
        # level of its own.
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        if self.country is not None:
            known = tuple(DataSource().get_global_energy_mix_data())
            if self.country not in known:
                raise RecipeError(
                    f"country is {self.country!r}{nearest(self.country, known)}; expected three "
                    "letters of ISO 3166, such as CHE"
                )

        meter = OfflineEmissionsTracker(
            project_name=name,
            # Without a country the figure of CO2 is not used; one has to be named all the same.
            country_iso_code=self.country or "USA",
            # Whatever the user's own settings of codecarbon are: nothing leaves the machine.
            output_methods=[],
            output_handlers=[self._totals],
            log_level="critical",
            # Several runs on a machine are usual; codecarbon's lock would silence all but one.
            allow_multiple_runs=True,
        )
        meter.start()
        return meter

    def _write(self) -> None:
        found = self._totals.latest
        if found is None:
            raise TrainingError("codecarbon measured nothing; leave the tracker carbon out")
        one = {
            "energy_kwh": float(found.energy_consumed),
            "co2_kg": None if self.country is None else float(found.emissions),
            "seconds": float(found.duration),
            "country": self.country,
            "processor": found.cpu_model,
            "accelerator": found.gpu_model,
        }
        runs = [*self._earlier, one]
        amounts = [run["co2_kg"] for run in runs]
        total = {
            "energy_kwh": sum(run["energy_kwh"] for run in runs),
            "co2_kg": None if None in amounts else sum(amounts),
            "seconds": sum(run["seconds"] for run in runs),
            "country": self.country,
            "runs": runs,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(total, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.path)


class _Totals:
    """Where codecarbon puts its totals: one of its output handlers."""

    def __init__(self) -> None:
        self.latest: Any = None

    def out(self, total: Any, delta: Any) -> None:
        """At each flush and at the end."""
        self.latest = total

    def live_out(self, total: Any, delta: Any) -> None:
        """While it runs."""

    def task_out(self, data: Any, experiment_name: str) -> None:
        """Of tasks, of which there are none."""

    def exit(self) -> None:
        """At the end."""


def read_carbon(folder: Path) -> dict[str, Any] | None:
    """What a run has cost so far, or None where nobody measured.

    Raises:
        TrainingError: ``carbon.json`` is no such file.
    """
    path = folder / CARBON
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        runs = found["runs"]
        sound = isinstance(runs, list) and all(
            {"energy_kwh", "co2_kg", "seconds"} <= run.keys() for run in runs
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(f"{path}: cannot be read as the energy of a run: {error!r}") from error
    if not sound:
        raise TrainingError(f"{path}: its runs lack energy_kwh, co2_kg or seconds; remove the file")
    whole: dict[str, Any] = found
    return whole


def _runs(path: Path) -> list[dict[str, Any]]:
    found = read_carbon(path.parent)
    return [] if found is None else list(found["runs"])
