"""The manifest of a checkpoint: size and SHA-256 of each of its files. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llama4_core.errors import CheckpointError
from llama4_train.checkpoints.folders import disk, write_text

MANIFEST = "manifest.json"
# Plain names only: a manifest must not lead out of its folder.
_FILE = re.compile(r"[a-z0-9][a-z0-9-]*\.(json|safetensors)")
_SUM = re.compile(r"[0-9a-f]{64}")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class FileFacts:
    """A file as it was written.

    Attributes:
        name: in the checkpoint's folder.
        size: bytes.
        sha256: hexadecimal.
    """

    name: str
    size: int
    sha256: str


def write_manifest(folder: Path, files: Iterable[FileFacts]) -> None:
    """Writes the manifest of a folder, last of all its files."""
    content = {
        "files": {
            file.name: {"size": file.size, "sha256": file.sha256}
            for file in sorted(files, key=lambda one: one.name)
        }
    }
    write_text(folder / MANIFEST, json.dumps(content, indent=2) + "\n")


def read_manifest(folder: Path) -> dict[str, FileFacts]:
    """The files that a checkpoint consists of, by name.

    Raises:
        CheckpointError: the manifest is missing or is none.
    """
    path = folder / MANIFEST
    files = read_json(path).get("files")
    if not isinstance(files, Mapping) or not files:
        raise not_understood(path, "files", files)
    found = {}
    for name, entry in files.items():
        size = entry.get("size") if isinstance(entry, Mapping) else None
        digest = entry.get("sha256") if isinstance(entry, Mapping) else None
        if (
            not _FILE.fullmatch(name)
            or type(size) is not int
            or not isinstance(digest, str)
            or not _SUM.fullmatch(digest)
        ):
            raise not_understood(path, name, entry)
        found[name] = FileFacts(name, size, digest)
    return found


def verify(folder: Path, files: Iterable[FileFacts]) -> None:
    """Reads the files whole and compares them with the manifest.

    Raises:
        CheckpointError: a file is missing, has another size or another checksum.
    """
    for facts in files:
        path = folder / facts.name
        if not path.is_file():
            raise CheckpointError(
                f"{path}: is missing, though the manifest lists it; copy the checkpoint again, or "
                "remove its folder to go on from an older one"
            )
        with disk(path, "read"):
            size = path.stat().st_size
            if size != facts.size:
                raise _damaged(path, f"it has {size:,} bytes; expected {facts.size:,}")
            if file_sum(path) != facts.sha256:
                raise _damaged(path, "its SHA-256 is not that of the manifest")


def file_sum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint.

    Raises:
        CheckpointError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: is missing; expected a folder of a checkpoint, complete as it was written"
        )
    with disk(path, "read"):
        raw = path.read_bytes()
    try:
        content = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"this is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a JSON {type(content).__name__}; expected an object")
    return content


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: is damaged: {why}; copy the checkpoint again, or remove its folder to go on from "
        "an older one"
    )


def not_understood(path: Path, key: str, value: object) -> CheckpointError:
    """The error of a file whose ``key`` has a ``value`` of no known kind."""
    return _damaged(path, f"{key!r} is {value!r:.80}, which is not understood")
