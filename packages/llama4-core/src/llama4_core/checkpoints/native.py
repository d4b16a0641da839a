"""The native format: ``spec.toml`` and sharded safetensors under our own names.

Experts lie ``[E, out, in]``, as the fast kernels want them; tensors are aligned, so the folder is
used as it is mapped. Which model it is, the spec says: nothing is guessed from names of files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from llama4_core.checkpoints.formats import SHARD_BYTES
from llama4_core.checkpoints.shards import Progress, map_folder, write_shards
from llama4_core.specs import ModelSpec
from llama4_core.specs.toml import read_toml, write_toml

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
        write_shards(
            folder,
            tensors,
            shard_bytes=shard_bytes,
            metadata={"format": "pt"},
            progress=progress,
        )
        write_toml(spec, folder / SPEC)
