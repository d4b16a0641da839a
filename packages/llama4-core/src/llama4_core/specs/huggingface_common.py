"""Keys that every level of a Hugging Face configuration may hold: outer, text and vision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llama4_core.specs import huggingface_keys as table
from llama4_core.specs.foreign import ForeignKeys
from llama4_core.specs.huggingface_write import DTYPES

CLASSES = {"llama4": "Llama4ForConditionalGeneration", "llama4_text": "Llama4ForCausalLM"}


@dataclass
class Common:
    """What every level of a configuration may hold."""

    name: str
    dtype: str | None
    tied: bool | None
    bos: int | None
    eos: tuple[int, ...]
    pad: int | None
    carried: dict[str, Any]


def read_common(keys: ForeignKeys, kind: str) -> Common:
    """Takes the keys of every level; ``kind`` is the level's model type."""
    keys.refuse(table.REFUSED)
    found = keys.take("model_type", kind)
    if found != kind:
        keys.fail("model_type", found, repr(kind))
    carried = keys.carried(table.CARRIED)
    carried |= keys.neutral(table.NEUTRAL_ANY, "only plain causal models are understood")
    carried |= keys.neutral(
        table.NEUTRAL_GENERATION, "sampling settings belong into generation_config.json"
    )
    architectures = carried.pop("architectures", None)
    if kind in CLASSES and architectures is not None and architectures != [CLASSES[kind]]:
        keys.fail("architectures", architectures, f"[{CLASSES[kind]!r}] for model_type {kind!r}")
    tied = keys.take("tie_word_embeddings", None)
    if tied is not None and not isinstance(tied, bool):
        keys.fail("tie_word_embeddings", tied, "true or false")
    eos = keys.take("eos_token_id", None)
    eos = () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)
    for token in eos:
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            keys.fail("eos_token_id", token, "a token id or a list of token ids")
    name, older = keys.take("_name_or_path", None), keys.take("name_or_path", None)
    return Common(
        name=str(name or older or ""),
        dtype=_dtype(keys),
        tied=tied,
        bos=keys.count("bos_token_id", None, at_least=0),
        eos=eos,
        pad=_pad(keys),
        carried=carried,
    )


def _pad(keys: ForeignKeys) -> int | None:
    """Some published files say -1 for none."""
    pad = keys.count("pad_token_id", None, at_least=-1)
    return None if pad == -1 else pad


def _dtype(keys: ForeignKeys) -> str | None:
    new, old = keys.take("dtype", None), keys.take("torch_dtype", None)
    dtype = new if new is not None else old
    if dtype is None:
        return None
    plain = dtype.removeprefix("torch.") if isinstance(dtype, str) else dtype
    if plain not in DTYPES:
        keys.fail("dtype", dtype, f"one of {', '.join(DTYPES)}")
    return str(plain)
