"""Bugs of checkpoint formats, planted into the native one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama4_core.checkpoints.huggingface import HuggingFaceFormat
from llama4_core.checkpoints.keys import native_shapes
from llama4_core.checkpoints.native import SPEC, NativeFormat
from llama4_core.specs import ModelSpec
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant

_NUMBERS = itertools.count()


class Swaps(NativeFormat):
    """Two weights of one shape trade places."""

    def tensors(self, folder: Path, spec: ModelSpec) -> Mapping[str, Tensor]:
        """Swaps keys and values."""
        other = {"k_proj": "v_proj", "v_proj": "k_proj"}
        return {
            ".".join(other.get(word, word) for word in name.split(".")): tensor
            for name, tensor in super().tensors(folder, spec).items()
        }


class Blind(NativeFormat):
    """Forgets the image encoder."""

    def tensors(self, folder: Path, spec: ModelSpec) -> Mapping[str, Tensor]:
        """Text only."""
        found = super().tensors(folder, spec)
        return {name: t for name, t in found.items() if not name.startswith("vision.")}


class Flushes(NativeFormat):
    """Signs of zeros and numbers that are none get lost."""

    def write(self, tensors: Mapping[str, Tensor], *rest: Any, **more: Any) -> None:
        """Adds a zero."""
        super().write({name: t + 0 for name, t in tensors.items()}, *rest, **more)


class Forgets(NativeFormat):
    """Reads another end of text than was written."""

    def read_spec(self, folder: Path) -> ModelSpec:
        """Keeps one."""
        spec = super().read_spec(folder)
        return replace(spec, tokens=replace(spec.tokens, eos=spec.tokens.eos[:1]))


class Invents(NativeFormat):
    """Fills what is missing with zeros, and drops what it does not know."""

    def tensors(self, folder: Path, spec: ModelSpec) -> Mapping[str, Tensor]:
        """Reads what fits."""
        found = super().tensors(folder, spec)
        dtype = getattr(torch, spec.dtype)
        return {
            name: found.get(name, torch.zeros(shape, dtype=dtype))
            for name, shape in native_shapes(spec).items()
        }


class Restless(NativeFormat):
    """Other bytes each time."""

    def write(self, tensors: Any, spec: ModelSpec, folder: Path, **more: Any) -> None:
        """Adds a number."""
        super().write(tensors, spec, folder, **more)
        (folder / "run.txt").write_text(str(next(_NUMBERS)))


class Untidy(NativeFormat):
    """Leaves a file beside the folder."""

    def write(self, tensors: Any, spec: ModelSpec, folder: Path, **more: Any) -> None:
        """Writes one file too many."""
        super().write(tensors, spec, folder, **more)
        (folder.parent / "small.partial").write_text("")


class Careless(NativeFormat):
    """Changes the weights that it was given."""

    def write(self, tensors: Any, spec: ModelSpec, folder: Path, **more: Any) -> None:
        """Clears numbers that are none."""
        super().write(tensors, spec, folder, **more)
        for tensor in tensors.values():
            tensor.nan_to_num_()


class Opens(NativeFormat):
    """Reads the description to know its folder."""

    def detect(self, folder: Path) -> bool:
        """Opens the file."""
        return super().detect(folder) and b"layers" in (folder / SPEC).read_bytes()


class Greedy(NativeFormat):
    """Takes every folder for its own."""

    def detect(self, folder: Path) -> bool:
        """Says yes."""
        return True


class Trusting(HuggingFaceFormat):
    """Takes the description for valid JSON."""

    def read_spec(self, folder: Path) -> ModelSpec:
        """Opens it without a net."""
        json.loads((folder / "config.json").read_text())["model_type"]
        return super().read_spec(folder)


class Mends(NativeFormat):
    """Deletes what it cannot read."""

    def tensors(self, folder: Path, spec: ModelSpec) -> Mapping[str, Tensor]:
        """Cleans up."""
        try:
            return super().tensors(folder, spec)
        except Exception:
            for path in folder.glob("*.safetensors"):
                path.unlink()
            raise


def _mutant(bug: str, check: str, target: type) -> Mutant:
    return Mutant(bug, check, Subject("checkpoint_formats", target.__name__, target))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("keys and values swapped", "save-and-load", Swaps),
    _mutant("vision dropped", "save-and-load", Blind),
    _mutant("minus zero lost", "save-and-load", Flushes),
    _mutant("an end of text forgotten", "save-and-load", Forgets),
    _mutant("zeros for missing weights", "nothing-is-made-up", Invents),
    _mutant("other bytes each time", "same-bytes-again", Restless),
    _mutant("a file beside the folder", "same-bytes-again", Untidy),
    _mutant("given weights changed", "same-bytes-again", Careless),
    _mutant("files opened to detect", "detection", Opens),
    _mutant("every folder detected", "detection", Greedy),
    _mutant("broken JSON trusted", "damaged-files", Trusting),
    _mutant("damaged files deleted", "damaged-files", Mends),
)
