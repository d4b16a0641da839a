"""Adapters in files of their own: those of PEFT, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from llama4_core.checkpoints.keys import CAUSAL, CONDITIONAL, huggingface_rows
from llama4_core.checkpoints.safetensors_file import map_tensors, read_header, write_file
from llama4_core.checkpoints.save import new_folder
from llama4_core.checkpoints.shards import read_json
from llama4_core.errors import CheckpointError
from llama4_train.lora.apply import check_free, freeze_rest
from llama4_train.lora.attach import (
    Adapted,
    Adapters,
    adapted,
    attach,
    places,
    refusal,
    refuse_none,
)
from llama4_train.lora.low_rank import LowRank
from llama4_train.lora.peft_config import CONFIG, Target, read_config, written_config
from llama4_train.lora.peft_keys import Factors, foreign_path, is_stack, read, written

WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"


def save_adapter(model: Any, folder: str | Path, *, base: str | None = None) -> list[str]:
    """Writes the adapters of ``model``, merged or not, as PEFT does.

    PEFT loads the folder onto what transformers makes of the exported checkpoint:
    ``Llama4ForConditionalGeneration`` where the description has an image encoder, and
    ``Llama4ForCausalLM`` where it has none. The folder appears only when it is complete.

    Args:
        model: an assembled model.
        folder: does not exist, or is empty.
        base: name or folder of the model that the adapter belongs to, written down for PEFT's own
            loader.

    Returns:
        Names of the parameters whose adapters were written.

    Raises:
        TrainingError: there is no adapter.
        CheckpointError: the folder is in use or cannot be written, or the model has a part that
            Hugging Face has no name for.
    """
    found = list(places(model))
    refuse_none(found, "adapter")
    naming = CONDITIONAL if model.spec.vision is not None else CAUSAL
    rows = {row.ours: row for row in huggingface_rows(model.spec, naming)}
    factors = {place.name: (place.adapter.A.detach(), place.adapter.B.detach()) for place in found}
    tensors = {name: one.contiguous() for name, one in written(rows, factors).items()}
    config = written_config(
        [
            Target(
                foreign_path(rows[place.name]),
                is_stack(place.name),
                place.adapter.rank,
                place.adapter.alpha,
                place.adapter.dropout,
            )
            for place in found
        ],
        base,
    )
    needed = sum(tensor.nbytes for tensor in tensors.values())
    with new_folder(Path(folder), needed) as partial:
        # transformers refuses files that do not say which framework wrote them.
        write_file(partial / WEIGHTS, tensors, {"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (partial / CONFIG).write_text(text, encoding="utf-8")
    return list(factors)


def load_adapter(model: Any, folder: str | Path) -> list[Adapted]:
    """Puts the adapters of a folder onto ``model``: what PEFT or :func:`save_adapter` wrote.

    As after :func:`~llama4_train.lora.apply_lora`, adapters alone are trained from here on, and
    ``merge`` writes them into the weights.

    Args:
        model: an assembled model, of the shape that the adapter was trained on.
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``.

    Returns:
        What was adapted, in the order of the model.

    Raises:
        CheckpointError: a file is missing or damaged, a setting is not known here, or the adapter
            is of another model. Nothing is changed then.
        TrainingError: a parameter has an adapter already.
    """
    place = Path(folder).expanduser()
    config = read_config(read_json(place / CONFIG), str(place / CONFIG))
    if not (place / WEIGHTS).is_file() and (place / _PICKLED).is_file():
        raise CheckpointError(
            f"{place}: holds {_PICKLED}, a pickle, which is never read; expected {WEIGHTS}: save "
            "it with PEFT's safe_serialization=True"
        )
    stored = map_tensors(read_header(place / WEIGHTS))
    factors = read(stored, config, model.spec, str(place / WEIGHTS))
    if not factors:
        raise CheckpointError(f"{place / WEIGHTS}: holds no adapter; expected at least one")
    check_free(model, (one.name for one in factors))
    fresh = [_adapter(model, one, config.alpha_of(one.path, one.A.shape[-2])) for one in factors]
    for module, adapters in fresh:
        attach(module, adapters)
    freeze_rest(model)
    names = {one.name for one in factors}
    return [one for one in adapted(model) if one.name in names]


@torch.no_grad()
def _adapter(model: nn.Module, one: Factors, alpha: float) -> tuple[nn.Module, Adapters]:
    path, _, parameter = one.name.rpartition(".")
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise CheckpointError(
            f"the adapter changes {one.name}, which this model runs without ({error}); install "
            "the package that runs it, or load an adapter of the text model"
        ) from error
    reason = refusal(model, module, parameter)
    if reason is not None:
        raise CheckpointError(
            f"the adapter changes {one.name}, which {reason}; merge this adapter with PEFT and "
            "load the merged model"
        )
    adapter = LowRank(getattr(module, parameter), one.A.shape[-2], alpha)
    adapter.A.copy_(one.A)
    adapter.B.copy_(one.B)
    return module, Adapters({parameter: adapter.train(module.training)})
