"""The data source ``cached``: another source, tokenised once and kept in files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_train.errors import DataError
from llama4_train.protocols import DataSource, Example
from llama4_train.sources.finite import Finite, check_walk

if TYPE_CHECKING:
    from llama4_train.data.encode import Encoder

log = logging.getLogger(__name__)


class Cached:
    """Examples of a source that were tokenised before the run, mapped into memory.

    The first run writes the files, and goes on where an earlier one was killed. A cache that was
    written from other data, settings, length or tokenizer is refused. Shuffling and going through
    several times is done here, not in the source.

    Args:
        folder: of the cache.
        source: name of the component that reads the data; its records hold no pictures.
        settings: of it; it must have an end.
        epochs: how often all is read; 0 for without end.
        shuffle: another order in each epoch.
        seed: of the orders.
        shard_tokens: a file is closed when it has so many; None for 128 MiB.
        on_error: "stop" or "skip" at a record that cannot be used.

    Raises:
        DataError: a setting is wrong.
    """

    def __init__(
        self,
        folder: str | Path,
        source: str,
        settings: Mapping[str, Any] | None = None,
        epochs: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        shard_tokens: int | None = None,
        on_error: str = "stop",
    ) -> None:
        check_walk(epochs, shuffle, seed)
        if source == "cached":
            raise DataError("a cache of a cache was asked for; name the source of the data")
        if not isinstance(settings or {}, Mapping):
            raise DataError(f"settings are {settings!r:.80}; expected those of the source")
        if shard_tokens is not None and (type(shard_tokens) is not int or shard_tokens < 1):
            raise DataError(f"shard_tokens is {shard_tokens!r:.80}; expected at least 1, or None")
        self._folder, self._source, self._settings = Path(folder), source, dict(settings or {})
        self._epochs, self._shuffle, self._seed = epochs, shuffle, seed
        self._shard_tokens, self._on_error = shard_tokens, on_error
        self._found: Finite[Example] | None = None

    def prepare(self, encoder: Encoder) -> None:
        """Tokenises what is not yet tokenised, and opens the files.

        Raises:
            DataError: the source never ends, the cache is of something else, a record cannot be
                used, or the files cannot be written.
            ComponentError: there is no such source, or it cannot run here.
        """
        from llama4_core.plugins.catalogue import catalogue
        from llama4_train.data.cache import SHARD_TOKENS, CachedRows, write_cache
        from llama4_train.data.fingerprint import tokenizer_fingerprint

        component = catalogue().find("data_sources", self._source).component
        source: DataSource = component.build(**self._settings)
        if getattr(source, "endless", False):
            raise DataError(
                f"the source {self._source!r} never ends, and cannot be kept in {self._folder}; "
                "give it epochs = 1 or a limit, and the cache epochs = 0"
            )
        key = {
            "source": self._source,
            "settings": self._settings,
            "data": getattr(source, "fingerprint", ""),
            "length": encoder.length,
            "tokenizer": tokenizer_fingerprint(encoder.tokenizer),
        }
        summary = write_cache(
            source,
            encoder,
            self._folder,
            key,
            shard_tokens=self._shard_tokens or SHARD_TOKENS,
            on_error=self._on_error,
            progress=self._tell,
        )
        log.info("%s: %s", self._folder, summary)
        rows = CachedRows(self._folder, key)
        self._found = Finite(rows, self._epochs, self._shuffle, self._seed)

    def _tell(self, examples: int, tokens: int) -> None:
        log.info("%s: %s examples, %s tokens", self._folder, f"{examples:,}", f"{tokens:,}")

    @property
    def _walk(self) -> Finite[Example]:
        if self._found is None:
            raise DataError(
                "a cached source gives tokens, which need a tokenizer; call prepare(encoder) first"
            )
        return self._found

    def __iter__(self) -> Cached:
        return self

    def __next__(self) -> Example:
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

        settings = Jsonl.sample_settings(folder)
        return {
            "folder": str(folder / "cache"),
            "source": "jsonl",
            "settings": settings,
            "shard_tokens": 30,
        }
