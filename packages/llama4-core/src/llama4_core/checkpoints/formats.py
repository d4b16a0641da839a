"""What a checkpoint format is, and which of the installed ones a folder is written in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llama4_core.errors import CheckpointError, PluginError
from llama4_core.specs import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

    from llama4_core.checkpoints.shards import Progress
    from llama4_core.plugins.catalogue import Catalogue

log = logging.getLogger(__name__)

SHARD_BYTES = 4 * 1024**3


class CheckpointFormat(Protocol):
    """A way to lay out a model in a folder. Built as ``target()``; stateless.

    Canonical names are those of the model's ``state_dict()``, eyes included: ``vision.encoder.*``,
    ``vision.adapter.*`` and ``vision.projector.weight``.

    A format may offer more, and ``llama4 convert`` then uses it:

    * ``weights(folder, spec)``: as ``tensors``, but a value may be a
      :class:`llama4_core.checkpoints.joined.Joined`, whose parts lie in several files;
    * ``plan(weights, spec, *, shard_bytes, shards)``: the
      :class:`llama4_core.checkpoints.plan.Plan` of the files, so that writing can stop and go on;
    * ``tokenizer_file``: "tokenizer.json" or "tokenizer.model", where its readers expect that; a
      tokenizer in the other file is then written so, too;
    * ``takes_max_positions``: ``read_spec`` takes ``max_positions`` too, as the folder may not say;
    * ``on_request``: why :func:`detect` must not choose this format by itself.
    """

    def detect(self, folder: Path) -> bool:
        """Whether ``folder`` is in this format, judged by the names of its files alone."""

    def read_spec(self, folder: Path) -> ModelSpec:
        """The description that the folder carries."""

    def tensors(self, folder: Path, spec: ModelSpec) -> Mapping[str, Tensor]:
        """Canonical name -> tensor, mapped: views of the files, nothing copied."""

    def write(
        self,
        tensors: Mapping[str, Tensor],
        spec: ModelSpec,
        folder: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        progress: Progress | None = None,
    ) -> None:
        """Writes weights and description into the existing, empty ``folder``.

        Tensors may be views with any strides and are streamed, never gathered.
        """


def checkpoint_format(name: str, known: Catalogue | None = None) -> CheckpointFormat:
    """The format called ``name`` in the catalogue ``known``; None for what is installed."""
    from llama4_core.plugins.catalogue import catalogue

    found = (known or catalogue()).find("checkpoint_formats", name)
    built: CheckpointFormat = found.component.build()
    return built


def read_spec(form: CheckpointFormat, folder: Path, max_positions: int | None = None) -> ModelSpec:
    """The description in ``folder``, with the longest context where the format cannot say it.

    Raises:
        CheckpointError: ``max_positions`` is given and the format says it itself.
    """
    if max_positions is None:
        return form.read_spec(folder)
    if not getattr(form, "takes_max_positions", False):
        raise CheckpointError(
            f"max_positions is {max_positions}, but {folder} says itself how long a context may "
            "be; leave it out"
        )
    more: Any = form
    found: ModelSpec = more.read_spec(folder, max_positions=max_positions)
    return found


def detect(folder: Path, known: Catalogue | None = None) -> CheckpointFormat:
    """The one format of the catalogue ``known`` (None: what is installed) that ``folder`` is in.

    Raises:
        CheckpointError: none fits, or several do.
    """
    from llama4_core.plugins.catalogue import catalogue

    formats: dict[str, CheckpointFormat] = {}
    for entry in (known or catalogue()).components("checkpoint_formats"):
        try:
            formats[entry.full_name] = entry.component.build()
        except PluginError as error:
            # A broken format of somebody else must not keep ours from being read.
            log.warning("checkpoint format %s is left out: %s", entry.full_name, error)
    fitting = [name for name, candidate in formats.items() if candidate.detect(folder)]
    reasons = {name: getattr(formats[name], "on_request", None) for name in fitting}
    asked = {name: reason for name, reason in reasons.items() if reason}
    if fitting and list(asked) == fitting:
        short = fitting[0].rpartition("/")[2]
        raise CheckpointError(
            f"{folder}: is in the format {short}, which is only read when asked for, because "
            f"{asked[fitting[0]]}; say format={short!r} (--from {short})"
        )
    fitting = [name for name in fitting if name not in asked]
    if len(fitting) == 1:
        return formats[fitting[0]]
    if fitting:
        raise CheckpointError(
            f"{folder}: could be any of the formats {', '.join(fitting)}; keep the files of one"
        )
    inside = sorted(path.name for path in folder.iterdir())
    held = ", ".join(inside[:5]) + (", ..." if len(inside) > 5 else "") if inside else "nothing"
    raise CheckpointError(
        f"{folder}: not a checkpoint in any known format ({', '.join(formats)}); it holds {held}; "
        "expected config.json or spec.toml, and safetensors files"
    )
