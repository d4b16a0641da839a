"""A tokenizer from one format to the other: ranks to ``tokenizer.json``, and back."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from llama4_core.errors import TokenizerError
from llama4_core.tokenizers.bytelevel import unspelled
from llama4_core.tokenizers.formats import HuggingFaceFormat, MetaFormat
from llama4_core.tokenizers.merges import merges
from llama4_core.tokenizers.meta import PATTERN, byte_pair_tokenizer
from llama4_core.tokenizers.ranks import check_bytes, ranks_text, read_ranks
from llama4_core.tokenizers.specials import (
    BEGIN_OF_TEXT,
    END_OF_TEXT,
    END_OF_TURN,
    PAD,
    SPECIALS,
)

log = logging.getLogger(__name__)

JSON = HuggingFaceFormat.name
MODEL = MetaFormat.name
CONFIG = "tokenizer_config.json"


def tokenizer_json(ranks: Sequence[bytes], specials: Sequence[str] = SPECIALS) -> str:
    """The content of a Hugging Face ``tokenizer.json`` that gives the same ids.

    It begins every text with ``<|begin_of_text|>``, as the Hugging Face checkpoints do.

    Args:
        ranks: as of :class:`~llama4_core.tokenizers.meta.MetaTokenizer`.
        specials: special tokens in the order of their ids, which follow the ranks; all of Llama 4
            unless said otherwise. Only with these is there a ``tokenizer.model`` of the same ids.

    Raises:
        TokenizerError: a byte is missing, or ``<|begin_of_text|>`` is.
    """
    from tokenizers import AddedToken, processors

    check_bytes(ranks, "the table of ranks")
    if BEGIN_OF_TEXT not in specials:
        raise TokenizerError(f"{BEGIN_OF_TEXT!r} is not among the special tokens; expected it")
    built = byte_pair_tokenizer(ranks)
    built.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in specials]
    )
    built.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BEGIN_OF_TEXT} $A",
                pair=f"{BEGIN_OF_TEXT} $A {BEGIN_OF_TEXT}:1 $B:1",
                special_tokens=[(BEGIN_OF_TEXT, len(ranks) + specials.index(BEGIN_OF_TEXT))],
            ),
        ]
    )
    text: str = built.to_str()
    return text


def write_tokenizer_json(
    ranks: Sequence[bytes], folder: str | PathLike[str], *, eos: str = END_OF_TURN
) -> None:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json`` into an existing folder.

    Args:
        ranks: as of :class:`~llama4_core.tokenizers.meta.MetaTokenizer`.
        folder: of a Hugging Face checkpoint.
        eos: the end-of-text token that the configuration names; ``<|eot|>`` of the instruct models
            unless said otherwise.

    Raises:
        TokenizerError: a byte is missing.
    """
    Path(folder, JSON).write_text(tokenizer_json(ranks), encoding="utf-8")
    Path(folder, CONFIG).write_text(settings_text(eos), encoding="utf-8")


def missing_files(folder: Path, wanted: str, *, eos: Collection[int] = ()) -> dict[str, str]:
    """The tokenizer files that a checkpoint format wants and ``folder`` has in the other format.

    A tokenizer that the wanted file cannot hold stays as it is, with a warning in the log.

    Args:
        folder: of a checkpoint.
        wanted: "tokenizer.json" or "tokenizer.model".
        eos: ids that end a text; without that of ``<|eot|>`` among them, the configuration names
            ``<|end_of_text|>``, as those of base models do.

    Returns:
        Name -> content; nothing if the wanted file is there, or no tokenizer is.
    """
    if (folder / wanted).is_file():
        return {}
    try:
        if wanted == MODEL and (folder / JSON).is_file():
            text = (folder / JSON).read_text(encoding="utf-8")
            return {MODEL: ranks_text(ranks_of(text, source=str(folder / JSON)))}
        if wanted == JSON and MetaFormat().detect(folder):
            ranks = read_ranks(folder / MODEL)
            turns = not eos or len(ranks) + SPECIALS.index(END_OF_TURN) in eos
            found = {JSON: tokenizer_json(ranks)}
            if not (folder / CONFIG).is_file():
                found[CONFIG] = settings_text(END_OF_TURN if turns else END_OF_TEXT)
            return found
    except (OSError, UnicodeDecodeError, TokenizerError) as error:
        log.warning("%s: no %s is written beside the weights: %s", folder, wanted, error)
    return {}


def settings_text(eos: str = END_OF_TURN) -> str:
    """The content of ``tokenizer_config.json``.

    Args:
        eos: the end-of-text token.
    """
    settings = {
        "bos_token": BEGIN_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": eos,
        "model_input_names": ["input_ids", "attention_mask"],
        # With "_id" at the end, as some published files spell it, the name is in no vocabulary.
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return json.dumps(settings, indent=2) + "\n"


def ranks_of(text: str, *, source: str = "tokenizer.json") -> tuple[bytes, ...]:
    """The ranks of a ``tokenizer.json``, if ranks and Llama 4's special tokens say all of it.

    Raises:
        TokenizerError: the content is damaged, its merges are not those that ranks mean, it splits
            text in another way, or its special tokens are not those of Llama 4.
    """
    try:
        content = json.loads(text)
        model, added = content["model"], content["added_tokens"]
        ranks = _ranks(model["vocab"])
        splits = _patterns(content["pre_tokenizer"])
        merged = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
        order = [model["vocab"][left + right] for left, right in merged]
        pairs = {(unspelled(left), unspelled(right)) for left, right in merged}
        changes = content.get("normalizer")
        whole = bool(model.get("ignore_merges"))
        specials = {token["content"]: token["id"] for token in added}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TokenizerError(
            f"{source} is no byte-level tokenizer.json ({type(error).__name__}: {error}); only "
            "Llama 4's own can become a file of ranks"
        ) from error
    check_bytes(ranks, source)
    wrong = ""
    if specials != {name: len(ranks) + offset for offset, name in enumerate(SPECIALS)}:
        wrong = f"its {len(specials)} special tokens are not the {len(SPECIALS)} of Llama 4"
    elif splits != [PATTERN]:
        wrong = f"it splits text by {splits!r}, not by the pattern of Llama 4"
    elif changes is not None:
        wrong = f"its normalizer {changes!r:.80} changes the text"
    elif not pairs.issuperset(merges(ranks)):
        wrong = "some of the merges that its ids mean are missing"
    elif order != sorted(order):
        wrong = "its merges are not in the order of the ids that they make"
    elif not whole:
        wrong = "it has no ignore_merges, so a word that is a token may still come apart"
    if wrong:
        raise TokenizerError(
            f"{source} cannot become a file of ranks: {wrong}; keep the tokenizer.json"
        )
    return ranks


def _ranks(vocabulary: dict[str, int]) -> tuple[bytes, ...]:
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    # Some files repeat the special tokens in the vocabulary, behind the ranks.
    names = [name for name in names if name not in _SPECIALS]
    if [vocabulary[name] for name in names] != list(range(len(names))):
        raise ValueError("the ids of the vocabulary have gaps")
    return tuple(map(unspelled, names))


def _patterns(splitter: dict[str, Any]) -> list[str]:
    parts = splitter["pretokenizers"] if splitter["type"] == "Sequence" else [splitter]
    return [part["pattern"]["Regex"] for part in parts if part["type"] == "Split"]


_SPECIALS = frozenset(SPECIALS)
