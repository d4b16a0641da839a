"""Finding the tokenizer of a model folder."""

from __future__ import annotations

import logging
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.errors import ComponentError, TokenizerError

if TYPE_CHECKING:
    from llama4_core.plugins.catalogue import Catalogue, Entry
    from llama4_core.tokenizers.formats import TokenizerFormat
    from llama4_core.tokenizers.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

AUTO = "auto"


def load_tokenizer(
    path: str | PathLike[str],
    *,
    bos: str | int | None = None,
    name: str = AUTO,
    known: Catalogue | None = None,
) -> Tokenizer | None:
    """The tokenizer of a folder, or None when the folder has none.

    Asks the components of the socket ``tokenizers``, highest priority first: a ``tokenizer.json``
    comes before a ``tokenizer.model``, which tiktoken runs where it is installed.

    Args:
        path: of a checkpoint's folder, or of a tokenizer's file.
        bos: spelling or id, overriding what the files say (for example ``spec.tokens.bos``).
        name: of the component, instead of "auto".
        known: the catalogue to ask; None for what is installed.

    Raises:
        TokenizerError: a file is damaged, the files contradict each other, or the kind that was
            named is not there.
        ComponentError: the name is unknown, or the component cannot run here.
    """
    from llama4_core.plugins.catalogue import catalogue

    place = Path(path)
    found = known or catalogue()
    if name != AUTO:
        entry = found.find("tokenizers", name)
        reason = entry.component.refusal(None)
        if reason:
            raise ComponentError(f"tokenizer {name!r} {reason}")
        kind: TokenizerFormat = entry.component.build()
        if not kind.detect(place):
            raise TokenizerError(
                f"{place} holds nothing that the tokenizer {name!r} reads; name the folder or the "
                "file of a tokenizer of that kind"
            )
        return kind.load(place, bos=bos)
    for entry in _ranked(found):
        kind = entry.component.build()
        if kind.detect(place):
            logger.debug("%s is read by the tokenizer %s", place, entry.full_name)
            return kind.load(place, bos=bos)
    return None


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


def _ranked(known: Catalogue) -> list[Entry]:
    """What "auto" may choose, best first; third parties' only where they are allow-listed."""
    able = [
        entry
        for entry in known.components("tokenizers")
        if entry.allowed
        and entry.component.rank(None) > 0
        and entry.component.refusal(None) is None
    ]
    return sorted(able, key=lambda entry: (-entry.component.rank(None), entry.full_name))
