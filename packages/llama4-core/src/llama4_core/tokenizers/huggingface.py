"""Byte-level tokenizers in Hugging Face's ``tokenizer.json``, run by the tokenizers library."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import tokenizers

from llama4_core.errors import TokenizerError
from llama4_core.tokenizers.bytelevel import unspelled
from llama4_core.tokenizers.tokenizer import REPLACEMENT, StreamDecoder, checked_text


class HuggingFaceTokenizer:
    """A byte-level BPE from a ``tokenizer.json``.

    Every added token counts as special, also one that the file forgot to mark so: text given to
    :meth:`encode` never yields its id unless ``specials=True`` asks for that.

    Args:
        text: the content of the file.
        source: where it came from, for messages.
        bos: spelling or id of the beginning-of-text token; None for none.

    Raises:
        TokenizerError: the content is damaged, not byte-level, or does not know ``bos``.
    """

    def __init__(
        self, text: str, *, source: str = "tokenizer.json", bos: str | int | None = None
    ) -> None:
        self._source = source
        self._text = text
        marked = self._build(text)
        if type(marked.decoder).__name__ != "ByteLevel":
            raise TokenizerError(
                f"{source} has the decoder {type(marked.decoder).__name__}; expected ByteLevel: "
                "only byte-level tokenizers, such as those of Llama 3 and 4, can be used"
            )
        self._check_numbers(marked)
        added = {token.content: n for n, token in marked.get_added_tokens_decoder().items()}
        self._specials = MappingProxyType(added)
        self._special_bytes = {n: content.encode() for content, n in added.items()}
        self._plain = self._without_specials(marked)
        vocabulary = marked.get_vocab(with_added_tokens=True)
        self._vocabulary = max(vocabulary.values(), default=-1) + 1
        self._bos = self._find(bos)
        self._bytes: dict[int, bytes] = {}

    @property
    def vocabulary(self) -> int:
        """Largest id plus 1."""
        return self._vocabulary

    @property
    def bos(self) -> int | None:
        """The beginning-of-text id, or None."""
        return self._bos

    @property
    def specials(self) -> Mapping[str, int]:
        """Special tokens by their spelling."""
        return self._specials

    def encode(self, text: str, *, bos: bool = True, specials: bool = False) -> list[int]:
        """Ids of ``text``; see :meth:`~llama4_core.tokenizers.tokenizer.Tokenizer.encode`."""
        checked_text(text)
        run = self._marked if specials else self._plain
        ids: list[int] = run.encode(text, add_special_tokens=False).ids
        if not specials and not self._special_bytes.keys().isdisjoint(ids):
            wrong = next(n for n in ids if n in self._special_bytes)
            raise TokenizerError(
                f"{self._source} encodes ordinary text as the special token {wrong}, "
                f"{self._special_bytes[wrong].decode()!r}; expected it to be an added token only, "
                "absent from the vocabulary of the file's model"
            )
        return [self._bos, *ids] if bos and self._bos is not None else ids

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """Text of ``ids``; see :meth:`~llama4_core.tokenizers.tokenizer.Tokenizer.decode`."""
        data = self._shown if specials else self._hidden
        return b"".join(map(data, ids)).decode("utf-8", "replace")

    def stream(self, *, specials: bool = False) -> StreamDecoder:
        """A decoder for ids that arrive one at a time."""
        return StreamDecoder(self._shown if specials else self._hidden)

    def _shown(self, token: int) -> bytes:
        """Bytes of an id, special tokens spelled out."""
        found = self._special_bytes.get(token)
        return self._ordinary(token) if found is None else found

    def _hidden(self, token: int) -> bytes:
        """Bytes of an id, none for special tokens."""
        return b"" if token in self._special_bytes else self._ordinary(token)

    def _ordinary(self, token: int) -> bytes:
        found = self._bytes.get(token)
        if found is None:
            found = self._bytes[token] = self._spell(token)
        return found

    def _spell(self, token: int) -> bytes:
        try:
            number = operator.index(token)
        except TypeError as error:
            raise TokenizerError(
                f"cannot decode {token!r}; expected a token id, a whole number"
            ) from error
        if number < 0:
            raise TokenizerError(f"cannot decode the token id {number}; expected at least 0")
        name = self._plain.id_to_token(number) if number < self._vocabulary else None
        if name is None:
            return REPLACEMENT
        try:
            return unspelled(name)
        except KeyError as error:
            raise TokenizerError(
                f"{self._source}: token {number} is {name!r}, which is not spelled in the "
                "byte-level alphabet; expected a byte-level vocabulary"
            ) from error

    @cached_property
    def _marked(self) -> Any:
        """The tokenizer that recognises specials, built when first asked for."""
        return self._build(self._text)

    def _without_specials(self, marked: Any) -> Any:
        """The tokenizer for ordinary text.

        The library can be told not to look for tokens marked special. Two gaps remain, closed by
        editing the file's content: an added token without that mark, and one that the model's own
        vocabulary lists too (with ``ignore_merges`` a whole word is looked up there).
        """
        own = marked.get_vocab(with_added_tokens=False)
        ordinary = [t for t in marked.get_added_tokens_decoder().values() if not t.special]
        double = [content for content in self._specials if content in own]
        if not (ordinary or double):
            marked.encode_special_tokens = True
            return marked
        content = json.loads(self._text)
        content["added_tokens"] = []
        vocabulary = content["model"]["vocab"]
        if isinstance(vocabulary, dict):
            # A NUL has another spelling in the byte-level alphabet, so no text reaches this name.
            for name in double:
                vocabulary[f"\0{name}"] = vocabulary.pop(name)
        return self._build(json.dumps(content))

    def _check_numbers(self, marked: Any) -> None:
        """Refuses a file whose numbers of added tokens the library does not keep.

        It numbers them on from the end of the model's vocabulary, whatever the file says.
        """
        for token in json.loads(self._text).get("added_tokens", ()):
            got = marked.token_to_id(token["content"])
            if got != token["id"]:
                raise TokenizerError(
                    f"{self._source} gives the added token {token['content']!r} the id "
                    f"{token['id']}, but the tokenizers library reads it as {got}; expected added "
                    "tokens to follow the vocabulary without gaps: fill the gaps with reserved "
                    "tokens"
                )

    def _build(self, text: str) -> Any:
        try:
            built = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises the bare class
            raise TokenizerError(
                f"{self._source} is no readable tokenizer ({error}); expected a tokenizer.json of "
                "the tokenizers library: fetch the file again"
            ) from error
        # Limits stored in the file would cut prompts silently.
        built.no_truncation()
        built.no_padding()
        return built

    def _find(self, bos: str | int | None) -> int | None:
        if bos is None:
            return None
        found = self._marked.token_to_id(bos) if isinstance(bos, str) else bos
        if found is None or not 0 <= found < self._vocabulary:
            raise TokenizerError(
                f"{self._source} has no token {bos!r}, which is named as the beginning of text; "
                "the files beside it belong to another tokenizer"
            )
        return int(found)
