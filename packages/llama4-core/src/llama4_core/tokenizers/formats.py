"""Kinds of tokenizer files, and which of them a folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama4_core.errors import TokenizerError

if TYPE_CHECKING:
    from llama4_core.tokenizers.tokenizer import Tokenizer


class TokenizerFormat(Protocol):
    """A kind of tokenizer file. Built as ``target()``; stateless."""

    def detect(self, path: Path) -> bool:
        """Whether ``path``, a folder or a file, holds this kind.

        Judged by names and, where names do not tell, by the first bytes; what a name alone claims
        is claimed, so that a damaged file is an error of :meth:`load` and not overlooked.
        """

    def load(self, path: Path, *, bos: str | int | None = None) -> Tokenizer:
        """The tokenizer in the folder, or of the file, ``path``.

        Args:
            path: what :meth:`detect` said yes to.
            bos: spelling or id of the beginning-of-text token; None for what the files say.

        Raises:
            TokenizerError: a file is damaged, or the files contradict each other.
        """

    def write_sample(self, folder: Path) -> None:
        """Writes a small tokenizer of this kind, with a special token or more, into ``folder``.

        The conformance kit loads it: it proves the format without anybody's vocabulary.
        """


class HuggingFaceFormat:
    """``tokenizer.json``, with ``tokenizer_config.json`` and ``generation_config.json`` beside it.

    The beginning-of-text token is the ``bos`` given, else ``bos_token`` of the first, else
    ``bos_token_id`` of the second.
    """

    name = "tokenizer.json"

    def detect(self, path: Path) -> bool:
        """By the name of the file."""
        return _file(path, self.name).is_file() and _file(path, self.name).suffix == ".json"

    def load(self, path: Path, *, bos: str | int | None = None) -> Tokenizer:
        """See :meth:`TokenizerFormat.load`."""
        from llama4_core.tokenizers.huggingface import HuggingFaceTokenizer

        file = _file(path, self.name)
        if bos is None:
            bos = _bos(file.parent)
        return HuggingFaceTokenizer(_read(file), source=str(file), bos=bos)

    def write_sample(self, folder: Path) -> None:
        """See :meth:`TokenizerFormat.write_sample`."""
        from llama4_core.tokenizers.sample import sample_ranks
        from llama4_core.tokenizers.write import write_tokenizer_json

        write_tokenizer_json(sample_ranks(), folder)


class MetaFormat:
    """Meta's ``tokenizer.model``, a file of ranks.

    Args:
        engine: "tokenizers" or "tiktoken": the library that encodes. Their ids are equal.

    Raises:
        TokenizerError: there is no such engine.
    """

    name = "tokenizer.model"

    def __init__(self, engine: str = "tokenizers") -> None:
        if engine not in ("tokenizers", "tiktoken"):
            raise TokenizerError(f"engine is {engine!r}; expected 'tokenizers' or 'tiktoken'")
        self._engine = engine

    def detect(self, path: Path) -> bool:
        """By the name of the file, unless it is a SentencePiece model, which has the same name."""
        file = _file(path, self.name)
        if not file.is_file() or file.suffix != ".model":
            return False
        with file.open("rb") as opened:
            # The first field of a SentencePiece model, a piece: tag 1, a length, tag 1 again.
            start = opened.read(3)
        return not (start[:1] == b"\n" and start[2:] == b"\n")

    def load(self, path: Path, *, bos: str | int | None = None) -> Tokenizer:
        """See :meth:`TokenizerFormat.load`."""
        from llama4_core.tokenizers.meta import MetaTokenizer, tiktoken_encoder, tokenizers_encoder
        from llama4_core.tokenizers.ranks import read_ranks
        from llama4_core.tokenizers.specials import BEGIN_OF_TEXT

        file = _file(path, self.name)
        return MetaTokenizer(
            read_ranks(file),
            tiktoken_encoder if self._engine == "tiktoken" else tokenizers_encoder,
            source=str(file),
            bos=BEGIN_OF_TEXT if bos is None else bos,
        )

    def write_sample(self, folder: Path) -> None:
        """See :meth:`TokenizerFormat.write_sample`."""
        from llama4_core.tokenizers.ranks import write_ranks
        from llama4_core.tokenizers.sample import sample_ranks

        write_ranks(sample_ranks(), folder / self.name)


def _file(path: Path, name: str) -> Path:
    return path / name if path.is_dir() else path


def _bos(folder: Path) -> str | int | None:
    name = _settings(folder / "tokenizer_config.json").get("bos_token")
    if isinstance(name, dict):
        # Older files store the token with its flags.
        name = name.get("content")
    if name is None:
        name = _settings(folder / "generation_config.json").get("bos_token_id")
    if name is not None and (not isinstance(name, str | int) or isinstance(name, bool)):
        raise TokenizerError(
            f"{folder} names {name!r} as the beginning of text; expected a token or its id"
        )
    return name


def _settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(_read(path))
    except ValueError as error:
        raise TokenizerError(f"{path} is no valid JSON ({error}); fetch the file again") from error
    if not isinstance(content, dict):
        raise TokenizerError(f"{path} holds a {type(content).__name__}; expected an object")
    return content


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(f"{path} cannot be read ({error}); fetch the file again") from error
