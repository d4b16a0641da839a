"""Names and layouts of the tensors in PEFT's ``adapter_model.safetensors``.

A matrix at the path ``P`` has ``base_model.model.P.lora_A.weight [r, in]`` and
``...lora_B.weight [out, r]``: ours exactly.

Stacks are another matter. PEFT wraps the module that holds them once for each targeted parameter,
in the order of the module's parameters: the last one's keys are those of the module, and
``.base_layer`` leads one wrapper further in. It keeps two dimensions, and takes the last axis of a
stack for the inputs. transformers stores Llama 4's ``[E, in, out]``, so to PEFT inputs are outputs:

====================  ==========================  ============================
stored                is, by experts              which is ours
====================  ==========================  ============================
``lora_A [E r, out]``  ``[E, r, out]``            B, transposed
``lora_B [in, r E]``   ``[in, r, E]``: r is slow   A, with the axes ``E, r, in``
====================  ==========================  ============================

Releases of PEFT before it looked at the order of the axes stored ``lora_A [E r, in]`` and
``lora_B [out, r E]``; shapes tell both apart, unless a stack is square.

Source: peft 0.21.2, ``tuners/lora/layer.py``, ``ParamWrapper``; transformers 5.23.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from llama4_core.checkpoints.keys import NAMINGS, Naming, Row, huggingface_rows
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec
from llama4_train.lora.experts import BANK
from llama4_train.lora.peft_config import PeftConfig

PREFIX = "base_model.model."
_KEY = re.compile(r"(?P<path>.+?)(?P<inner>(\.base_layer)*)\.lora_(?P<which>[AB])\.weight")


@dataclass(frozen=True)
class Factors:
    """The matrices of one adapter in our layout.

    Attributes:
        name: of the parameter in our model.
        path: of the module or stack in the foreign model.
        A, B: as :class:`~llama4_train.lora.low_rank.LowRank` has them.
    """

    name: str
    path: str
    A: Tensor
    B: Tensor


def is_stack(name: str) -> bool:
    """Whether a parameter is a stack of experts."""
    return name.rpartition(".")[2] in BANK


def foreign_path(row: Row) -> str:
    """What PEFT calls a target: a stack by its own name, a matrix by that of its module."""
    return row.theirs if is_stack(row.ours) else row.theirs.removesuffix(".weight")


def written(
    rows: Mapping[str, Row], factors: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, Tensor]:
    """Stored name -> tensor.

    Args:
        rows: of the whole model, by our names.
        factors: A and B by the name of the parameter.
    """
    stored: dict[str, Tensor] = {}
    for name, (A, B) in factors.items():
        path = foreign_path(rows[name])
        if is_stack(name):
            module, _, leaf = name.rpartition(".")
            # Wrapped later is further out.
            outer = sum(f"{module}.{other}" in factors for other in BANK[BANK.index(leaf) + 1 :])
            path = path.rpartition(".")[0] + ".base_layer" * outer
            A, B = B.transpose(1, 2).flatten(0, 1), A.permute(2, 1, 0).flatten(1, 2)
        stored[f"{PREFIX}{path}.lora_A.weight"] = A
        stored[f"{PREFIX}{path}.lora_B.weight"] = B
    return stored


def read(
    stored: Mapping[str, Tensor], config: PeftConfig, spec: ModelSpec, where: str
) -> list[Factors]:
    """Adapters in our layout, by the names of ``spec``.

    Args:
        stored: tensors by their names in the file.
        config: stored beside them.
        spec: of the model that they are put onto.
        where: names the file in errors.

    Raises:
        CheckpointError: a name is of nothing in this model, one of a pair is missing, or shapes do
            not fit.
    """
    found = _paired(stored, where)
    rows = _rows_of(found, spec)
    adapters: list[Factors] = []
    for path, pairs in found.items():
        names = _targets(path, pairs, rows, config, where)
        # The wrapper of the last parameter is the outermost.
        for row, (A, B) in zip(names, reversed(pairs), strict=True):
            if is_stack(row.ours):
                A, B = _stack(row, A, B, config, where)
            else:
                _check(row, A, B, where)
            adapters.append(Factors(row.ours, foreign_path(row), A, B))
    return adapters


def _paired(stored: Mapping[str, Tensor], where: str) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Path of a module -> A and B of each wrapper around it, outermost first."""
    halves: dict[tuple[str, int], dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        match = _KEY.fullmatch(key.removeprefix(PREFIX))
        if match is None or tensor.dim() != 2:
            raise CheckpointError(
                f"{where}: {key} {list(tensor.shape)} is no matrix of a plain LoRA adapter; merge "
                "this adapter with PEFT and load the merged model"
            )
        place = (match["path"], match["inner"].count(".base_layer"))
        halves.setdefault(place, {})[match["which"]] = tensor
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for (path, depth), pair in sorted(halves.items(), key=lambda item: item[0][1]):
        wrappers = found.setdefault(path, [])
        if len(pair) != 2 or len(wrappers) != depth:
            raise CheckpointError(
                f"{where}: the adapter of {path} lacks lora_{'B' if 'A' in pair else 'A'}, or a "
                "wrapper around it; write the file again"
            )
        wrappers.append((pair["A"], pair["B"]))
    return found


def _rows_of(found: Mapping[str, object], spec: ModelSpec) -> dict[str, list[Row]]:
    """Path of a module -> its parameters, in the naming that fits the most of ``found``."""

    def by_module(naming: Naming) -> dict[str, list[Row]]:
        modules: dict[str, list[Row]] = {}
        for row in huggingface_rows(spec, naming):
            modules.setdefault(row.theirs.rpartition(".")[0], []).append(row)
        return modules

    return max(map(by_module, NAMINGS), key=lambda modules: len(modules.keys() & found.keys()))


def _targets(
    path: str,
    pairs: list[tuple[Tensor, Tensor]],
    rows: Mapping[str, list[Row]],
    config: PeftConfig,
    where: str,
) -> list[Row]:
    """The parameters of a module that its wrappers change, innermost first."""
    held = rows.get(path, [])
    targets = [row for row in held if is_stack(row.ours) and config.targets(row.theirs)]
    if not targets:
        targets = [row for row in held if row.theirs.endswith(".weight")]
    if len(targets) != len(pairs):
        raise CheckpointError(
            f"{where}: there are {len(pairs)} adapters of {path}, in which this model has "
            f"{len(targets)} targeted parameters; load it onto the model that it was trained on"
        )
    return targets


def _stack(
    row: Row, lora_a: Tensor, lora_b: Tensor, config: PeftConfig, where: str
) -> tuple[Tensor, Tensor]:
    """A and B of a stack, from either layout."""
    experts, outputs, inputs = row.shape
    rank, rest = divmod(lora_a.shape[0], experts)
    swapped = lora_a.shape[1] == outputs and lora_b.shape[0] == inputs
    straight = lora_a.shape[1] == inputs and lora_b.shape[0] == outputs
    if rest or not rank or lora_b.shape[1] != lora_a.shape[0] or not (swapped or straight):
        raise CheckpointError(
            f"{where}: the adapter of {row.theirs} has matrices {list(lora_a.shape)} and "
            f"{list(lora_b.shape)}; expected [{experts} r, {outputs}] and [{inputs}, {experts} r]"
        )
    if swapped and straight and not _swaps(config.version):
        raise CheckpointError(
            f"{where}: {row.theirs} is square, and PEFT {config.version or 'of unknown version'} "
            "may have stored its adapter in either order of axes; save it again with PEFT 0.21"
        )
    first = lora_a.unflatten(0, (experts, rank))
    second = lora_b.unflatten(1, (rank, experts))
    if swapped:
        return second.permute(2, 1, 0), first.transpose(1, 2)
    return first, second.permute(2, 0, 1)


def _swaps(version: str) -> bool:
    """Whether a release surely looked at the order of the axes."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return match is not None and (int(match[1]), int(match[2])) >= (0, 21)


def _check(row: Row, A: Tensor, B: Tensor, where: str) -> None:
    outputs, inputs = row.shape if len(row.shape) == 2 else (0, 0)
    if A.shape[0] < 1 or A.shape != (B.shape[1], inputs) or B.shape[0] != outputs:
        raise CheckpointError(
            f"{where}: the adapter of {row.theirs} has matrices {list(A.shape)} and "
            f"{list(B.shape)}; expected [r, {inputs}] and [{outputs}, r]"
        )
