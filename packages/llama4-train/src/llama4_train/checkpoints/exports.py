"""A model leaves its run: as a folder that everybody can load."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from llama4_core.checkpoints.save import carry_files, write_checkpoint
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec, MoESpec
from llama4_train.checkpoints.runs import StoredModel, is_run, running_spec, stored_model

log = logging.getLogger(__name__)

BALANCED = "sigmoid-top-k-balanced"
PLAIN = "sigmoid-top-k"
_BIAS = re.compile(r"layers\.(\d+)\.feed_forward\.router\.bias")


def export(
    source: Any,
    target: str | Path,
    format: str = "huggingface",  # noqa: A002 - the public name of the argument
    *,
    drop_bias: bool = False,
    tokenizer: str | Path | None = None,
) -> None:
    """Writes the model of a run into the new folder ``target``, with tokenizer and licences.

    Adapters of a run are merged into its weights.

    Llama 4's routers choose by ``sigmoid(logit)`` alone: neither Hugging Face's nor Meta's format
    has a place for the bias that balances the load of ``sigmoid-top-k-balanced``. Where every bias
    is exactly zero, as at the end of a run whose schedule has ``release``, they are left out of
    each format and the routers called ``sigmoid-top-k``, which chooses the same, bit for bit. Any
    other is refused by those two unless ``drop_bias`` says so, as without it some tokens visit
    other experts.

    Args:
        source: folder of a run (its latest checkpoint is taken), folder of a checkpoint, or a
            model.
        target: does not exist, or is an empty folder.
        format: "huggingface", "meta", "native", or a plugin's checkpoint format.
        drop_bias: leave out a balancing bias that is not zero, also of the native format.
        tokenizer: folder whose tokenizer goes along instead of the run's or the model's.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, a bias would be lost, a model has
            adapters, ``target`` is in use, or the format cannot hold the model.
    """
    if isinstance(source, str | Path):
        if not is_run(source):
            raise CheckpointError(
                f"{source}: is neither the folder of a run nor of a checkpoint of one; expected "
                "what `llama4 train` wrote"
            )
        stored = stored_model(source)
    else:
        for name, module in source.named_modules():
            refusal = getattr(module, "refuses_saving", None)
            if refusal is not None:
                raise CheckpointError(f"{target}: {name} {refusal}")
        stored = StoredModel(
            running_spec(source), source.state_dict(), source.extra_weights, source.folder, Path()
        )
    spec, tensors = without_bias(
        stored.spec, stored.tensors, keep=format == "native" and not drop_bias, drop=drop_bias
    )
    with tempfile.TemporaryDirectory() as place:
        carried = Path(place)
        # What is first there stays.
        if tokenizer is not None:
            carry_files(Path(tokenizer).expanduser(), carried)
        if stored.carried is not None:
            carry_files(stored.carried, carried)
        if not any(carried.glob("tokenizer*")):
            log.warning("%s: no tokenizer is known, none goes along; say its folder", target)
        write_checkpoint(
            {**tensors, **stored.aside}, spec, Path(target), format, carry_from=carried
        )


def without_bias(
    spec: ModelSpec, tensors: Mapping[str, Tensor], *, keep: bool, drop: bool
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Description and tensors without the balancing bias of the routers.

    Args:
        spec: routers named as they ran.
        tensors: state of the model.
        keep: leave everything as it is where a bias is not zero.
        drop: leave out a bias that is not zero, too.

    Raises:
        CheckpointError: a bias is not zero, and neither ``keep`` nor ``drop`` is said.
    """
    layers, left, used = list(spec.layers), dict(tensors), []
    for name, tensor in tensors.items():
        match = _BIAS.fullmatch(name)
        index = int(match.group(1)) if match else -1
        forward = layers[index].feed_forward
        if match is None or not isinstance(forward, MoESpec) or forward.router != BALANCED:
            continue
        if bool(tensor.any()):
            used.append((name, float(tensor.abs().max())))
        del left[name]
        layers[index] = replace(layers[index], feed_forward=replace(forward, router=PLAIN))
    if used and keep:
        return spec, dict(tensors)
    if used and not drop:
        raise CheckpointError(
            f"{len(used)} routers balance their load by a bias (the largest is "
            f"{max(size for _, size in used):.3g}, {used[0][0]}), which has no place in this "
            "format: export with drop_bias=True and evaluate the result, or in the native format"
        )
    if used:
        log.warning("the balancing bias of %d routers is left out", len(used))
    return replace(spec, layers=tuple(layers)), left
