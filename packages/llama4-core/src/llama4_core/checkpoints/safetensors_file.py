"""Safetensors files: a strict reader of headers, mapped tensors, an aligned and atomic writer.

A file is eight bytes of header length (little endian), a JSON header
``{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {str: str}}``, then the
bytes of the tensors, back to back. Source: https://github.com/huggingface/safetensors#format

The header is read here, not by the library, so that every error names file and key, and so that
nothing is believed that the file does not hold. The file is mapped as a whole, private and
copy-on-write: nothing is read or copied until it is used.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llama4_core.errors import CheckpointError

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight

# The library's own limit; a longer header is a damaged length, not a model.
MAX_HEADER = 100_000_000
# torch's own limits of a shape: beyond them sizes overflow, or take forever to multiply.
MAX_DIMS = 64
MAX_SIZE = 2**63
# Data begins on a page, so that tensors whose sizes are whole pages do too.
PAGE = 4096
# Linux's MAP_NORESERVE, which the mmap module names only from Python 3.13 on.
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0

DTYPES: dict[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file; ``begin`` and ``end`` in bytes from the start of the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a file says about itself; ``data_start`` in bytes from the start of the file."""

    path: Path
    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    data_start: int
    file_size: int


def read_header(path: Path) -> Header:
    """Reads and checks the header of ``path``.

    Raises:
        CheckpointError: the file is missing, truncated or damaged; names the file and, where there
            is one, the key.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            if len(prefix) < 8:
                raise _damaged(path, f"it has {len(prefix)} bytes; expected a header length first")
            (length,) = struct.unpack("<Q", prefix)
            if length > min(MAX_HEADER, size - 8):
                raise _damaged(
                    path,
                    f"its header claims {length:,} bytes, but the file has {size:,} and a header "
                    f"at most {MAX_HEADER:,}",
                )
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); check that the file is there"
        ) from error
    return parse_header(path, text, size)


def parse_header(path: Path, text: bytes, size: int) -> Header:
    """Checks the JSON ``text`` of the header of a file of ``size`` bytes.

    Args:
        path: names the file in errors and in the result.
        text: the header without the eight bytes of its length.
        size: bytes of the whole file.

    Raises:
        CheckpointError: it is damaged, or claims more or less than ``size`` bytes.
    """
    length = len(text)
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"its header is a JSON {type(content).__name__}; expected an object")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(path, "'__metadata__' is not a map from strings to strings")
    entries = {name: _entry(path, name, value) for name, value in content.items()}
    _check_layout(path, entries, size - 8 - length)
    return Header(path, entries, metadata, 8 + length, size)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice, _ = Counter(name for name, _ in pairs).most_common(1)[0]
        raise ValueError(f"the key {twice!r} stands there twice")
    return found


def _entry(path: Path, name: str, value: object) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"key {name!r} lacks exactly dtype, shape and data_offsets")
    code, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise _damaged(
            path, f"key {name!r} has dtype {code!r}; expected one of {', '.join(DTYPES)}"
        )
    # Of an empty tensor, the other sizes count too.
    if not _counts(shape) or math.prod(size or 1 for size in shape) >= MAX_SIZE:
        raise _damaged(
            path,
            f"key {name!r} has shape {shape!r:.200}; expected at most {MAX_DIMS} whole numbers, "
            "not too large for any memory",
        )
    if not _counts(offsets) or len(offsets) != 2:
        raise _damaged(path, f"key {name!r} has data_offsets {offsets!r}; expected [begin, end]")
    begin, end = offsets
    dtype = DTYPES[code]
    needed = math.prod(shape) * dtype.itemsize
    if end - begin != needed:
        raise _damaged(
            path,
            f"key {name!r} of shape {tuple(shape)} and dtype {code} needs {needed:,} bytes, but "
            f"its data_offsets {offsets} span {end - begin:,}",
        )
    return Entry(dtype, tuple(shape), begin, end)


def _counts(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= MAX_DIMS
        and all(type(item) is int and 0 <= item < MAX_SIZE for item in value)
    )


def _check_layout(path: Path, entries: Mapping[str, Entry], data_size: int) -> None:
    """The tensors fill the data exactly: no gap, no overlap, nothing outside."""
    reached = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != reached:
            what = "overlaps the tensor before it" if entry.begin < reached else "leaves a gap"
            raise _damaged(
                path,
                f"key {name!r} begins at byte {entry.begin:,} and {what} (expected {reached:,})",
            )
        reached = entry.end
        if reached > data_size:
            raise _damaged(
                path,
                f"key {name!r} ends at byte {reached:,} of the data, but the file holds "
                f"{data_size:,}: it is truncated",
            )
    if reached != data_size:
        raise _damaged(path, f"its tensors end at byte {reached:,} of {data_size:,} bytes of data")


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a sound safetensors file: {why}; fetch or write the file again"
    )


def map_tensors(header: Header) -> dict[str, Tensor]:
    """Maps the file; every tensor is a view of one private mapping, read when it is used.

    Writing into a tensor never reaches the file. A tensor whose bytes do not start at a multiple
    of its item size (other writers do not pad) is copied, as torch cannot view it.
    """
    whole = map_file(header.path)
    if len(whole) != header.file_size:
        raise _damaged(header.path, "its size changed while it was read")
    tensors = {}
    for name, entry in header.entries.items():
        start = header.data_start + entry.begin
        raw = whole[start : header.data_start + entry.end]
        if entry.begin == entry.end:
            tensors[name] = torch.empty(entry.shape, dtype=entry.dtype)
            continue
        if start % entry.dtype.itemsize:
            raw = raw.clone()
        tensors[name] = raw.view(entry.dtype).view(entry.shape)
    return tensors


def map_file(path: Path) -> Tensor:
    """The bytes of a file, private and copy-on-write.

    Not ``torch.from_file``: Linux counts its writable mapping as memory to come and refuses a file
    larger than the machine's memory. Pages without a reservation are not counted.
    """
    with path.open("rb") as file:
        if sys.platform == "win32":
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        else:
            mapped = mmap.mmap(
                file.fileno(),
                0,
                flags=mmap.MAP_PRIVATE | NO_RESERVE,
                prot=mmap.PROT_READ | mmap.PROT_WRITE,
            )
    return torch.frombuffer(mapped, dtype=torch.uint8)


def file_header(
    path: Path, tensors: Mapping[str, Weight], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """The beginning of a file, up to its data, and the names in the order in which data follows.

    Padded with blanks so that the data begins on a page. Tensors are ordered by the largest power
    of two that divides their size, then by size: there are no gaps, and large ones lie on pages.

    Raises:
        CheckpointError: a dtype has no name in the format.
    """
    names = sorted(
        tensors, key=lambda name: (-_alignment(tensors[name]), -tensors[name].nbytes, name)
    )
    content: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in NAMES:
            raise CheckpointError(
                f"{path}: key {name!r} has dtype {tensor.dtype}, which "
                "safetensors cannot hold; convert it first"
            )
        content[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(8 + len(text)) % PAGE)
    return struct.pack("<Q", len(text)) + text, names


def write_file(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    written: Callable[[int], None] | None = None,
) -> None:
    """Writes ``tensors`` to ``path``, atomically.

    Laid out as :func:`file_header` says. Views with other strides are written slice by slice of
    their first axis, so memory stays at one slice. ``written`` is told how many bytes of tensors
    are written so far.

    Raises:
        CheckpointError: the file cannot be written, or a dtype has no name in the format.
    """
    text, names = file_header(path, tensors, metadata)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(text)
            done = 0
            for name in names:
                for piece in _slices(tensors[name].detach()):
                    file.write(_raw(piece))
                    done += piece.nbytes
                    if written is not None:
                        written(done)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be written ({error.strerror or error}); check the disk"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _alignment(tensor: Weight) -> int:
    size = tensor.nbytes
    return min(size & -size, PAGE) if size else PAGE


def _raw(piece: Tensor) -> Any:
    return piece.cpu().reshape(-1).view(torch.uint8).numpy()


def _slices(tensor: Tensor) -> Iterator[Tensor]:
    """Contiguous pieces in order, each at most a slice of the first axis."""
    if tensor.numel() == 0:
        return
    if tensor.is_contiguous() or tensor.dim() < 3:
        yield tensor.contiguous()
    else:
        for index in range(tensor.shape[0]):
            yield from _slices(tensor[index])
