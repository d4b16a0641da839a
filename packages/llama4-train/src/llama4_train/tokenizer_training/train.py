"""A tokenizer from texts to files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llama4_core.tokenizers.ranks import ranks_text
from llama4_core.tokenizers.specials import SPECIALS
from llama4_core.tokenizers.write import CONFIG, JSON, MODEL, settings_text, tokenizer_json
from llama4_train.errors import DataError
from llama4_train.tokenizer_training.ranks import SINGLE_BYTES, learn_ranks
from llama4_train.tokenizer_training.specials import specials_named


@dataclass(frozen=True)
class Learnt:
    """What was learnt.

    Attributes:
        vocabulary: tokens, special ones included.
        ranks: of them learnt from text, single bytes included.
        specials: names of the special tokens, in the order of their ids.
        files: that were written.
        texts: that were read.
        bytes: of them in UTF-8.
    """

    vocabulary: int
    ranks: int
    specials: tuple[str, ...]
    files: tuple[Path, ...]
    texts: int
    bytes: int


def train_tokenizer(
    texts: Iterable[str],
    folder: str | Path,
    *,
    vocabulary: int,
    specials: str = "all",
    digits: str = "triple",
    progress: Callable[[int, int], None] | None = None,
) -> Learnt:
    """Learns byte pairs and writes them down.

    Written are ``tokenizer.json`` with its ``tokenizer_config.json`` and, with all special tokens,
    Meta's ``tokenizer.model``, which gives the same ids. A file of ranks always stands for all
    2,048 of them, so that with fewer there is none.

    Args:
        texts: read once.
        folder: for the files; made if need be.
        vocabulary: tokens, special ones included.
        specials: "all" of Llama 4's, or "small": the 15 of
            :data:`~llama4_train.tokenizer_training.specials.SMALL`.
        digits: "single", or "triple" as in Llama 4.
        progress: called with the texts and bytes read so far, after each text.

    Raises:
        DataError: a setting is wrong, there is no text or too little of it, the folder holds a
            tokenizer already, or a file cannot be written. Nothing is written then.
    """
    place = Path(folder)
    names = specials_named(specials)
    least = SINGLE_BYTES + len(names)
    if type(vocabulary) is not int or vocabulary < least:
        raise DataError(
            f"the vocabulary is {vocabulary!r:.80}; expected at least {least:,}: {SINGLE_BYTES} "
            f"single bytes and {len(names):,} special tokens"
        )
    for name in (JSON, MODEL, CONFIG):
        if (place / name).exists():
            raise DataError(f"{place / name} is there already; name another folder, or remove it")
    seen = [0, 0]

    def counted() -> Iterator[str]:
        for text in texts:
            seen[0] += 1
            seen[1] += len(_checked(text))
            if progress is not None:
                progress(seen[0], seen[1])
            yield text

    ranks = learn_ranks(counted(), vocabulary - len(names), digits=digits)
    contents = {JSON: tokenizer_json(ranks, names), CONFIG: settings_text()}
    if names == SPECIALS:
        contents[MODEL] = ranks_text(ranks)
    files = _write(place, contents)
    return Learnt(vocabulary, len(ranks), names, files, seen[0], seen[1])


def _checked(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"a text holds a lone surrogate at character {error.start}, which is no valid Unicode"
        ) from error


def _write(folder: Path, contents: dict[str, str]) -> tuple[Path, ...]:
    """Writes files; none of them has its name before all are whole."""
    partial = {name: folder / f".{name}.{os.getpid()}.partial" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            partial[name].write_text(text, encoding="utf-8")
        for name, path in partial.items():
            path.replace(folder / name)
    except OSError as error:
        for path in partial.values():
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        raise DataError(
            f"{folder} cannot be written to ({error.strerror or error}); free some space, or name "
            "another folder"
        ) from error
    return tuple(folder / name for name in contents)
