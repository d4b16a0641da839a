"""Checkpoints as files: everything comes back, nothing is pickled, damage is found."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from llama4_core.errors import CheckpointError
from llama4_train.checkpoints import manifest
from llama4_train.checkpoints.folders import partial_folder
from llama4_train.checkpoints.metadata import METADATA
from llama4_train.checkpoints.planners import JsonLoadPlanner, JsonSavePlanner
from llama4_train.checkpoints.storage import Reader, Writer
from llama4_train.checkpoints.whole import contents, read, read_part, write

DTYPES = (
    torch.float32,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.float8_e4m3fn,
)
SHAPES = ((), (0, 3), (5,), (3, 4), (2, 3, 4))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip


def tensor(dtype: torch.dtype, shape: tuple[int, ...], turned: bool, seed: int) -> torch.Tensor:
    """Random bits, every pattern of NaN included."""
    generator = torch.Generator().manual_seed(seed)
    high = 2 if dtype == torch.bool else 256
    size = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, high, (size,), dtype=torch.uint8, generator=generator)
    made = raw.view(dtype).reshape(shape)
    return made.mT.contiguous().mT if turned and made.dim() > 1 else made


def bits(one: torch.Tensor) -> bytes:
    raw: Any = one.contiguous().reshape(-1).view(torch.uint8).numpy()
    return raw.tobytes()


def example() -> dict[str, Any]:
    return {
        "a": torch.arange(12.0).reshape(3, 4),
        "b": torch.tensor(2.5, dtype=torch.bfloat16),
        "step": 7,
        "notes": {"x": [1, None]},
    }


def blank(state: dict[str, Any]) -> dict[str, Any]:
    return {
        name: torch.zeros_like(one) if isinstance(one, torch.Tensor) else None
        for name, one in state.items()
    }


@given(
    tensors=st.dictionaries(
        st.text(min_size=1, max_size=6),
        st.tuples(
            st.sampled_from(DTYPES),
            st.sampled_from(SHAPES),
            st.booleans(),
            st.integers(0, 2**31),
        ),
        max_size=5,
    ),
    values=st.dictionaries(st.text(max_size=6), JSON, max_size=3),
)
def test_everything_comes_back_to_the_bit_and_nothing_is_pickled(tensors, values):
    state = {**values, **{name: tensor(*facts) for name, facts in tensors.items()}}
    if not state:
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "one"
        write(state, folder)
        found = blank(state)
        read(found, folder)
        for name, one in state.items():
            if isinstance(one, torch.Tensor):
                assert bits(found[name]) == bits(one)
            else:
                assert found[name] == one
                assert type(found[name]) is type(one)
        assert {path.suffix for path in folder.iterdir()} <= {".json", ".safetensors"}
        # Pickles begin with 0x80 (protocol 2 on) and zip archives of torch.save with "PK".
        assert not any(path.read_bytes()[:2] in (b"\x80\x02", b"PK") for path in folder.iterdir())
        assert not partial_folder(folder).exists()


def test_tensors_can_be_read_by_the_library_and_parts_by_their_names(tmp_path):
    state = example()
    write(state, tmp_path / "one")
    theirs = load_file(tmp_path / "one" / "tensors-00000.safetensors")
    assert bits(theirs["a"]) == bits(state["a"])
    assert read_part(tmp_path / "one", "st", "b").keys() == {"b", "step"}
    held = contents(tmp_path / "one")
    assert held["a"].shape == (3, 4)
    assert held["notes"] is None


def test_torch_itself_can_drive_the_storage(tmp_path):
    state = example()
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, storage_writer=Writer(tmp_path / "one"), planner=JsonSavePlanner())
    found = blank(state)
    with pytest.warns(UserWarning, match="single process"):
        dcp.load(found, storage_reader=Reader(tmp_path / "one"), planner=JsonLoadPlanner())
    assert bits(found["a"]) == bits(state["a"])
    assert found["notes"] == state["notes"]


def test_pickle_of_another_planner_is_refused(tmp_path):
    with (
        pytest.warns(UserWarning, match="single process"),
        pytest.raises(dcp.CheckpointException) as raised,
    ):
        dcp.save(example(), storage_writer=Writer(tmp_path / "one"))
    (failure, _), *_ = raised.value.failures.values()
    assert isinstance(failure, CheckpointError)
    assert "JsonSavePlanner" in str(failure)
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize(
    "value", [{1: 2}, float("nan"), float("inf"), {1, 2}, object(), b"bytes", [{"a": {2: 3}}]]
)
def test_what_json_cannot_give_back_is_refused_and_leaves_nothing(tmp_path, value):
    with pytest.raises(CheckpointError, match="notes cannot be stored as JSON"):
        write({"notes": value, "a": torch.zeros(3)}, tmp_path / "one")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    write(example(), tmp_path / "one")
    with pytest.raises(CheckpointError, match="nothing is overwritten"):
        write(example(), tmp_path / "one")
    read(blank(example()), tmp_path / "one")


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


FILES = ("tensors-00000.safetensors", "values-00000.json", METADATA)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "said"), [(flipped, "SHA-256"), (cut, "expected"), (Path.unlink, "is missing")]
)
def test_damage_is_found_before_anything_is_changed(tmp_path, name, damage, said):
    folder = tmp_path / "one"
    write(example(), folder)
    damage(folder / name)
    found = blank(example())
    with pytest.raises(CheckpointError) as raised:
        read(found, folder)
    assert name in str(raised.value)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not found["a"].any()


def changed(folder: Path, **changes: Any) -> None:
    """Rewrites the metadata, with a manifest that fits."""
    content = json.loads((folder / METADATA).read_text())
    content.update(changes)
    (folder / METADATA).write_text(json.dumps(content))
    manifest.write_manifest(
        folder,
        [
            manifest.FileFacts(path.name, path.stat().st_size, manifest.file_sum(path))
            for path in folder.iterdir()
            if path.name != manifest.MANIFEST
        ],
    )


def chunk(offset: list[int], shape: list[int], **changes: Any) -> dict[str, Any]:
    return {"offset": offset, "shape": shape, "file": FILES[0], "key": "a", **changes}


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [chunk([0, 0], [2, 4])],
        [chunk([0, 0], [3, 4]), chunk([0, 0], [3, 4])],
        [chunk([1, 0], [3, 4])],
        [chunk([0], [12])],
        [chunk([0, 0], [3, -4])],
        [chunk([0, 0], [3, 4], file="../outside.safetensors")],
        [chunk([0, 0], [3, 4], file=FILES[1])],
        [chunk([0, 0], [3, 4], key="b")],
        [chunk([0, 0], [3, 4], key="absent")],
        "none",
    ],
)
def test_metadata_that_lies_is_refused(tmp_path, chunks):
    folder = tmp_path / "one"
    write(example(), folder)
    entry = {"dtype": "F32", "shape": [3, 4], "chunks": chunks}
    changed(folder, tensors={"a": entry})
    with pytest.raises(CheckpointError):
        read({"a": torch.zeros(3, 4)}, folder)


def test_another_version_is_refused(tmp_path):
    write(example(), tmp_path / "one")
    changed(tmp_path / "one", version=2)
    with pytest.raises(CheckpointError, match="version 2; expected 1"):
        contents(tmp_path / "one")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": {"../a.json": {}}}', "\x00", "[" * 10**5]
)
def test_a_manifest_that_is_none(tmp_path, text):
    write(example(), tmp_path / "one")
    (tmp_path / "one" / manifest.MANIFEST).write_text(text)
    with pytest.raises(CheckpointError, match="manifest"):
        contents(tmp_path / "one")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"absent": None}, "holds no 'absent'"),
        ({"a": torch.zeros(4, 3)}, r"shape \(3, 4\); expected \(4, 3\)"),
        ({"a": None}, "'a' is a tensor"),
        ({"step": torch.zeros(1)}, "'step' is no tensor"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, state, said):
    write(example(), tmp_path / "one")
    with pytest.raises(CheckpointError, match=said):
        read(state, tmp_path / "one")


def test_room_is_looked_for_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(CheckpointError, match=r"needs .* GB, but the disk has 0.000 GB free"):
        write(example(), tmp_path / "one")
    assert not list(tmp_path.iterdir())
