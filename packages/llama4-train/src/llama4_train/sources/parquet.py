"""The data source ``parquet``: columns of Parquet files, row group by row group."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from llama4_core.specs.suggest import nearest
from llama4_train.errors import DataError
from llama4_train.protocols import Record
from llama4_train.sources.files import files_of, fingerprint_of
from llama4_train.sources.finite import Finite, Joined
from llama4_train.sources.rows import ReadRow, row_reader

# Rows in a group of the sample.
_GROUP = 4


class Parquet(Finite[Record]):
    """Rows of Parquet files.

    One row group is held in memory at a time, or ``window`` of them when shuffled, and of each only
    the columns that are needed.

    Args:
        files: path, glob, or a list of them.
        rows: what a row holds: "text", "chat" or "image-text".
        columns: names of the columns, where they are others than the fields of
            :class:`~llama4_train.sources.rows.TextRow`, ``ChatRow`` or ``PictureRow``:
            ``{"field": "content"}``.
        epochs: how often all is read; 0 for without end.
        shuffle: another order in each epoch: of the row groups, and of the rows of ``window``
            neighbouring ones.
        seed: of the orders.
        window: row groups that are mixed.

    Raises:
        DataError: a setting is wrong, a file is missing, damaged or lacks a column, or there is no
            row.
    """

    def __init__(
        self,
        files: str | Path | Sequence[str | Path],
        rows: str = "text",
        columns: Mapping[str, str] | None = None,
        epochs: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        window: int = 4,
    ) -> None:
        read = row_reader(rows, columns or {})
        held = window if shuffle and type(window) is int and window > 0 else 1
        paths = files_of(files)
        tables = [_Table(path, read, held) for path in paths]
        if not any(map(len, tables)):
            raise DataError(f"{', '.join(map(str, paths[:4]))}: there are no rows in there")
        joined = Joined(tables, fingerprint_of(paths, read))
        super().__init__(joined, epochs, shuffle, seed, window)

    @staticmethod
    def sample_settings(folder: Path) -> Mapping[str, Any]:
        """See :class:`~llama4_train.protocols.DataSource`."""
        import pyarrow
        import pyarrow.parquet

        for name, count in (("a", 11), ("b", 7)):
            texts = pyarrow.table({"text": [f"{name} {n}" for n in range(count)], "n": [0] * count})
            path = str(folder / f"{name}.parquet")
            pyarrow.parquet.write_table(texts, path, row_group_size=_GROUP)
        return {"files": str(folder / "*.parquet")}

    @staticmethod
    def damage(folder: Path) -> str:
        """See :class:`~llama4_train.protocols.DataSource`."""
        import pyarrow
        import pyarrow.parquet

        path = str(folder / "b.parquet")
        texts = pyarrow.parquet.read_table(path)["text"].to_pylist()
        texts[2] = None
        pyarrow.parquet.write_table(
            pyarrow.table({"text": texts, "n": [0] * len(texts)}),
            path,
            row_group_size=_GROUP,
        )
        return "b.parquet, row 3"


class _Table:
    """Rows of one file."""

    fingerprint = ""

    def __init__(self, path: Path, read: ReadRow, held: int) -> None:
        self._path, self._read = path, read
        with _opened(path) as file:
            groups = [
                file.metadata.row_group(number).num_rows
                for number in range(file.metadata.num_row_groups)
            ]
            self._columns = _needed(read, file.schema_arrow.names, path)
        # A group without rows is none.
        self._groups = [number for number, rows in enumerate(groups) if rows]
        self.blocks = tuple(groups[number] for number in self._groups)
        self._starts = [0, *accumulate(self.blocks)]
        self._group = lru_cache(maxsize=held)(self._load)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, number: int) -> Record:
        at = bisect_right(self._starts, number) - 1
        row = self._group(at).slice(number - self._starts[at], 1).to_pylist()[0]
        return self._read(row, f"{self._path}, row {number + 1}", self._path.parent)

    def _load(self, at: int) -> Any:
        import pyarrow

        with _opened(self._path) as file:
            try:
                return file.read_row_group(self._groups[at], columns=self._columns)
            except (OSError, pyarrow.ArrowException) as error:
                raise DataError(
                    f"{self._path}: row group {self._groups[at]} cannot be read ({error})"
                ) from error


def _opened(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(
            f"Parquet needs pyarrow, which cannot be imported ({error}): pip install "
            "'llama4-train[parquet]'"
        ) from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is no Parquet file, or a damaged one ({error})") from error


def _needed(read: ReadRow, names: Sequence[str], path: Path) -> list[str]:
    """The columns that rows are made of; refuses a table that has none of them."""
    wanted = [str(name) for name in vars(read).values()]
    found = [name for name in wanted if name in names]
    if not found:
        raise DataError(
            f"{path} has no column {wanted[0]!r}{nearest(wanted[0], names)}; it has "
            f"{', '.join(map(repr, names[:8]))}"
        )
    return found
