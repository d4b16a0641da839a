"""What this package offers to the catalogue. Imports without torch."""

from __future__ import annotations

from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl

OBJECTIVES = (
    Component(
        "next-token",
        "llama4_train.objectives.next_token:NextToken",
        "weighted cross-entropy of the next token, z-losses, auxiliary load balancing",
        priority=10,
    ),
)

DATA_SOURCES = (
    Component(
        "text",
        "llama4_train.sources.text:Text",
        "files of running text, by file, blank line or line",
    ),
    Component(
        "jsonl",
        "llama4_train.sources.jsonl:Jsonl",
        "texts in a field of JSON lines",
    ),
    Component(
        "chat-jsonl",
        "llama4_train.sources.jsonl:ChatJsonl",
        "conversations in OpenAI's form, with tools and pictures, in JSON lines",
    ),
    Component(
        "image-text-jsonl",
        "llama4_train.sources.jsonl:ImageTextJsonl",
        "pictures with captions or questions, in JSON lines",
    ),
    Component(
        "parquet",
        "llama4_train.sources.parquet:Parquet",
        "texts, conversations or pictures in columns of Parquet files",
        requires=("pyarrow",),
    ),
    Component(
        "hub",
        "llama4_train.sources.hub:Hub",
        "data sets of the Hugging Face hub, whole or streamed",
        requires=("datasets",),
    ),
    Component(
        "cached",
        "llama4_train.sources.cached:Cached",
        "another source, tokenised once and mapped into memory",
    ),
    Component(
        "worlds",
        "llama4_train.worlds.source:WorldSource",
        "synthetic worlds with exact answers, without end",
    ),
)

OPTIMIZERS = (
    Component(
        "adamw",
        "llama4_train.optimizers.adamw:adamw",
        "AdamW: decay on matrices, none on vectors and embeddings; float32 masters",
        priority=10,
    ),
    Component(
        "muon",
        "llama4_train.optimizers.muon:muon",
        "Muon for matrices and each expert of a stack, AdamW for the rest; float32 masters",
        priority=5,
    ),
)

COMMANDS = (
    Component(
        "show.training", "llama4_train.cli.training:Command", "draw the curves of a training run"
    ),
    Component("train", "llama4_train.cli.train:Command", "run a training recipe, or go on"),
    Component(
        "train.tokenizer",
        "llama4_train.cli.tokenizer:Command",
        "learn a tokenizer from text",
    ),
    Component(
        "train.ablate",
        "llama4_train.cli.ablate:Command",
        "compare recipes over seeds at equal active FLOPs",
    ),
    Component(
        "train.stages",
        "llama4_train.cli.stages:Command",
        "train in stages that change chunk, length, mixture and temperature",
    ),
    Component(
        "evaluate",
        "llama4_train.cli.evaluate:Command",
        "measure a model: perplexity, worlds, passkeys, lm-eval",
    ),
)

TRACKERS = (
    Component(
        "jsonl",
        "llama4_train.trackers.jsonl:JsonLines",
        "a line of JSON for every step, in log.jsonl; always on",
        priority=10,
    ),
    Component(
        "progress",
        "llama4_train.trackers.progress:Progress",
        "a line on the terminal: loss, tokens/s, use of the machine, time left",
    ),
    Component(
        "tensorboard",
        "llama4_train.trackers.tensorboard:TensorBoard",
        "curves for TensorBoard",
        requires=("tensorboard",),
    ),
    Component(
        "wandb",
        "llama4_train.trackers.weights_and_biases:WeightsAndBiases",
        "Weights & Biases, offline unless it is told otherwise",
        requires=("wandb",),
    ),
    Component(
        "carbon",
        "llama4_train.trackers.carbon:Carbon",
        "energy and CO2 of the run by codecarbon, without the network, in carbon.json",
        requires=("codecarbon",),
    ),
)


@hookimpl
def llama4_objectives() -> tuple[Component, ...]:
    """Our objectives."""
    return OBJECTIVES


@hookimpl
def llama4_data_sources() -> tuple[Component, ...]:
    """Our data sources."""
    return DATA_SOURCES


@hookimpl
def llama4_optimizers() -> tuple[Component, ...]:
    """Our optimizers."""
    return OPTIMIZERS


@hookimpl
def llama4_commands() -> tuple[Component, ...]:
    """Our commands."""
    return COMMANDS


@hookimpl
def llama4_trackers() -> tuple[Component, ...]:
    """Our trackers."""
    return TRACKERS
