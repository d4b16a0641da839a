"""Options of commands that run a model, and the loading that they describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from llama4_core.cli.output import add_override_options, overrides_of

if TYPE_CHECKING:
    from llama4_core.model.transformer import Transformer


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Adds the model itself and all that decides how it is loaded."""
    parser.add_argument(
        "model",
        help="a checkpoint folder, a repository (org/name), or a model's name with --random",
    )
    parser.add_argument("--dtype", default="auto", help="auto (as stored), float32, bfloat16")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    parser.add_argument(
        "--random", type=int, metavar="SEED", help="random weights instead of stored ones"
    )
    parser.add_argument("--revision", help="branch, tag or commit of a repository")
    parser.add_argument(
        "--from",
        dest="source_format",
        metavar="FORMAT",
        help="format of the folder; only Meta's has to be named: --from meta",
    )
    add_override_options(parser)


def load_model(arguments: argparse.Namespace) -> Transformer:
    """Loads what the options of :func:`add_model_options` describe."""
    from llama4_core import load

    return load(
        arguments.model,
        dtype=arguments.dtype,
        device=arguments.device,
        overrides=overrides_of(arguments),
        random=arguments.random,
        plugins=arguments.plugin,
        revision=arguments.revision,
        format=arguments.source_format,
    )
