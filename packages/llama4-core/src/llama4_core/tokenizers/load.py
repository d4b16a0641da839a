"""Finding the tokenizer of a model folder."""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.errors import TokenizerError

if TYPE_CHECKING:
    from llama4_core.tokenizers.tokenizer import Tokenizer


def load_tokenizer(
    folder: str | PathLike[str], *, bos: str | int | None = None
) -> Tokenizer | None:
    """The tokenizer of a folder, or None when the folder has none.

    Reads ``tokenizer.json``. The beginning-of-text token is ``bos`` if given, else ``bos_token`` of
    ``tokenizer_config.json``, else ``bos_token_id`` of ``generation_config.json``.

    Args:
        folder: of a checkpoint.
        bos: spelling or id, overriding what the files say (for example ``spec.tokens.bos``).

    Raises:
        TokenizerError: a file is damaged, or the files contradict each other.
    """
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        return None
    from llama4_core.tokenizers.huggingface import HuggingFaceTokenizer

    if bos is None:
        bos = _bos(Path(folder))
    return HuggingFaceTokenizer(_read(path), source=str(path), bos=bos)


def check_vocabulary(tokenizer: Tokenizer, vocabulary: int) -> None:
    """Refuses a tokenizer that can produce ids which a model does not have.

    A smaller tokenizer is fine: models pad their vocabulary.

    Args:
        tokenizer: to check.
        vocabulary: V of the model.

    Raises:
        TokenizerError: the tokenizer has more entries than the model.
    """
    if tokenizer.vocabulary > vocabulary:
        raise TokenizerError(
            f"the tokenizer has ids up to {tokenizer.vocabulary - 1}, the model has only "
            f"{vocabulary} entries; expected them to belong together: use the tokenizer of this "
            "model, or enlarge the model's vocabulary"
        )


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
