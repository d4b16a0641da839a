"""What lies in a folder of weights: counted from headers, without reading a weight."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from llama4_core.checkpoints.meta import shard_paths
from llama4_core.checkpoints.meta_keys import JUNK
from llama4_core.checkpoints.safetensors_file import read_header
from llama4_core.checkpoints.torch_file import read_tensors

_VISION = re.compile(r"(model\.)?(vision[._]|multi_modal_projector\.)")


@dataclass(frozen=True)
class Stored:
    """Counts over all files; of Meta's files unread ones, only ``files`` and ``nbytes``.

    Attributes:
        kind: "safetensors" or "meta".
        files: how many.
        nbytes: of weights; of whole files where nothing was read.
        tensors: keys; a key that lies in every shard of Meta's counts once.
        vision: how many of these belong to the image encoder.
        dtypes: name -> number of keys.
        read: whether the files were looked into.
    """

    kind: str
    files: int
    nbytes: int
    tensors: int = 0
    vision: int = 0
    dtypes: tuple[tuple[str, int], ...] = ()
    read: bool = True


def describe(folder: Path, *, pickle: bool = False) -> Stored | None:
    """Counts the weights in ``folder``; None if there are none.

    Args:
        folder: any checkpoint folder.
        pickle: look into Meta's files too (nothing in them is run).

    Raises:
        CheckpointError: a file is damaged.
    """
    found = sorted(folder.glob("*.safetensors"))
    if found:
        entries = {key: entry for path in found for key, entry in read_header(path).entries.items()}
        dtypes = {key: entry.dtype for key, entry in entries.items()}
        size = sum(entry.end - entry.begin for entry in entries.values())
        kind = "safetensors"
    else:
        found = shard_paths(folder)
        if not found:
            return None
        kind = "meta"
        if not pickle:
            return Stored(kind, len(found), sum(p.stat().st_size for p in found), read=False)
        dtypes, size = {}, 0
        for path in found:
            for key, tensor in read_tensors(path).items():
                if not JUNK.search(key):
                    dtypes[key] = tensor.dtype
                    size += tensor.nbytes
    names = Counter(str(dtype).removeprefix("torch.") for dtype in dtypes.values())
    vision = sum(bool(_VISION.match(key)) for key in dtypes)
    return Stored(kind, len(found), size, len(dtypes), vision, tuple(sorted(names.items())))
