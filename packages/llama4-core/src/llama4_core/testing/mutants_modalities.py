"""Bugs of modalities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.errors import ModalityError
from llama4_core.model import transformer
from llama4_core.model.aside import Aside
from llama4_core.model.fusion import fuse
from llama4_core.protocols.modalities import Reading
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant, patched

LIMIT = 12


@dataclass
class Row:
    """A few numbers, which are one input."""

    values: list[float]


class Rows(nn.Module):
    """Reads rows of numbers, each of which becomes one feature; with one bug, or none.

    Args:
        spec: of the model.
        parts: not needed.
        bug: which, or "".
    """

    kinds: tuple[str, ...] = ("row",)

    def __init__(self, spec: Any, parts: Any, bug: str = "") -> None:
        super().__init__()
        self.bug = bug
        self.placeholder = spec.tokens.image
        # Stands for whatever processing depends on, as tiles do on their size.
        self.scale = float(spec.vision.image_size)
        width = spec.width + 1 if bug == "another width" else spec.width
        self.inner = nn.Linear(1, 8)
        self.outer = nn.Linear(8, width)
        if bug == "an idle weight":
            self.idle = nn.Parameter(torch.zeros(3))
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def sample(self, seed: int) -> Row:
        """A row; the second of each pair has the first one's numbers backwards."""
        values = [float(seed // 2), 0.5, -1.0, 2.5][: 2 + seed // 2 % 3]
        return Row(values[::-1] if seed % 2 else values)

    def read(self, parts: Sequence[Any], tokenizer: Any) -> list[Reading]:
        """One reading per row."""
        bug = self.bug
        if len(parts) > LIMIT and bug != "no limit":
            said = {"a silent limit": "too many", "half of the limit": f"at most {LIMIT} rows"}
            raise ModalityError(said.get(bug, f"got {len(parts)} rows; expected at most {LIMIT}"))
        if bug == "seeds chance":
            torch.manual_seed(0)
        elif bug == "another default":
            torch.set_default_dtype(torch.float64)
        elif bug == "gradients off":
            torch.set_grad_enabled(False)
        readings = [self._reading(part) for part in parts]
        if bug == "backwards":
            return readings[::-1]
        if bug == "sorted":
            return sorted(readings, key=lambda reading: reading.key)
        if bug == "each once":
            return list({reading.key: reading for reading in readings}.values())
        return readings

    def _reading(self, part: Any) -> Reading:
        bug = self.bug
        if not isinstance(part, Row) or not part.values:
            if bug == "reads anything":
                part = Row([1.0])
            elif bug == "another error":
                raise TypeError(f"got {part!r}")
            else:
                said = f"got {part!r:.40}; expected a Row with numbers"
                raise ModalityError(f"{said}\nhere" if bug == "two lines" else said)
        if bug == "changes the source":
            part.values.sort()
        count = len(part.values)
        inputs = torch.tensor(part.values, dtype=torch.float32)[:, None] / self.scale
        if bug == "noise":
            inputs = inputs + torch.rand(count, 1)
        key = repr((part.values, self.scale))
        if bug == "one key":
            key = "key"
        elif bug == "the object's key":
            key = str(id(part))
        elif bug == "the content's key":
            key = repr(part.values)
        elif bug == "an unordered key":
            key = repr((sorted(part.values), self.scale))
        tokens = (self.placeholder,) * (count - (bug == "a place missing"))
        if bug == "wide ids":
            tokens = (*tokens, 10**6)
        return Reading(key, tokens, count + (bug == "a place too many"), inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """``[B, 1] -> [B, 1, D]``."""
        bug = self.bug
        if inputs.dim() != 2 or inputs.shape[1] != 1:
            if bug != "encodes anything":
                raise ModalityError(f"inputs have shape {list(inputs.shape)}; expected [B, 1]")
            inputs = inputs.reshape(-1, 1)
        if bug == "works in place":
            inputs.mul_(2)
        elif bug == "counts":
            self.calls = torch.ones(())
        elif bug == "looks around":
            inputs = inputs - inputs.mean()
        hidden = self.inner(inputs)
        if bug == "detached":
            hidden = hidden.detach()
        elif bug == "a wrong slope":
            hidden = hidden + (hidden.round() - hidden).detach()
        elif bug == "overflows":
            hidden = hidden / inputs
        y: Tensor = self.outer(torch.tanh(hidden) if bug != "overflows" else hidden)[:, None]
        if bug == "rows backwards":
            return y.flip(0)
        if bug == "twice":
            return torch.cat([y, y], dim=1)
        if bug == "flat":
            return y[:, 0]
        return y.float() if bug == "single precision" else y

    def annotate(self, part: Any, text: str, path: Path) -> list[dict[str, Any]]:
        """Refuses: there is no picture."""
        if self.bug == "makes folders":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return []
        if not path.parent.is_dir():
            raise ModalityError(f"{path} cannot be written")
        if self.bug in ("half a file", "no plain values"):
            path.write_text(text)
        if self.bug == "no plain values":
            return [{"box": torch.zeros(4)}]
        if self.bug == "no file":
            return []
        raise ModalityError("a row has no picture to draw on")


class Shrugs(Aside):
    """Reads nothing, and does not say so."""

    def read(self, parts: Sequence[Any], tokenizer: Any) -> Any:
        """Nothing, whatever it is asked for."""
        return []


def _one_later(hidden: Tensor, places: Tensor, features: Tensor) -> Tensor:
    return fuse(hidden, places.roll(1), features)


def _added(hidden: Tensor, places: Tensor, features: Tensor) -> Tensor:
    return torch.where(places[:, None], hidden + fuse(hidden, places, features), hidden)


def _scaled(hidden: Tensor, places: Tensor, features: Tensor) -> Tensor:
    return fuse(hidden * (1 + 2**-20), places, features)


def _wrong_way(hidden: Tensor, places: Tensor, features: Tensor) -> Tensor:
    return fuse(hidden, places, features.flip(0))


def _mutant(check: str, bug: str) -> Mutant:
    return Mutant(bug, check, subject(bug))


def subject(bug: str = "") -> Subject:
    """Rows with a bug, or without one."""
    name = bug.replace(" ", "-").replace("'", "") or "rows"
    return Subject("modalities", name, lambda spec, parts: Rows(spec, parts, bug))


def _fused(bug: str, broken: Callable[..., Tensor]) -> Mutant:
    check = "features-take-their-places-only"
    return Mutant(bug, check, subject(), patched(transformer, "fuse", broken))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("as-many-places-as-features", "a place missing"),
    _mutant("as-many-places-as-features", "a place too many"),
    _mutant("as-many-places-as-features", "twice"),
    _mutant("as-many-places-as-features", "wide ids"),
    _mutant("features-fit-the-model", "another width"),
    _mutant("features-fit-the-model", "single precision"),
    _mutant("features-fit-the-model", "overflows"),
    _mutant("features-fit-the-model", "flat"),
    _mutant("keys-tell-inputs-apart", "one key"),
    _mutant("keys-tell-inputs-apart", "the object's key"),
    _mutant("keys-tell-inputs-apart", "the content's key"),
    _mutant("keys-tell-inputs-apart", "an unordered key"),
    _mutant("parts-in-order", "backwards"),
    _mutant("parts-in-order", "sorted"),
    _mutant("parts-in-order", "each once"),
    _mutant("together-as-alone", "looks around"),
    _mutant("together-as-alone", "rows backwards"),
    _mutant("reading-changes-nothing", "noise"),
    _mutant("reading-changes-nothing", "changes the source"),
    _mutant("reading-changes-nothing", "works in place"),
    _mutant("reading-changes-nothing", "counts"),
    _mutant("gradients-reach-the-weights", "detached"),
    _mutant("gradients-reach-the-weights", "an idle weight"),
    _mutant("gradients-reach-the-weights", "a wrong slope"),
    _fused("one token later", _one_later),
    _fused("added to the embedding", _added),
    _fused("other tokens scaled", _scaled),
    _fused("last feature first", _wrong_way),
    _mutant("text-alone-is-unchanged", "seeds chance"),
    _mutant("text-alone-is-unchanged", "another default"),
    _mutant("text-alone-is-unchanged", "gradients off"),
    _mutant("nonsense-is-refused", "reads anything"),
    _mutant("nonsense-is-refused", "another error"),
    _mutant("nonsense-is-refused", "two lines"),
    _mutant("nonsense-is-refused", "encodes anything"),
    Mutant("shrugs", "nonsense-is-refused", Subject("modalities", "shrugs", Shrugs)),
    _mutant("too-many-are-refused", "no limit"),
    _mutant("too-many-are-refused", "a silent limit"),
    _mutant("too-many-are-refused", "half of the limit"),
    _mutant("drawing-is-whole-or-nothing", "half a file"),
    _mutant("drawing-is-whole-or-nothing", "no file"),
    _mutant("drawing-is-whole-or-nothing", "no plain values"),
    _mutant("drawing-is-whole-or-nothing", "makes folders"),
)
