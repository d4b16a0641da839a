"""Llama 4's tokenizer from ranks of byte pairs, run by the tokenizers library or by tiktoken."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from llama4_core.errors import TokenizerError
from llama4_core.tokenizers.bytelevel import spelled
from llama4_core.tokenizers.merges import merges
from llama4_core.tokenizers.pieces import pieces
from llama4_core.tokenizers.ranks import check_bytes
from llama4_core.tokenizers.specials import BEGIN_OF_TEXT, special_ids
from llama4_core.tokenizers.tokenizer import REPLACEMENT, StreamDecoder, checked_text

Encoder = Callable[[str], Sequence[int]]
"""Ids of a piece of ordinary text; knows no special tokens."""

_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    (
        # Words, with at most one other character before them: lower case at the end, or only upper
        # case; English endings stay with them.
        f"{_BEFORE}{_UPPER}*{_LOWER}+{_ENDING}",
        f"{_BEFORE}{_UPPER}+{_LOWER}*{_ENDING}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""How text is split before pairs are merged: the public o200k pattern, which Llama 4 uses."""


class MetaTokenizer:
    """Tokens by rank, followed by the 2,048 special tokens of Llama 4.

    Args:
        ranks: tokens, each at the index that is its rank and id; all 256 single bytes among them.
        encoder: makes the :data:`Encoder` of the ranks: :func:`tokenizers_encoder` or
            :func:`tiktoken_encoder`, which give equal ids.
        source: where the ranks came from, for messages.
        bos: spelling or id of the beginning-of-text token; None for none.

    Raises:
        TokenizerError: a byte is missing, a token spells a special one, or ``bos`` is unknown.
    """

    def __init__(
        self,
        ranks: Sequence[bytes],
        encoder: Callable[[Sequence[bytes]], Encoder],
        *,
        source: str = "tokenizer.model",
        bos: str | int | None = BEGIN_OF_TEXT,
    ) -> None:
        check_bytes(ranks, source)
        self._specials = MappingProxyType(special_ids(len(ranks)))
        spelling = [name.encode() for name in self._specials]
        for token in set(spelling).intersection(ranks):
            raise TokenizerError(
                f"{source} lists {token.decode()!r} among the ordinary tokens; expected it among "
                "the special tokens only, where no text that a user types yields it"
            )
        self._hidden = [*ranks, *[b""] * len(spelling)]
        self._shown = [*ranks, *spelling]
        self._bos = self._find(bos, source)
        self._encoder = encoder(ranks)
        self._marks = re.compile("(" + "|".join(map(re.escape, self._specials)) + ")")

    @property
    def vocabulary(self) -> int:
        """Largest id plus 1."""
        return len(self._shown)

    @property
    def bos(self) -> int | None:
        """The beginning-of-text id, or None."""
        return self._bos

    @property
    def specials(self) -> Mapping[str, int]:
        """Special tokens by their spelling."""
        return self._specials

    def encode(self, text: str, *, bos: bool = True, specials: bool = False) -> list[int]:
        """Ids of ``text``; see :meth:`~llama4_core.tokenizers.tokenizer.Tokenizer.encode`.

        Takes time in proportion to the length; see :mod:`llama4_core.tokenizers.pieces`.
        """
        checked_text(text)
        ids = [self._bos] if bos and self._bos is not None else []
        # Every second part is a special token. It is found before long texts are cut, or a cut
        # could go through it.
        parts = self._marks.split(text) if specials else [text]
        for index, part in enumerate(parts):
            if index % 2:
                ids.append(self._specials[part])
            else:
                for piece in pieces(part):
                    ids.extend(self._encoder(piece))
        return ids

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """Text of ``ids``; see :meth:`~llama4_core.tokenizers.tokenizer.Tokenizer.decode`."""
        return b"".join(map(self._bytes(specials), ids)).decode("utf-8", "replace")

    def stream(self, *, specials: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one at a time."""
        return StreamDecoder(self._bytes(specials))

    def _bytes(self, specials: bool) -> Callable[[int], bytes]:
        table = self._shown if specials else self._hidden

        def spell(token: int) -> bytes:
            try:
                number = operator.index(token)
            except TypeError as error:
                raise TokenizerError(
                    f"cannot decode {token!r}; expected a token id, a whole number"
                ) from error
            if number < 0:
                raise TokenizerError(f"cannot decode the token id {number}; expected at least 0")
            return table[number] if number < len(table) else REPLACEMENT

        return spell

    def _find(self, bos: str | int | None, source: str) -> int | None:
        if bos is None:
            return None
        found = self._specials.get(bos) if isinstance(bos, str) else bos
        if found is None or not 0 <= found < self.vocabulary:
            raise TokenizerError(
                f"{source} has no token {bos!r}, which is named as the beginning of text; the "
                "files beside it belong to another tokenizer"
            )
        return found


def byte_pair_tokenizer(ranks: Sequence[bytes]) -> Any:
    """The tokenizers library's object for ranks, without special tokens."""
    import tokenizers
    from tokenizers import Regex, decoders, models, pre_tokenizers

    names = {token: spelled(token) for token in ranks}
    # ignore_merges: a piece that is a token as a whole is taken at once, as in tiktoken.
    model = models.BPE(
        vocab={names[token]: rank for rank, token in enumerate(ranks)},
        merges=[(names[left], names[right]) for left, right in merges(ranks)],
        ignore_merges=True,
    )
    built = tokenizers.Tokenizer(model)
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    built.decoder = decoders.ByteLevel()
    return built


def tokenizers_encoder(ranks: Sequence[bytes]) -> Encoder:
    """Encodes with the tokenizers library, from merges derived from the ranks."""
    built = byte_pair_tokenizer(ranks)

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = built.encode(text, add_special_tokens=False).ids
        return ids

    return encode


def tiktoken_encoder(ranks: Sequence[bytes]) -> Encoder:
    """Encodes with tiktoken.

    Raises:
        TokenizerError: tiktoken is not installed.
    """
    try:
        import tiktoken
    except ImportError as error:
        raise TokenizerError(
            f"tiktoken cannot be imported ({error}): pip install tiktoken, or use the tokenizer "
            "'meta', which gives the same ids"
        ) from error
    encoding = tiktoken.Encoding(
        "llama4",
        pat_str=PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(ranks)},
        special_tokens={},
    )
    encode: Encoder = encoding.encode_ordinary
    return encode
