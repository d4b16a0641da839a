"""Byte pairs learnt from text."""

from __future__ import annotations

from collections.abc import Iterable

from llama4_core.specs.suggest import nearest
from llama4_core.tokenizers.bytelevel import unspelled
from llama4_core.tokenizers.meta import PATTERN
from llama4_core.tokenizers.pieces import pieces
from llama4_train.errors import DataError

SINGLE_BYTES = 256

_NUMBERS = r"\p{N}{1,3}"
DIGITS = {"single": r"\p{N}", "triple": _NUMBERS}
"""How numbers are cut up: digit by digit, or as Llama 4 does, three digits together."""


def learn_ranks(
    texts: Iterable[str], count: int, *, digits: str = "triple", rarest: int = 2
) -> tuple[bytes, ...]:
    """The 256 single bytes, and the pairs that are merged, in the order in which they are.

    Text is cut up by Llama 4's pattern first, and pairs never reach over a cut. With single digits
    no pair of digits is ever learnt; the tokenizer that is written still uses Llama 4's own
    pattern, under which digits without pairs stay single. The same texts give the same ranks.

    Args:
        texts: read once; words are counted, and the texts not kept.
        count: of the ranks.
        digits: one of :data:`DIGITS`.
        rarest: how often a pair must occur to be merged.

    Raises:
        DataError: a setting is wrong, or the texts hold too few pairs.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    if digits not in DIGITS:
        raise DataError(
            f"digits are {digits!r:.80}{nearest(digits, DIGITS)}; expected one of "
            f"{', '.join(DIGITS)}"
        )
    if type(count) is not int or count < SINGLE_BYTES:
        raise DataError(
            f"{count!r:.80} ranks were asked for; expected at least the {SINGLE_BYTES} single bytes"
        )
    learner = Tokenizer(models.BPE())
    pattern = PATTERN.replace(_NUMBERS, DIGITS[digits])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=count,
        min_frequency=rarest,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    # Cut as the tokenizer will cut them, which also keeps each piece small.
    learner.train_from_iterator((piece for text in texts for piece in pieces(text)), trainer)
    numbers = learner.get_vocab(with_added_tokens=False)
    learnt = [unspelled(name) for name in sorted(numbers, key=numbers.__getitem__)]
    pairs = [token for token in learnt if len(token) > 1]
    if SINGLE_BYTES + len(pairs) < count:
        raise DataError(
            f"the texts give {SINGLE_BYTES + len(pairs):,} tokens, not {count:,}: no other pair "
            f"occurs {rarest} times; give more text, or a smaller vocabulary"
        )
    return (*(bytes((byte,)) for byte in range(SINGLE_BYTES)), *pairs)
