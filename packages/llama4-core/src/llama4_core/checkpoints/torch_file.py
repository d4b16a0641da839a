"""Files of ``torch.save``: read without running anything, written without holding the weights.

Such a file is an uncompressed zip: ``data.pkl`` says which tensors there are, ``data/0``,
``data/1``, ... hold their bytes. ``data.pkl`` is pickle, which can run code when it is read; it is
read here with ``weights_only``, which refuses anything but tensors and plain containers, and only
after the zip was found sound. The bytes are mapped like those of safetensors.

Source of the layout: ``torch/serialization.py``, and ``caffe2/serialize/inline_container.cc`` for
alignment and data descriptors.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from llama4_core.checkpoints.safetensors_file import NO_RESERVE, map_file
from llama4_core.errors import CheckpointError

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_DESCRIPTOR = b"PK\x07\x08"


@dataclass(frozen=True)
class Record:
    """One member of the zip: where its bytes begin in the file, and how many they are."""

    name: str
    start: int
    size: int
    crc: int


def read_records(path: Path) -> dict[str, Record]:
    """The members of a zip, without the name of their common folder.

    Raises:
        CheckpointError: the file is no zip of ``torch.save``'s kind, or its parts overlap, lie
            outside the file, or contradict each other.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
            if not members:
                raise _damaged(path, "it is an empty archive")
            starts = [_data_start(path, file, member) for member in members]
            ends = [member.header_offset for member in members[1:]] + [archive.start_dir]
            for member, start, end in zip(members, starts, ends, strict=True):
                _check_member(path, member, start, min(end, size))
            folder = members[0].filename.partition("/")[0] + "/"
            records = {}
            for member, start in zip(members, starts, strict=True):
                if not member.filename.startswith(folder):
                    raise _damaged(path, f"member {member.filename!r} is not below {folder!r}")
                name = member.filename.removeprefix(folder)
                if name in records:
                    raise _damaged(path, f"member {name!r} is there twice")
                records[name] = Record(name, start, member.file_size, member.CRC)
            if "data.pkl" not in records:
                raise _damaged(path, "it has no data.pkl")
            _check_small(path, file, records)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror or error}); check that the file is there"
        ) from error
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError) as error:
        raise _damaged(path, f"it is not a sound zip ({error})") from error
    return records


def _data_start(path: Path, file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Where the bytes of a member begin, as its local header says; the two headers must agree."""
    file.seek(member.header_offset)
    mark, _, _, method, _, _, _, _, _, name_size, extra_size = _LOCAL.unpack(file.read(_LOCAL.size))
    name = file.read(name_size)
    extra = file.read(extra_size)
    if mark != b"PK\x03\x04" or method != member.compress_type:
        raise _damaged(path, f"member {member.filename!r} has no header where it should begin")
    if name != member.filename.encode():
        raise _damaged(path, f"member {member.filename!r} calls itself {name[:80]!r}")
    while extra:
        if len(extra) < 4:
            raise _damaged(path, f"the header of {member.filename!r} has a torn extra field")
        extra = extra[4 + struct.unpack_from("<H", extra, 2)[0] :]
    return member.header_offset + _LOCAL.size + name_size + extra_size


def _check_member(path: Path, member: zipfile.ZipInfo, start: int, end: int) -> None:
    name = member.filename
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise _damaged(path, f"member {name!r} is compressed; torch.save stores it plainly")
    # A data descriptor (16 bytes, 24 in large files) may follow, nothing else.
    if end - start - member.file_size not in (0, 16, 24):
        raise _damaged(
            path,
            f"member {name!r} has {member.file_size:,} bytes, but {end - start:,} lie between its "
            "header and what follows",
        )


def _check_small(path: Path, file: BinaryIO, records: Mapping[str, Record]) -> None:
    """Compares the checksums of all but the weights; writers that skip checksums leave zeros."""
    for record in records.values():
        if record.name.startswith("data/") or record.crc == 0:
            continue
        file.seek(record.start)
        content = file.read(record.size)
        if zlib.crc32(content) != record.crc:
            raise _damaged(path, f"member {record.name!r} does not have its checksum")
        if record.name == "byteorder" and content != b"little":
            raise CheckpointError(
                f"{path}: its numbers are stored {content[:20]!r}; expected b'little', so save it "
                "again on a little-endian machine"
            )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Maps every tensor of a file that holds a dict from names to tensors.

    ``BytesIO`` values (states of other libraries' modules) are left out: they hold no weights.

    Raises:
        CheckpointError: the file is damaged, asks for code to be run, or holds something else.
    """
    # Imports torch's tracer (seconds), so only when there is such a file to read.
    from torch._subclasses.fake_tensor import FakeTensorMode

    records = read_records(path)
    try:
        # Fake tensors know where their bytes lie in the file; nothing is read or allocated.
        with FakeTensorMode(), torch.serialization.safe_globals([io.BytesIO]):
            content = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # the unpickler raises whatever damaged instructions lead to
        reason = next((line for line in str(error).splitlines() if line.strip()), "no reason")
        if "Weights only load failed" in str(error):
            reason = "it asks for more than tensors and plain containers, which is never run"
        raise _damaged(path, f"its list of tensors cannot be read: {reason[:200]}") from error
    if not isinstance(content, dict):
        raise _damaged(path, f"it holds a {type(content).__name__}; expected a dict of tensors")
    by_start = {record.start: record for record in records.values()}
    whole = map_file(path)
    tensors = {}
    for name, value in content.items():
        if isinstance(value, io.BytesIO):
            continue
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _damaged(path, f"{name!r} is a {type(value).__name__}; expected a named tensor")
        if value.layout != torch.strided:
            raise _damaged(path, f"key {name!r} is {value.layout}; expected an ordinary tensor")
        tensors[name] = _view(path, name, value, by_start, whole)
    return tensors


def _view(
    path: Path, name: str, fake: Tensor, by_start: Mapping[int, Record], whole: Tensor
) -> Tensor:
    storage = fake.untyped_storage()
    record = by_start.get(getattr(storage, "_checkpoint_offset", None) or -1)
    if record is None or record.size != storage.nbytes():
        raise _damaged(path, f"key {name!r} claims bytes that no member of the archive holds")
    if fake.numel() == 0:
        return torch.empty(fake.shape, dtype=fake.dtype)
    size, offset = fake.dtype.itemsize, int(fake.storage_offset())
    last = offset + sum(
        (length - 1) * step for length, step in zip(fake.shape, fake.stride(), strict=True)
    )
    if offset < 0 or min(fake.stride(), default=0) < 0 or (last + 1) * size > record.size:
        raise _damaged(path, f"key {name!r} reaches beyond its {record.size:,} bytes")
    raw = whole[record.start : record.start + record.size]
    if record.start % size:
        raw = raw.clone()
    typed = raw.view(fake.dtype)
    # as_strided counts from the start of the mapping.
    return typed.as_strided(tuple(fake.shape), fake.stride(), typed.storage_offset() + offset)


def write_skeleton(path: Path, tensors: Mapping[str, tuple[Sequence[int], torch.dtype]]) -> None:
    """Writes a file for tensors of these shapes, with holes where their bytes belong."""
    starts, total = {}, 0
    for name, (shape, dtype) in tensors.items():
        starts[name] = total
        total += -(-max(math.prod(shape) * dtype.itemsize, 1) // 64) * 64
    # Address space only: torch.save wants tensors, but with skip_data never looks at their values.
    space = mmap.mmap(-1, total, **({"flags": mmap.MAP_PRIVATE | NO_RESERVE} if NO_RESERVE else {}))
    content = {
        name: torch.frombuffer(
            space, dtype=dtype, count=math.prod(shape), offset=starts[name]
        ).view(tuple(shape))
        for name, (shape, dtype) in tensors.items()
    }
    with torch.serialization.skip_data():
        torch.save(content, path)


def data_offsets(path: Path, names: Sequence[str]) -> dict[str, int]:
    """Where the bytes of each tensor of a skeleton begin; ``names`` in the order of writing."""
    records = read_records(path)
    return {name: records[f"data/{index}"].start for index, name in enumerate(names)}


def write_checksums(path: Path, sums: Sequence[int]) -> None:
    """Puts in the CRC-32 of each tensor's bytes, in order, as ``torch.save`` itself would have.

    They stand in the zip's directory and in the descriptors behind the data. Writing them twice
    changes nothing.
    """
    with zipfile.ZipFile(path) as archive:
        directory, count = archive.start_dir, len(archive.infolist())
    records = read_records(path)
    with path.open("r+b") as file:
        position = directory
        for _ in range(count):
            file.seek(position)
            fields = _CENTRAL.unpack(file.read(_CENTRAL.size))
            name = file.read(fields[10]).decode().partition("/")[2]
            if name.startswith("data/"):
                crc = struct.pack("<L", sums[int(name.removeprefix("data/"))])
                file.seek(position + 16)
                file.write(crc)
                end = records[name].start + records[name].size
                file.seek(end)
                if file.read(4) == _DESCRIPTOR:
                    file.seek(end + 4)
                    file.write(crc)
            position += _CENTRAL.size + fields[10] + fields[11] + fields[12]
        file.flush()
        os.fsync(file.fileno())


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a sound file of torch.save: {why}; fetch or write the file again"
    )
