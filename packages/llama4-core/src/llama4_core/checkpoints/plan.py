"""What a folder will hold, known to the byte before anything is written.

A :class:`Plan` lists the files of weights and the small texts beside them. Files are made at their
full size first and filled piece by piece at known places (:mod:`llama4_core.checkpoints.stream`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llama4_core.checkpoints.safetensors_file import file_header
from llama4_core.checkpoints.shards import INDEX, split_shards
from llama4_core.checkpoints.torch_file import data_offsets, write_checksums, write_skeleton
from llama4_core.errors import CheckpointError

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight


class PlannedFile(Protocol):
    """A file of weights; ``weights`` in the order in which their bytes are written."""

    @property
    def name(self) -> str:
        """Of the file, in its folder."""

    @property
    def weights(self) -> Mapping[str, Weight]:
        """Key -> weight."""

    @property
    def checksummed(self) -> bool:
        """Whether :meth:`finish` needs the CRC-32 of each weight."""

    def prepare(self, path: Path) -> None:
        """Makes the file at its full size, weights still missing."""

    def offsets(self, path: Path) -> Mapping[str, int]:
        """Where the bytes of each weight belong in the prepared file."""

    def finish(self, path: Path, sums: Sequence[int]) -> None:
        """Completes a filled file; doing it twice changes nothing."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Files of weights, and texts by name."""

    files: tuple[PlannedFile, ...]
    texts: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(weight.nbytes for file in self.files for weight in file.weights.values())


class SafetensorsPlan:
    """A safetensors file."""

    checksummed = False

    def __init__(
        self, name: str, weights: Mapping[str, Weight], metadata: Mapping[str, str]
    ) -> None:
        self.name = name
        self._header, order = file_header(Path(name), weights, metadata)
        self.weights: Mapping[str, Weight] = {key: weights[key] for key in order}

    def prepare(self, path: Path) -> None:
        """Writes the header."""
        size = len(self._header) + sum(weight.nbytes for weight in self.weights.values())
        with path.open("wb") as file:
            file.write(self._header)
            file.truncate(size)

    def offsets(self, path: Path) -> Mapping[str, int]:
        """Back to back behind the header."""
        found, offset = {}, len(self._header)
        for key, weight in self.weights.items():
            found[key] = offset
            offset += weight.nbytes
        return found

    def finish(self, path: Path, sums: Sequence[int]) -> None:
        """Nothing is missing."""


class TorchPlan:
    """A file of ``torch.save``; ``shapes`` are those it declares, row-major as the weights."""

    checksummed = True

    def __init__(
        self, name: str, weights: Mapping[str, Weight], shapes: Mapping[str, tuple[int, ...]]
    ) -> None:
        self.name = name
        self.weights = weights
        self._shapes = shapes

    def prepare(self, path: Path) -> None:
        """Writes everything but the weights."""
        write_skeleton(
            path, {key: (self._shapes[key], weight.dtype) for key, weight in self.weights.items()}
        )

    def offsets(self, path: Path) -> Mapping[str, int]:
        """As the archive's directory says."""
        return data_offsets(path, list(self.weights))

    def finish(self, path: Path, sums: Sequence[int]) -> None:
        """Writes the checksums."""
        write_checksums(path, sums)


def refuse_shards(shards: int | None, format_name: str) -> None:
    """Says that a format cuts its files by size.

    Raises:
        CheckpointError: a number of shards is given.
    """
    if shards is not None:
        raise CheckpointError(
            f"shards is {shards}, but the format {format_name} cuts its files by size; say the "
            "size instead (shard_bytes, --shard-mib)"
        )


def safetensors_plan(
    weights: Mapping[str, Weight],
    *,
    shard_bytes: int,
    metadata: Mapping[str, str],
    texts: Mapping[str, str],
) -> Plan:
    """Shards of about ``shard_bytes`` and their index, and ``texts``."""
    shards = split_shards(weights, shard_bytes)
    files = [
        SafetensorsPlan(name, {key: weights[key] for key in keys}, metadata)
        for name, keys in shards.items()
    ]
    weight_map = {key: name for name, keys in shards.items() for key in keys}
    index = {
        "metadata": {"total_size": sum(weight.nbytes for weight in weights.values())},
        "weight_map": {key: weight_map[key] for key in sorted(weight_map)},
    }
    return Plan(tuple(files), {INDEX: json.dumps(index, indent=2) + "\n", **texts})
