"""The native format: ``spec.toml`` and sharded safetensors under our own names.

Experts lie ``[E, out, in]``, as the fast kernels want them; tensors are aligned, so the folder is
used as it is mapped. Which model it is, the spec says: nothing is guessed from names of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from llama4_core.checkpoints.formats import SHARD_BYTES
from llama4_core.checkpoints.plan import Plan, refuse_shards, safetensors_plan
from llama4_core.checkpoints.shards import Progress, map_folder
from llama4_core.checkpoints.stream import Journal, fill
from llama4_core.specs import ModelSpec
from llama4_core.specs.toml import read_toml, toml_from_spec

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight

SPEC = "spec.toml"


class NativeFormat:
    """Reads and writes the native format."""

    def detect(self, folder: Path) -> bool:
        """A spec beside the weights."""
        return (folder / SPEC).is_file()

    def read_spec(self, folder: Path) -> ModelSpec:
        """Reads ``spec.toml``."""
        return read_toml(folder / SPEC)

    def tensors(self, folder: Path, spec: ModelSpec) -> Mapping[str, Tensor]:
        """Maps the folder under the names that it has; the model says whether they fit."""
        return map_folder(folder)

    def plan(
        self,
        weights: Mapping[str, Weight],
        spec: ModelSpec,
        *,
        shard_bytes: int = SHARD_BYTES,
        shards: int | None = None,
    ) -> Plan:
        """The files that :meth:`write` writes: shards, their index and the spec."""
        refuse_shards(shards, "native")
        return safetensors_plan(
            weights,
            shard_bytes=shard_bytes,
            metadata={"format": "pt"},
            texts={SPEC: toml_from_spec(spec)},
        )

    def write(
        self,
        tensors: Mapping[str, Tensor],
        spec: ModelSpec,
        folder: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        progress: Progress | None = None,
    ) -> None:
        """Writes spec, shards and index."""
        fill(self.plan(tensors, spec, shard_bytes=shard_bytes), folder, Journal(), progress)
