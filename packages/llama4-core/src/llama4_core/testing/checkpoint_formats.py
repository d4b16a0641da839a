"""Checks of the socket checkpoint_formats: folders of weights, written, read, and damaged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from llama4_core.checkpoints.keys import native_shapes
from llama4_core.errors import Llama4Error
from llama4_core.specs import DenseSpec, ModelSpec, MoESpec, RopeSpec, TemperatureSpec, TokenIds
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import VisionSpec
from llama4_core.testing.check import Check, Subject, check
from llama4_core.testing.compare import holds
from llama4_core.testing.strategies import DTYPES

WIDTH = 24
VISION = VisionSpec(24, 1, 4, 96, 28, 14, 3, 0.5, 24, 24, 1e4, 1e-5)
# What rounding, a comparison or a sum would change: all kept, bit for bit.
ODD = (float("nan"), float("inf"), float("-inf"), -0.0, 1e-40, 65504.0)


@dataclass(frozen=True)
class Case:
    """A small model to be written.

    Attributes:
        layers, experts: how many.
        tied, vision: whether it has a head of its own, and eyes.
        dtype: of the weights.
        seed: of the weights.
        shard_bytes: about how large a file may become.
    """

    layers: int = 4
    experts: int = 3
    tied: bool = False
    vision: bool = False
    dtype: str = "bfloat16"
    seed: int = 0
    shard_bytes: int = 20_000

    @property
    def plain(self) -> bool:
        """Whether every format has to hold it: Llama 4's own layout, text only."""
        return not self.tied and not self.vision and self.dtype == "bfloat16"

    def spec(self) -> ModelSpec:
        """The description."""
        return ModelSpec(
            name="small",
            vocabulary=40,
            width=WIDTH,
            norm_eps=1e-5,
            max_positions=64,
            tied=self.tied,
            dtype=self.dtype,
            tokens=TokenIds(
                bos=1,
                eos=(2, 3),
                pad=0,
                **({"image": 5, "image_start": 6, "image_end": 7} if self.vision else {}),
            ),
            layers=llama4_layers(
                self.layers,
                heads=4,
                kv_heads=4,
                head_dim=4,
                rope=RopeSpec(5e5),
                chunk=8,
                qk_norm=True,
                temperature=TemperatureSpec(0.1, 8192.0),
                position_free=every(4, self.layers),
                moe_layers=every(2, self.layers),
                moe=MoESpec(self.experts, 1, 24, 24, "sigmoid-top-k"),
                dense=DenseSpec(48),
            ),
            vision=VISION if self.vision else None,
        )

    def weights(self, *, strided: bool = False) -> dict[str, Tensor]:
        """Canonical name -> weight, with odd numbers in each; perhaps lying the other way round."""
        generator = torch.Generator().manual_seed(self.seed)
        found = {}
        for index, (name, shape) in enumerate(native_shapes(self.spec()).items()):
            weight = torch.randn(shape, generator=generator).to(DTYPES[self.dtype])
            weight.view(-1)[: len(ODD)] = torch.tensor(ODD[: weight.numel()]).to(weight.dtype)
            if strided and index % 2 and weight.dim() > 1:
                weight = weight.transpose(-1, -2).contiguous().transpose(-1, -2)
            found[name] = weight
        return found


_CASES = st.one_of(
    st.builds(Case, seed=st.integers(0, 99)),
    st.builds(
        Case,
        layers=st.integers(1, 4),
        experts=st.integers(1, 4),
        tied=st.booleans(),
        vision=st.booleans(),
        dtype=st.sampled_from(tuple(DTYPES)),
        seed=st.integers(0, 99),
        shard_bytes=st.sampled_from((1, 5_000, 10**9)),
    ),
)


def _cases(subject: Subject) -> st.SearchStrategy[Case]:
    return _CASES


@contextmanager
def _written(subject: Subject, case: Case, **weights: Any) -> Iterator[Path]:
    """A folder written by the subject; cases that it refuses are passed over, the plain one not."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "small"
        folder.mkdir()
        try:
            subject.build().write(
                weights.get("weights", case.weights(strided=True)),
                case.spec(),
                folder,
                shard_bytes=case.shard_bytes,
            )
        except Llama4Error as error:
            holds(not case.plain, f"a plain Llama 4 of text is refused: {error}")
            assume(False)
        yield folder


def _read(subject: Subject, folder: Path, case: Case) -> tuple[ModelSpec, Mapping[str, Tensor]]:
    form = subject.build()
    known = {}
    if getattr(form, "takes_max_positions", False):  # the folder does not say it
        known = {"max_positions": case.spec().max_positions}
    spec = form.read_spec(folder, **known)
    return spec, form.tensors(folder, spec)


def _bits(tensor: Tensor) -> bytes:
    raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
    return bytes(raw.numpy().tobytes())


def _equal(got: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    lost, new = set(expected) - set(got), set(got) - set(expected)
    holds(not lost, f"{what}: {sorted(lost)[:3]} got lost")
    holds(not new, f"{what}: {sorted(new)[:3]} came from nowhere")
    for name, tensor in expected.items():
        other = got[name]
        holds(other.dtype == tensor.dtype, f"{what}: {name} is {other.dtype}, was {tensor.dtype}")
        holds(other.shape == tensor.shape, f"{what}: {name} has {list(other.shape)}")
        holds(_bits(other) == _bits(tensor), f"{what}: {name} has other bits")


def _content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@check(
    properties=(39, 40),
    why="a checkpoint is months of training; names and bits that change on the way are lost",
    cases=_cases,
)
def save_and_load(subject: Subject, case: Case) -> None:
    """Written and read: the same description, names, shapes, dtypes and bits, vision included."""
    with _written(subject, case) as folder:
        spec, tensors = _read(subject, folder, case)
        expected = case.spec()
        # The name of a model may be that of its folder, and the dtype that of its weights.
        spec = replace(spec, name=expected.name, dtype=expected.dtype)
        holds(spec == expected, f"the description changed: got {spec}, expected {expected}")
        _equal(tensors, case.weights(), "read back")


@check(
    properties=(40,),
    why="a weight that is left out without a word stays random; one that nobody knows is lost",
    cases=lambda subject: st.tuples(_CASES, st.sampled_from(("missing", "unknown", "shape"))),
)
def nothing_is_made_up(subject: Subject, case: tuple[Case, str]) -> None:
    """Weights that do not fit the description are refused, or come back as they are."""
    drawn, wrong = case
    with _written(subject, drawn):
        pass
    weights = drawn.weights()
    name = sorted(weights)[drawn.seed % len(weights)]
    if wrong == "missing":
        del weights[name]
    elif wrong == "unknown":
        weights["layers.0.attention.r_proj.weight"] = weights[name].clone()
    else:
        weights[name] = torch.cat([weights[name], weights[name]])
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "small"
        folder.mkdir()
        try:
            subject.build().write(weights, drawn.spec(), folder, shard_bytes=drawn.shard_bytes)
            tensors = _read(subject, folder, drawn)[1]
        except Llama4Error:
            return
        _equal(tensors, weights, f"{wrong} {name}")


@check(
    why="checksums, resumed conversions and caches need the same bytes for the same weights",
    cases=_cases,
)
def same_bytes_again(subject: Subject, case: Case) -> None:
    """Writing twice, or what was read, gives the same files, nothing beside; weights stay."""
    weights = case.weights(strided=True)
    with _written(subject, case, weights=weights) as first:
        holds([p.name for p in first.parent.iterdir()] == ["small"], "files beside the folder")
        _equal(weights, case.weights(), "the weights that were given")
        before = _content(first)
        with _written(subject, case) as second:
            holds(_content(second) == before, "the second time other bytes were written")
        tensors = _read(subject, first, case)[1]
        with _written(subject, case, weights=tensors) as third:
            holds(_content(third) == before, "what was read is written as other bytes")
        holds(_content(first) == before, "reading changed the folder")


@check(
    why="the format of a folder is found by asking everyone; one that always says yes, or reads "
    "gigabytes to answer, keeps others from being found",
    cases=_cases,
)
def detection(subject: Subject, case: Case) -> None:
    """Its own folder is known by names of files alone, an empty or foreign one is not."""
    form = subject.build()
    with _written(subject, case) as folder:
        holds(form.detect(folder) is True, "its own folder is not known")
        for path in folder.rglob("*"):
            if path.is_file():
                path.write_bytes(b"")
        holds(form.detect(folder) is True, "files are opened to know the folder")
    with tempfile.TemporaryDirectory() as root:
        holds(form.detect(Path(root)) is False, "an empty folder is taken for its own")
        (Path(root) / "notes.txt").write_text("nothing to see")
        holds(form.detect(Path(root)) is False, "any folder is taken for its own")


DAMAGES: dict[str, Callable[[bytes, int], bytes | None]] = {
    "removed": lambda content, at: None,
    "emptied": lambda content, at: b"",
    "cut": lambda content, at: content[: at % max(1, len(content))],
    "garbage": lambda content, at: bytes((at + 37 * i) % 256 for i in range(64)),
    "another value": lambda content, at: (b"[]", b"{", b"null", b"{}", b'{"model": 3}')[at % 5],
    "a bit in front": lambda content, at: _flip(content, at % 256),
    "a bit anywhere": lambda content, at: _flip(content, at),
    "longer": lambda content, at: content + b"\0" * (at % 64 + 1),
}


def _flip(content: bytes, at: int) -> bytes:
    if not content:
        return content
    place = at % len(content)
    return content[:place] + bytes([content[place] ^ (1 << at % 8)]) + content[place + 1 :]


@dataclass(frozen=True)
class Damage:
    """What happens to one file: its number in alphabetical order, the kind, and where."""

    file: int
    kind: str
    at: int


@check(
    properties=(45,),
    why="downloads break; what a folder of strangers holds must never crash or run",
    cases=lambda subject: st.tuples(
        st.builds(Case, layers=st.integers(1, 2), seed=st.integers(0, 9)),
        st.builds(
            Damage, st.integers(0, 9), st.sampled_from(tuple(DAMAGES)), st.integers(0, 2**20)
        ),
    ),
)
def damaged_files(subject: Subject, case: tuple[Case, Damage]) -> None:
    """A damaged file is a Llama4Error in one line, or goes unnoticed with all shapes right."""
    drawn, damage = case
    with _written(subject, drawn) as folder:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = files[damage.file % len(files)]
        content = DAMAGES[damage.kind](path.read_bytes(), damage.at)
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        left = _content(folder)
        try:
            spec, tensors = _read(subject, folder, drawn)
            shapes = {name: tuple(tensor.clone().shape) for name, tensor in tensors.items()}
        except Llama4Error as error:
            holds("\n" not in str(error), f"the error has several lines: {error}")
        else:
            if subject.build().detect(folder) and spec == drawn.spec():
                holds(set(shapes.values()) <= set(native_shapes(spec).values()), "other shapes")
        holds(_content(folder) == left, "reading changed the folder")


CHECKS: tuple[Check, ...] = (
    save_and_load,
    nothing_is_made_up,
    same_bytes_again,
    detection,
    damaged_files,
)
