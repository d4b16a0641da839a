"""Examples in files: a source is tokenised once and mapped into memory from then on.

A cache is a folder of safetensors files ``00000.safetensors``, ... with the tensors ``tokens``
(uint32), ``weights`` (float32) and ``ends`` (int64, where each example ends in the two others), and
``index.json``: what was tokenised by what, the files, and where the source stands. The index is
written last and names only whole files, so that a writer that is killed goes on behind the last of
them.
"""

from __future__ import annotations

import contextlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from llama4_train.data.encode import Encoder
from llama4_train.data.skipping import Skipping
from llama4_train.errors import DataError
from llama4_train.protocols import DataSource, Example

FORMAT = 1
INDEX = "index.json"
SHARD_TOKENS = 1 << 24
"""Tokens of a file unless said otherwise: 128 MiB."""

Progress = Callable[[int, int], None]
"""Called with the examples and tokens written so far, after each file."""


def write_cache(
    source: DataSource,
    encode: Encoder,
    folder: str | Path,
    key: Mapping[str, Any],
    *,
    shard_tokens: int = SHARD_TOKENS,
    on_error: str = "stop",
    progress: Progress | None = None,
) -> str:
    """Tokenises all records of a source; goes on where an earlier call was killed.

    Args:
        source: fresh, and with an end.
        encode: makes examples.
        folder: of the cache; made if need be.
        key: JSON values that say what is tokenised by what.
        shard_tokens: a file is closed when it has so many.
        on_error: "stop" or "skip" at a record that cannot be used.
        progress: called after each file.

    Returns:
        How many records were used and skipped, in words.

    Raises:
        DataError: the folder holds a cache of something else (says what differs), a record cannot
            be used, or holds a picture; the disk is full. What is written stays.
    """
    place = Path(folder)
    index = _index(place)
    if index is None:
        index = {"format": FORMAT, "key": dict(key), "shards": [], "state": source.state()}
        index |= {"done": False, "used": 0, "skipped": 0}
    check_key(index, key, place)
    usable = Skipping(on_error)
    usable.used, usable.skipped = index["used"], index["skipped"]
    if not index["done"]:
        source.restore(index["state"])
    while not index["done"]:
        shard = _Shard(shard_tokens)
        while not shard.full:
            try:
                shard.add(usable(lambda: encode(next(source))))
            except StopIteration:
                index["done"] = True
                break
        if shard.ends:
            name = f"{len(index['shards']):05}.safetensors"
            _write(place / name, shard.content())
            entry = {"name": name, "examples": len(shard.ends), "tokens": shard.ends[-1]}
            index["shards"].append(entry)
        if not index["shards"]:
            raise DataError(f"{place}: the source gave no records to tokenise")
        index |= {"state": source.state(), "used": usable.used, "skipped": usable.skipped}
        _write(place / INDEX, json.dumps(index, indent=1).encode())
        if progress is not None:
            shards = index["shards"]
            progress(sum(s["examples"] for s in shards), sum(s["tokens"] for s in shards))
    return usable.summary()


class CachedRows:
    """The examples of a cache by number; :class:`~llama4_train.sources.finite.Rows` of them.

    Args:
        folder: of a cache that is whole.
        key: as it was written with.

    Raises:
        DataError: there is no such cache, it is not whole or of something else, or a file is
            damaged.
    """

    blocks = ()

    def __init__(self, folder: str | Path, key: Mapping[str, Any]) -> None:
        from safetensors import SafetensorError, safe_open

        place = Path(folder)
        index = _index(place)
        if index is None or not index["done"]:
            raise DataError(f"{place} holds no whole cache; write it first")
        check_key(index, key, place)
        self._tokens, self._weights, self._ends = [], [], []
        for entry in index["shards"]:
            try:
                file = safe_open(place / entry["name"], "numpy")
                tensors = [file.get_slice(name) for name in ("tokens", "weights")]
                ends = file.get_tensor("ends")
            except (OSError, SafetensorError) as error:
                raise DataError(
                    f"{place / entry['name']} cannot be read ({error}); remove the cache, so that "
                    "it is written again"
                ) from error
            if len(ends) != entry["examples"] or tensors[0].get_shape() != [entry["tokens"]]:
                raise DataError(
                    f"{place / entry['name']} does not hold what {INDEX} says; remove the cache, "
                    "so that it is written again"
                )
            self._tokens.append(tensors[0])
            self._weights.append(tensors[1])
            self._ends.append(ends)
        self._starts = [0, *accumulate(entry["examples"] for entry in index["shards"])]
        whole = repr((index["key"], index["shards"])).encode()
        self.fingerprint = blake2b(whole, digest_size=8).hexdigest()

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> Example:
        at = bisect_right(self._starts, number) - 1
        ends, place = self._ends[at], number - self._starts[at]
        part = slice(int(ends[place - 1]) if place else 0, int(ends[place]))
        tokens, weights = self._tokens[at][part], self._weights[at][part]
        return Example(tuple(tokens.tolist()), tuple(weights.tolist()))


def check_key(index: Mapping[str, Any], key: Mapping[str, Any], folder: Path) -> None:
    """Refuses a cache of something else.

    Raises:
        DataError: says what differs.
    """
    # As JSON keeps it.
    wanted = json.loads(json.dumps(dict(key)))
    for name in {**index["key"], **wanted}:
        old, new = index["key"].get(name), wanted.get(name)
        if old != new:
            raise DataError(
                f"the cache {folder} was written with {name} {old!r:.120}, and is now wanted with "
                f"{new!r:.120}; remove the folder to tokenise again, or name another one"
            )


class _Shard:
    """Examples that make one file."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tokens: list[np.ndarray[Any, Any]] = []
        self._weights: list[np.ndarray[Any, Any]] = []
        self.ends: list[int] = []

    @property
    def full(self) -> bool:
        return bool(self.ends) and self.ends[-1] >= self._most

    def add(self, example: Example) -> None:
        if example.readings:
            raise DataError(
                "a record holds a picture, and a cache keeps nothing but tokens; use the source "
                "itself, without a cache"
            )
        self._tokens.append(np.array(example.tokens, np.uint32))
        self._weights.append(np.array(example.weights, np.float32))
        self.ends.append((self.ends[-1] if self.ends else 0) + len(example.tokens))

    def content(self) -> bytes:
        from safetensors.numpy import save

        tensors = {
            "tokens": np.concatenate(self._tokens),
            "weights": np.concatenate(self._weights),
            "ends": np.array(self.ends, np.int64),
        }
        written: bytes = save(tensors)
        return written


def _index(folder: Path) -> dict[str, Any] | None:
    path = folder / INDEX
    try:
        index = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove the cache {folder}") from error
    known = ("format", "key", "shards", "state", "done", "used", "skipped")
    if not isinstance(index, dict) or any(name not in index for name in known):
        raise DataError(f"{path} is no index of a cache; name another folder")
    if index["format"] != FORMAT:
        raise DataError(
            f"{path} has format {index['format']!r:.20}, this version reads {FORMAT}; remove the "
            "folder to tokenise again"
        )
    return index


def _write(path: Path, content: bytes) -> None:
    """Writes a file that is either whole or not there."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise DataError(
            f"{path} cannot be written ({error.strerror or error}); what is there stays, and the "
            "same call goes on behind it"
        ) from error
