"""By what a tokenizer is known again."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama4_core.tokenizers.tokenizer import Tokenizer

_PROBE = (
    "The year 2024's costs: 1,234.50 €!\n\n\tdef f(x):\n        return x ** 2  # naïve 日本語 🦙\n"
)


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """Equal for tokenizers of equal vocabularies.

    It sees what each id decodes to, the names and ids of special tokens, and how one line of text
    is cut up. Takes about a second for 200,000 ids.
    """
    digest = blake2b(digest_size=16)
    digest.update(repr((tokenizer.vocabulary, tokenizer.bos, dict(tokenizer.specials))).encode())
    digest.update(repr(tokenizer.encode(_PROBE)).encode())
    for token in range(tokenizer.vocabulary):
        digest.update(f"{tokenizer.decode([token], specials=True)}\0".encode())
    return digest.hexdigest()
