"""Hugging Face folders of Llama 4: ``config.json`` and sharded safetensors."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llama4_core.checkpoints.formats import SHARD_BYTES
from llama4_core.checkpoints.keys import (
    CAUSAL,
    CONDITIONAL,
    Naming,
    check_keys,
    huggingface_rows,
    naming_of,
)
from llama4_core.checkpoints.plan import Plan, refuse_shards, safetensors_plan
from llama4_core.checkpoints.shards import Progress, map_folder, read_json
from llama4_core.checkpoints.stream import Journal, fill
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec
from llama4_core.specs.huggingface import huggingface_from_spec, spec_from_huggingface

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight

log = logging.getLogger(__name__)

CONFIG = "config.json"


class HuggingFaceFormat:
    """Reads and writes what ``Llama4ForCausalLM`` and ``Llama4ForConditionalGeneration`` do."""

    tokenizer_file = "tokenizer.json"

    def detect(self, folder: Path) -> bool:
        """A configuration, and weights in safetensors."""
        return (folder / CONFIG).is_file()

    def read_spec(self, folder: Path) -> ModelSpec:
        """Reads ``config.json``; every key is honoured or refused by name."""
        return spec_from_huggingface(read_json(folder / CONFIG), str(folder / CONFIG))

    def tensors(self, folder: Path, spec: ModelSpec) -> Mapping[str, Tensor]:
        """Maps the folder; expert weights are transposed views.

        Raises:
            CheckpointError: missing, unknown or misshaped keys, or damaged files.
        """
        stored = map_folder(folder)
        naming = naming_of(stored)
        rows = huggingface_rows(spec, naming)
        if spec.tied:
            _drop_tied_head(stored, naming, folder)
        check_keys(
            {key: tuple(tensor.shape) for key, tensor in stored.items()},
            {row.theirs: row.their_shape for row in rows},
            str(folder),
        )
        return {
            row.ours: stored[row.theirs].transpose(-2, -1) if row.transposed else stored[row.theirs]
            for row in rows
        }

    def plan(
        self,
        weights: Mapping[str, Weight],
        spec: ModelSpec,
        *,
        shard_bytes: int = SHARD_BYTES,
        shards: int | None = None,
    ) -> Plan:
        """The files that :meth:`write` writes: shards, their index and the configuration.

        Raises:
            CheckpointError, SpecError: the model has a part that this format cannot hold.
        """
        refuse_shards(shards, "huggingface")
        config = huggingface_from_spec(spec)
        naming = CONDITIONAL if spec.vision is not None else CAUSAL
        rows = huggingface_rows(spec, naming)
        check_keys(
            {name: tuple(weight.shape) for name, weight in weights.items()},
            {row.ours: row.shape for row in rows},
            "the Hugging Face format",
        )
        return safetensors_plan(
            {
                row.theirs: weights[row.ours].transpose(-2, -1)
                if row.transposed
                else weights[row.ours]
                for row in rows
            },
            shard_bytes=shard_bytes,
            # transformers refuses files that do not say which framework wrote them.
            metadata={"format": "pt"},
            texts={CONFIG: json.dumps(config, indent=2, sort_keys=True) + "\n"},
        )

    def write(
        self,
        tensors: Mapping[str, Tensor],
        spec: ModelSpec,
        folder: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        progress: Progress | None = None,
    ) -> None:
        """Writes configuration, shards and index.

        Raises:
            CheckpointError: the model has a part that this format cannot hold.
        """
        fill(self.plan(tensors, spec, shard_bytes=shard_bytes), folder, Journal(), progress)


def _drop_tied_head(stored: dict[str, Tensor], naming: Naming, folder: Path) -> None:
    """A tied model may carry its head a second time; it has to be the embedding."""
    head = stored.get(naming.head)
    embedding = stored.get(f"{naming.text}embed_tokens.weight")
    if head is None or embedding is None:
        return
    if head.shape != embedding.shape or not torch.equal(head, embedding):
        raise CheckpointError(
            f"{folder}: {CONFIG} says tie_word_embeddings, but {naming.head} differs from "
            "the embedding; set tie_word_embeddings to false to keep both"
        )
    log.info("%s: %s repeats the tied embedding and is left out", folder, naming.head)
    del stored[naming.head]
