"""``adapter_config.json`` of PEFT: every key is honoured, or refused by name.

Written and read by the facts of PEFT 0.21.2.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama4_core.errors import CheckpointError

CONFIG = "adapter_config.json"

VERSION = "0.21.2"
"""Version of PEFT whose files are written."""

# What says nothing about the numbers: where adapters were put is told by the stored tensors, and
# how they began or were trained is over. `target_parameters` is read for the nesting of its keys.
_UNUSED = {
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
}
_HONOURED = {"alpha_pattern", "bias", "init_lora_weights", "lora_alpha", "peft_type"} | {
    "target_parameters",
    "use_rslora",
}
# Beginnings that change the base weights, so that the stored matrices alone say too little.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class PeftConfig:
    """What of an ``adapter_config.json`` the numbers depend on.

    Attributes:
        alpha: of adapters that no pattern names.
        alphas: regular expression over the end of a path -> alpha.
        root: whether a change is divided by the root of the rank, and not by the rank.
        parameters: targeted parameters, for the nesting of stored keys.
        version: of PEFT that wrote it, or "".
    """

    alpha: float
    alphas: Mapping[str, float]
    root: bool
    parameters: tuple[str, ...]
    version: str

    def alpha_of(self, path: str, rank: int) -> float:
        """Alpha such that the change of the adapter at ``path`` is ``(alpha / rank) B A``."""
        alpha = next(
            (
                alpha
                for pattern, alpha in self.alphas.items()
                if re.match(rf"(.*\.)?({pattern})$", path)
            ),
            self.alpha,
        )
        return alpha * math.sqrt(rank) if self.root else alpha

    def targets(self, path: str) -> bool:
        """Whether the parameter at ``path`` is among :attr:`parameters`."""
        return any(path == one or path.endswith(f".{one}") for one in self.parameters)


def read_config(values: Mapping[str, Any], where: str) -> PeftConfig:
    """Checks the content of an ``adapter_config.json``.

    Args:
        values: its content.
        where: names the file in errors.

    Raises:
        CheckpointError: another kind of adapter, or a key with a value that is not honoured.
    """
    kind = values.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{where}: peft_type is {kind!r}; expected 'LORA', the only kind of adapter that is "
            "known here"
        )
    if values.get("bias", "none") != "none":
        raise CheckpointError(
            f"{where}: bias is {values['bias']!r}; expected 'none': merge this adapter with PEFT"
        )
    begun = values.get("init_lora_weights", True)
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_BASE):
        raise CheckpointError(
            f"{where}: init_lora_weights is {begun!r}, which changes the base weights too; convert "
            "the adapter with PEFT's path_initial_model_for_weight_conversion, or merge it there"
        )
    for key, value in values.items():
        if key not in _UNUSED | _HONOURED and value not in (None, False, [], {}):
            raise CheckpointError(
                f"{where}: {key} is {value!r:.80}, which is not known here; merge this adapter "
                "with PEFT and load the merged model"
            )
    alphas = values.get("alpha_pattern") or {}
    parameters = values.get("target_parameters") or []
    numbers = [
        values.get("lora_alpha", 8),
        *(alphas.values() if isinstance(alphas, dict) else [""]),
    ]
    if not all(isinstance(number, int | float) and number > 0 for number in numbers):
        raise CheckpointError(
            f"{where}: lora_alpha is {numbers[0]!r} and alpha_pattern {alphas!r:.80}; expected "
            "numbers above 0"
        )
    if not _names(parameters):
        raise CheckpointError(
            f"{where}: target_parameters is {parameters!r:.80}; expected a list of names"
        )
    for pattern in alphas:
        _check_pattern(pattern, where)
    return PeftConfig(
        alpha=float(numbers[0]),
        alphas={pattern: float(alpha) for pattern, alpha in alphas.items()},
        root=bool(values.get("use_rslora")),
        parameters=tuple(parameters),
        version=str(values.get("peft_version") or ""),
    )


@dataclass(frozen=True)
class Target:
    """A stored adapter: path of its module or parameter in the foreign model, rank and alpha."""

    path: str
    stacked: bool
    rank: int
    alpha: float
    dropout: float


def written_config(targets: Sequence[Target], base: str | None) -> dict[str, Any]:
    """The content of an ``adapter_config.json`` for adapters of any ranks.

    Args:
        targets: at least one.
        base: name or folder of the model that they belong to, for people and for PEFT's own
            loader; None for not said.
    """
    rank = Counter(target.rank for target in targets).most_common(1)[0][0]
    alpha = Counter(target.alpha for target in targets).most_common(1)[0][0]
    stacked = [target.path for target in targets if target.stacked]
    return {
        "peft_type": "LORA",
        "peft_version": VERSION,
        "base_model_name_or_path": base,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _number(alpha),
        # Matters to who trains on with PEFT, which refuses it together with stacked experts.
        "lora_dropout": 0.0 if stacked else max(target.dropout for target in targets),
        "bias": "none",
        "target_modules": [target.path for target in targets if not target.stacked],
        "target_parameters": stacked or None,
        "rank_pattern": {
            re.escape(target.path): target.rank for target in targets if target.rank != rank
        },
        "alpha_pattern": {
            re.escape(target.path): _number(target.alpha)
            for target in targets
            if target.alpha != alpha
        },
    }


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _names(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) and value for value in values)


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise CheckpointError(
            f"{where}: alpha_pattern has {pattern!r}, which is no regular expression ({error})"
        ) from error
