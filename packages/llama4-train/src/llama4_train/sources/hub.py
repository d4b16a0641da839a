"""The data source ``hub``: a data set of the Hugging Face hub, or of a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llama4_train.errors import DataError, NoMoreDataError
from llama4_train.protocols import Record
from llama4_train.sources.finite import Finite, check_state, check_walk, counted
from llama4_train.sources.permutation import Permutation
from llama4_train.sources.rows import ReadRow, row_reader

PREFIX = "hf:"
"""May stand before the name of a repository."""


class Hub:
    """Rows of a data set, through the library ``datasets``.

    Without ``streaming`` the whole split is downloaded once and mapped into memory, and rows are
    shuffled all together. With it nothing is kept; rows come in blocks of ``buffer``, within which
    they are shuffled. The library's own shuffle is not used, since its state leaves the buffer out.

    Args:
        repo: ``org/name``, with or without "hf:" before it, or a folder.
        split: part of the data set.
        name: of a configuration of the data set, where it has several.
        revision: branch, tag or commit; a commit makes a run repeatable.
        rows: what a row holds: "text", "chat" or "image-text".
        columns: names of the columns, where they are others; see
            :class:`~llama4_train.sources.parquet.Parquet`.
        streaming: read as it comes.
        buffer: rows of a block when streamed; a resumed run reads one block again.
        epochs: how often all is read; 0 for without end.
        shuffle: another order in each epoch.
        seed: of the orders.
        cache: folder of the library's files; None for its own choice.

    Raises:
        DataError: a setting is wrong, the library is not installed, or the data set cannot be
            read.
    """

    def __init__(
        self,
        repo: str,
        split: str = "train",
        name: str | None = None,
        revision: str | None = None,
        rows: str = "text",
        columns: Mapping[str, str] | None = None,
        streaming: bool = False,
        buffer: int = 1000,
        epochs: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        cache: str | None = None,
    ) -> None:
        read = row_reader(rows, columns or {})
        check_walk(epochs, shuffle, seed)
        if not isinstance(repo, str) or not repo.removeprefix(PREFIX):
            raise DataError(f"repo is {repo!r:.80}; expected org/name or a folder")
        if type(buffer) is not int or buffer < 1:
            raise DataError(f"buffer is {buffer!r:.80}; expected a whole number of at least 1")
        place = repo.removeprefix(PREFIX)
        data = _loaded(
            place,
            name,
            split=split,
            revision=revision,
            streaming=streaming,
            cache_dir=cache,
        )
        about = f"{place}, split {split}"
        folder = Path(place) if Path(place).is_dir() else None
        self._walk: Finite[Record] | _Streamed
        if streaming:
            order = seed if shuffle else None
            self._walk = _Streamed(data, read, about, folder, epochs, order, buffer)
        else:
            self._walk = Finite(_Mapped(data, read, about, folder), epochs, shuffle, seed)

    @property
    def fingerprint(self) -> str:
        """Of the data, as far as it is known without reading all of it."""
        return self._walk.fingerprint

    @property
    def endless(self) -> bool:
        """Whether it never ends."""
        return self._walk.endless

    def __iter__(self) -> Hub:
        return self

    def __next__(self) -> Record:
        return next(self._walk)

    def state(self) -> dict[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        return self._walk.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See :class:`~llama4_train.protocols.DataSource`.

        Raises:
            DataError: the state is of other data or of another order.
        """
        self._walk.restore(state)

    @staticmethod
    def sample_settings(folder: Path) -> Mapping[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        from llama4_train.sources.jsonl import Jsonl

        (folder / "data").mkdir()
        Jsonl.sample_settings(folder / "data")
        return {"repo": str(folder / "data"), "streaming": True, "cache": str(folder / "cache")}


class _Mapped:
    """Rows of a data set in memory-mapped files."""

    blocks = ()

    def __init__(self, data: Any, read: ReadRow, about: str, folder: Path | None) -> None:
        if not len(data):
            raise DataError(f"{about}: there are no rows in it")
        self._data, self._read, self._about, self._folder = data, read, about, folder
        ends = (len(data), data.column_names, data[0], data[len(data) - 1])
        self.fingerprint = blake2b(repr(ends).encode(), digest_size=8).hexdigest()

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, number: int) -> Record:
        return self._read(self._data[number], f"{self._about}, row {number + 1}", self._folder)


class _Streamed:
    """Rows of a data set as they come, in blocks that are mixed.

    A state is the library's own (shard and row) at the start of a block, and the place in the
    block, which is read again when the state is restored.
    """

    def __init__(
        self,
        data: Any,
        read: ReadRow,
        about: str,
        folder: Path | None,
        epochs: int,
        seed: int | None,
        buffer: int,
    ) -> None:
        self._data, self._read, self._place, self._folder = data, read, about, folder
        self._epochs, self._seed, self._buffer = epochs, seed, buffer
        order = "as stored" if seed is None else f"shuffled with seed {seed}"
        self._about = {"data": about, "order": f"{order}, in blocks of {buffer}"}
        self._first = deepcopy(data.state_dict())
        self._epoch = self._drawn = self._begun = 0
        self._start = self._first
        self._rows: list[Any] = []
        self._stream: Any = None

    @property
    def fingerprint(self) -> str:
        return self._place

    @property
    def endless(self) -> bool:
        return self._epochs == 0

    def __next__(self) -> Record:
        if self._drawn == len(self._rows):
            self._fill()
        at = self._drawn
        if self._seed is not None:
            at = Permutation(len(self._rows), f"{self._seed} {self._epoch} {self._begun}")[at]
        self._drawn += 1
        origin = f"{self._place}, row {self._begun + at + 1}"
        return self._read(self._rows[at], origin, self._folder)

    def _fill(self) -> None:
        """The next block of this epoch, or the first one of the next."""
        if self._epochs and self._epoch >= self._epochs:
            raise StopIteration
        before, begun = self._now(), self._begun + len(self._rows)
        rows = self._block()
        if not rows:
            if not begun:
                raise DataError(f"{self._place}: there are no rows in it")
            self._epoch, self._begun, self._rows, self._drawn = self._epoch + 1, 0, [], 0
            self._start, self._stream = self._first, None
            self._data.load_state_dict(deepcopy(self._first))
            self._fill()
            return
        self._start, self._begun, self._rows, self._drawn = before, begun, rows, 0

    def _now(self) -> dict[str, Any]:
        if self._stream is None:
            return self._start
        return deepcopy(self._data.state_dict())

    def _block(self) -> list[Any]:
        if self._stream is None:
            self._data.load_state_dict(deepcopy(self._start))
            self._stream = iter(self._data)
        rows: list[Any] = []
        while len(rows) < self._buffer:
            try:
                rows.append(next(self._stream))
            except StopIteration:
                break
            except Exception as error:
                # Nobody knows where the next row would begin.
                self._stream = None
                raise NoMoreDataError(_reason(self._place, error)) from error
        return rows

    def state(self) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "block": deepcopy(self._start),
            "row": self._begun,
            "place": self._drawn,
            **self._about,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        check_state(state, self._about)
        epoch, begun, drawn = (counted(state, name) for name in ("epoch", "row", "place"))
        if not isinstance(state.get("block"), Mapping):
            raise DataError(f"the stored state has block {state.get('block')!r:.80}")
        self._start, self._stream = deepcopy(dict(state["block"])), None
        self._rows = self._block() if drawn else []
        if drawn > len(self._rows):
            raise DataError(
                f"{self._place} has fewer rows than when the state was stored; resume with the "
                "data that the run was started with"
            )
        self._epoch, self._begun, self._drawn = epoch, begun, drawn


def _loaded(place: str, name: str | None, **settings: Any) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"data sets of the hub need the library datasets, which cannot be imported ({error}): "
            "pip install 'llama4-train[hub]'"
        ) from error
    if not Path(place).is_dir() and (place.startswith((".", "/", "~")) or place.count("/") != 1):
        # Elsewhere the library would ask the hub for it.
        raise DataError(
            f"there is no folder {place}; expected a folder with a data set, or org/name"
        )
    if settings["revision"] is not None and Path(place).is_dir():
        raise DataError(f"{place} is a folder, which has no revision; leave revision out")
    try:
        return datasets.load_dataset(place, name, **settings)
    except Exception as error:
        raise DataError(_reason(place, error)) from error


def _reason(place: str, error: Exception) -> str:
    # The library, and what it opens, raise errors of all kinds, with messages of many lines.
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return f"{place} cannot be read: {type(error).__name__}: {reason}"
