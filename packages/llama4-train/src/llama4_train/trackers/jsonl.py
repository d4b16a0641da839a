"""A line of JSON for every step."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from llama4_train.errors import TrainingError
from llama4_train.recipe import Recipe
from llama4_train.trackers.values import Value

LOG = "log.jsonl"
"""Name of the file in the folder of a run."""

# JSON has no such numbers, and null would not say which of them it was; float() reads these.
_SPELLED = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class JsonLines:
    """Writes ``{"step": N, "loss": ..., ...}`` for every step and flushes it.

    A number that is not finite is written as the string "NaN", "Infinity" or "-Infinity". The
    first step that is logged replaces whatever the file holds of it and of later ones, a line that
    was cut off included: a resumed run goes on with a file without gaps or repetitions.

    Args:
        folder: of the run.
        recipe: of the run; its name and settings are in the folder already and not repeated here.
        file: name of the file.
    """

    def __init__(self, folder: Path, recipe: Recipe, *, file: str = LOG) -> None:
        self.path = Path(folder) / file
        self._file: BinaryIO | None = None
        self._last = -1

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Appends a line.

        Raises:
            TrainingError: the file cannot be written or is no log, a step comes twice, or a value
                is called "step".
        """
        if "step" in values:
            raise TrainingError("a value is called 'step', which is the number of the line itself")
        if self._file is not None and step <= self._last:
            raise TrainingError(
                f"step {step} is logged after step {self._last}; expected rising numbers, each once"
            )
        plain = {"step": step, **{name: _plain(value) for name, value in values.items()}}
        line = json.dumps(plain, allow_nan=False, ensure_ascii=False).encode() + b"\n"
        try:
            if self._file is None:
                self._file = self._open(step)
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                f"{self.path}: cannot be written: {error}; make room, then resume the run"
            ) from error
        self._last = step

    def finish(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, step: int) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = 0
        if self.path.exists():
            for line, values in _lines(self.path):
                if values["step"] >= step:
                    break
                kept += len(line)
        file = self.path.open("ab")
        file.truncate(kept)
        return file


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log: for each step its values by name, and "step".

    A last line that is still being written is left out.

    Raises:
        TrainingError: the file cannot be read, or a line is not one of a log.
    """
    try:
        return [
            {name: _number(value) for name, value in values.items()} for _, values in _lines(path)
        ]
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from error


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Whole lines with what they hold."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                values = json.loads(line)
            except ValueError as error:
                raise TrainingError(
                    f"{path}, line {number}: this is no JSON ({error}); mend or remove the line"
                ) from error
            if not isinstance(values, dict) or not isinstance(values.get("step"), int):
                raise TrainingError(
                    f"{path}, line {number}: there is no number of a step; expected a log of "
                    "training"
                )
            yield line, values


def _plain(value: Value) -> Any:
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    if isinstance(value, int):
        return int(value)
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(one) for one in value]
    return _SPELLED.get(value, value) if isinstance(value, str) else value
