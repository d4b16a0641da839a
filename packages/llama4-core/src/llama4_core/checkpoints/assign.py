"""From mapped tensors to the weights of a module that was built on the meta device."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from llama4_core.checkpoints.keys import check_keys
from llama4_core.errors import CheckpointError

log = logging.getLogger(__name__)


def assign(
    module: nn.Module,
    stored: Mapping[str, Tensor],
    described: Collection[str] | None,
    folder: Path,
    *,
    cast: bool,
    device: torch.device,
) -> None:
    """Gives a module the stored tensors as its weights, copying nothing that need not be copied.

    Args:
        module: on the meta device.
        stored: weights by their names in the module.
        described: None where the module and what is stored have to agree. Where parts were put in
            the place of others, the names that the description accounts for: of these, what the
            module lacks is left out, and said; what the module has beyond them is the part's own
            affair, and is drawn.
        folder: where the weights come from.
        cast: into the dtypes that the module has; otherwise each weight stays as it is stored.
        device: where the weights go.

    Raises:
        CheckpointError: weights are missing, too many or misshapen, or a part cannot draw its own.
    """
    own = _fitting(module, stored, described, folder)
    wanted = module.state_dict() if cast else stored
    module.load_state_dict(
        {name: _placed(stored[name], wanted[name].dtype, device) for name in own},
        strict=False,
        assign=True,
    )
    _materialise(module, device)


def _fitting(
    module: nn.Module,
    stored: Mapping[str, Tensor],
    described: Collection[str] | None,
    folder: Path,
) -> list[str]:
    """The names to assign, after comparing what is stored with what the module has."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    got = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    if described is None:
        check_keys(got, wanted, str(folder))
        return list(wanted)
    unused = [name for name in got if name not in wanted and name in described]
    own = [name for name in wanted if name not in got and name not in described]
    check_keys(
        {name: shape for name, shape in got.items() if name not in unused},
        {name: shape for name, shape in wanted.items() if name not in own},
        str(folder),
    )
    if unused:
        log.warning(
            "%s: %d weights are not used by the parts in their place, and a model saved from this "
            "one will not have them: %s",
            folder,
            len(unused),
            ", ".join(unused[:5]),
        )
    return [name for name in wanted if name not in own]


def _placed(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The tensor itself if it can stay where and what it is, else a contiguous copy."""
    if dtype == tensor.dtype and device.type == "cpu":
        return tensor
    return torch.empty(tensor.shape, dtype=dtype, device=device).copy_(tensor)


def _materialise(root: nn.Module, device: torch.device) -> None:
    """Fills what the checkpoint does not hold: buffers that are never saved, weights of new parts.

    A module with such tensors says how in ``reset_parameters()``, as torch's own modules do.
    """
    for path, module in root.named_modules():
        own = dict(module.named_parameters(recurse=False)) | dict(
            module.named_buffers(recurse=False)
        )
        absent = [name for name, tensor in own.items() if tensor.is_meta]
        if not absent:
            continue
        reset = getattr(module, "reset_parameters", None)
        if reset is None:
            raise CheckpointError(
                f"{path}: {type(module).__name__} has {absent[0]!r}, which the checkpoint does not "
                "hold; expected a method reset_parameters() that fills it"
            )
        given = {name: own[name].detach() for name in own if name not in absent}
        module.to_empty(device=device, recurse=False)
        fresh: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
        fresh |= module.named_buffers(recurse=False)
        drawn = [fresh[name] for name in absent if fresh[name].is_floating_point()]
        with torch.no_grad():
            for tensor in drawn:
                tensor.fill_(torch.nan)
            reset()
        if any(bool(tensor.isnan().any()) for tensor in drawn):
            raise CheckpointError(
                f"{path}: {type(module).__name__}.reset_parameters() leaves some of "
                f"{', '.join(absent)} unfilled, which the checkpoint does not hold"
            )
        module.load_state_dict(given, strict=False, assign=True)
        log.warning(
            "%s: the checkpoint holds no values for %s, which starts with its own",
            path,
            type(module).__name__,
        )
