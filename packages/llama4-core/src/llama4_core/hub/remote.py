"""Checkpoints that stay where they are: headers and single tensors by HTTP range.

Of a checkpoint of hundreds of gigabytes this reads its description, its index, the headers of its
safetensors files (some kilobytes each), and of the weights only what is asked for.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from llama4_core.checkpoints.keys import (
    check_keys,
    huggingface_rows,
    naming_of,
    native_shapes,
    of_foreign_part,
)
from llama4_core.checkpoints.safetensors_file import (
    MAX_HEADER,
    NAMES,
    PAGE,
    Entry,
    Header,
    parse_header,
)
from llama4_core.checkpoints.shards import check_shard
from llama4_core.errors import CheckpointError
from llama4_core.hub.resolve import DESCRIPTIONS, INDEX, SINGLE, Progress, indexed, is_plain
from llama4_core.hub.settings import endpoint, is_address, is_commit, refuse_offline, repo_of, token
from llama4_core.hub.web import NotThereError, Web
from llama4_core.specs import ModelSpec
from llama4_core.specs.find import spec_from_path

log = logging.getLogger(__name__)

# Read at once from the start of a file: most headers of shards of whole tensors fit.
FIRST = 1 << 15


class RemoteCheckpoint:
    """A folder of safetensors on the Hub (``org/name``) or below any http or https address.

    Everything is read when it is first asked for, and once. The state of a repository is pinned at
    the first answer: a push in between does not mix two states.

    Args:
        place: ``org/name``, ``org/name@revision``, or an address.
        revision: branch, tag or commit of a repository.
        max_positions: longest context, for a ``params.json`` that does not say it.

    Raises:
        CheckpointError: ``place`` is neither, or the network is forbidden.
    """

    def __init__(
        self, place: str, revision: str | None = None, *, max_positions: int | None = None
    ) -> None:
        repo = None if is_address(place) else repo_of(place, revision)
        if repo is None and not is_address(place):
            raise CheckpointError(
                f"{place}: neither a repository (org/name) nor an http or https address"
            )
        if repo is None and revision is not None:
            raise CheckpointError(f"{place}: an address has no revision {revision!r}; leave it out")
        refuse_offline(place)
        self.repo = repo
        self.name = place if repo is None else str(repo)
        self._max_positions = max_positions
        self._commit: str | None = None
        self._address = place.rstrip("/")
        # An address may be anybody's: the token of the Hub is not for it.
        self._web = Web(None if repo is None else token())

    @property
    def received(self) -> int:
        """Bytes of content received so far."""
        return self._web.received

    def url(self, file: str) -> str:
        """Where ``file`` is."""
        if self.repo is None:
            return f"{self._address}/{quote(file)}"
        revision = quote(self._commit or self.repo.revision, safe="")
        return f"{endpoint()}/{self.repo.name}/resolve/{revision}/{quote(file)}"

    def read_small(self, file: str) -> bytes:
        """A small file as a whole.

        Raises:
            CheckpointError: it is not there, not allowed, or not small.
        """
        content, commit = self._web.text(self.url(file))
        if self._commit is None and commit is not None and is_commit(commit):
            self._commit = commit
        return content

    def pieces(self, file: str, begin: int, end: int) -> Iterator[bytes]:
        """The bytes ``begin`` up to ``end`` (exclusive) of ``file``, all of them, in pieces.

        Raises:
            CheckpointError: the server does not send ranges, the connection is lost, or the file
                has become shorter.
        """
        with self._web.get(self.url(file), begin, end) as reply:
            if reply.end != end:
                raise CheckpointError(
                    f"{self.name}: {file} ends before byte {end:,}; it changed while it was read: "
                    "try again"
                )
            yield from reply.pieces()

    @functools.cached_property
    def _described(self) -> tuple[str, ModelSpec]:
        for name in DESCRIPTIONS:
            try:
                text = self.read_small(name)
            except NotThereError:
                if name == DESCRIPTIONS[-1]:
                    raise
                continue
            title = (self.repo.name if self.repo else self._address).rpartition("/")[2]
            with tempfile.TemporaryDirectory() as scratch:
                # The readers take the name of the model from its folder.
                folder = Path(scratch) / (title if is_plain(title) else "remote")
                folder.mkdir()
                (folder / name).write_bytes(text)
                return name, spec_from_path(folder, max_positions=self._max_positions)
        raise CheckpointError(f"{self.name}: has none of {', '.join(DESCRIPTIONS)}")

    @property
    def description(self) -> str:
        """The name of the file that describes the model.

        Raises:
            CheckpointError: there is none.
        """
        return self._described[0]

    @property
    def spec(self) -> ModelSpec:
        """What the description says.

        Raises:
            CheckpointError: there is none.
            SpecError: it is not understood.
        """
        return self._described[1]

    @functools.cached_property
    def headers(self) -> Mapping[str, Header]:
        """File -> its header, checked as strictly as a local one, and against the index.

        Raises:
            CheckpointError: no weights in safetensors, damaged headers, or a server without ranges.
        """
        try:
            text = self.read_small(INDEX)
        except NotThereError:
            try:
                return {SINGLE: self._header(SINGLE)}
            except NotThereError as error:
                raise CheckpointError(
                    f"{self.name}: holds neither {INDEX} nor {SINGLE}; only safetensors can be "
                    "read by range"
                ) from error
        with tempfile.TemporaryDirectory() as scratch:
            index = Path(scratch) / INDEX
            index.write_bytes(text)
            files = indexed(index) or []
        keys: dict[str, list[str]] = {file: [] for file in files}
        for key, file in json.loads(text)["weight_map"].items():
            keys[file].append(key)
        found = {}
        for file in files:
            found[file] = self._header(file)
            check_shard(Path(self.name) / file, found[file], keys[file])
        return found

    def _header(self, file: str) -> Header:
        where = Path(self.name) / file
        with self._web.get(self.url(file), 0, FIRST) as reply:
            text = b"".join(reply.pieces())
            size = reply.size or 0
        if len(text) < 8:
            raise CheckpointError(f"{where}: has {size} bytes; expected a safetensors file")
        (length,) = struct.unpack("<Q", text[:8])
        if length > min(MAX_HEADER, size - 8):
            raise CheckpointError(
                f"{where}: its header claims {length:,} bytes, but the file has {size:,} and a "
                f"header at most {MAX_HEADER:,}; it is damaged"
            )
        if len(text) < 8 + length:
            with self._web.get(self.url(file), len(text), 8 + length) as reply:
                text += b"".join(reply.pieces())
        return parse_header(where, text[8 : 8 + length], size)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Stored name -> shape of every tensor."""
        return {
            name: entry.shape
            for header in self.headers.values()
            for name, entry in header.entries.items()
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all weight files."""
        return sum(header.file_size for header in self.headers.values())

    def check(self) -> None:
        """Compares the stored names and shapes with the description.

        Raises:
            CheckpointError: some are missing, unknown or misshaped; or Meta's description, whose
                weights cannot be read by range.
        """
        described, spec = self._described
        if described == "params.json":
            raise CheckpointError(
                f"{self.name}: Meta's format keeps its weights in pickle files, which cannot be "
                "read by range; only its description was read"
            )
        shapes = self.shapes
        if described == "spec.toml":
            expected = native_shapes(spec)
            shapes = {n: shape for n, shape in shapes.items() if not of_foreign_part(spec, n)}
        else:
            naming = naming_of(shapes)
            rows = huggingface_rows(spec, naming)
            expected = {row.theirs: row.their_shape for row in rows}
            if spec.tied:
                # A tied model may repeat its head.
                shapes.pop(naming.head, None)
        check_keys(shapes, expected, self.name)


def fetch_tensors(
    remote: RemoteCheckpoint,
    names: Iterable[str],
    out: Path,
    *,
    progress: Progress | None = None,
) -> None:
    """Writes the tensors ``names`` of ``remote`` into the safetensors file ``out``.

    Only their bytes are read (and the headers): neighbours in a file with one request, in pieces,
    so memory stays small. The file appears when it is complete.

    Args:
        remote: where from.
        names: as they are stored there.
        out: a file that does not exist yet.
        progress: told bytes done and in total.

    Raises:
        CheckpointError: an unknown name, no room, a lost connection, or ``out`` exists.
    """
    if out.exists():
        raise CheckpointError(f"{out}: exists; nothing is overwritten, choose another")
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    spans: list[_Span] = []
    total = 0
    for span, name, entry in _places(remote, names):
        content[name] = {
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [total, total + span.size],
        }
        total += span.size
        spans.append(span)
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-(8 + len(text)) % PAGE)
    partial = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _check_disk(out, total + len(text))
        with partial.open("wb") as target:
            target.write(struct.pack("<Q", len(text)))
            target.write(text)
            for _, _, piece in _read(remote, spans, progress):
                target.write(piece)
            target.flush()
            os.fsync(target.fileno())
        partial.replace(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        partial.unlink(missing_ok=True)


def fill(
    remote: RemoteCheckpoint,
    names: Iterable[str],
    folder: Path,
    *,
    progress: Progress | None = None,
) -> None:
    """Writes the files of ``remote`` into ``folder``, with holes where other tensors are.

    Args:
        remote: where from.
        names: the tensors that are filled in, as they are stored there.
        folder: where the files go.
        progress: told bytes done and in total.

    Raises:
        CheckpointError: an unknown name, no room, or a lost connection.
    """
    spans = [_Span(file, 0, header.data_start) for file, header in remote.headers.items()]
    spans += [span for span, _, _ in _places(remote, names)]
    spans.sort()
    _check_disk(folder, sum(span.size for span in spans))
    try:
        for file, header in remote.headers.items():
            with (folder / file).open("wb") as target:
                target.truncate(header.file_size)
        for file, offset, piece in _read(remote, spans, progress):
            with (folder / file).open("r+b") as target:
                target.seek(offset)
                target.write(piece)
    except OSError as error:
        raise _unwritable(folder, error) from error


class _Span(NamedTuple):
    file: str
    begin: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.begin


def _places(remote: RemoteCheckpoint, names: Iterable[str]) -> list[tuple[_Span, str, Entry]]:
    """Where the bytes of ``names`` are, in the order of the files."""
    wanted = set(names)
    unknown = wanted - remote.shapes.keys()
    if unknown:
        raise CheckpointError(f"{remote.name}: holds no tensor {min(unknown)!r}; see its index")
    found = [
        (_Span(file, header.data_start + entry.begin, header.data_start + entry.end), name, entry)
        for file, header in remote.headers.items()
        for name, entry in header.entries.items()
        if name in wanted
    ]
    return sorted(found, key=lambda place: place[:2])


def _read(
    remote: RemoteCheckpoint, spans: Sequence[_Span], progress: Progress | None
) -> Iterator[tuple[str, int, bytes]]:
    """The bytes of ``spans``: file, offset in it, and a piece; neighbours with one request."""
    total = sum(span.size for span in spans)
    runs: list[_Span] = []
    for span in spans:
        if runs and runs[-1].file == span.file and runs[-1].end == span.begin:
            runs[-1] = runs[-1]._replace(end=span.end)
        elif span.size:
            runs.append(span)
    done = 0
    for run in runs:
        offset = run.begin
        for piece in remote.pieces(*run):
            yield run.file, offset, piece
            offset += len(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)


def _check_disk(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place if place.is_dir() else place.parent).free
    if free < needed:
        raise CheckpointError(
            f"{place}: needs {needed / 1e9:.2f} GB, but the disk has {free / 1e9:.2f} GB free"
        )


def _unwritable(place: Path, error: OSError) -> CheckpointError:
    return CheckpointError(
        f"{place}: cannot be written ({error.strerror or error}); check the disk and its rights"
    )
