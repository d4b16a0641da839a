"""Headers are believed only as far as the file bears them out; what is written comes back."""

import json
import os
import struct
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from llama4_core.checkpoints.safetensors_file import (
    DTYPES,
    PAGE,
    map_tensors,
    read_header,
    write_file,
)
from llama4_core.errors import CheckpointError


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(left, right):
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and torch.equal(bits(left), bits(right))
    )


def drawn(dtype, shape, seed):
    size = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(0, 2 if dtype == torch.bool else 256, (size,), dtype=torch.uint8,
                        generator=torch.Generator().manual_seed(seed))  # fmt: skip
    return raw.view(dtype).view(shape)


SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)
CONTENTS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from(list(DTYPES.values())), SHAPES, st.integers(0, 99)),
    min_size=1,
    max_size=6,
)


@given(contents=CONTENTS, swap=st.booleans())
def test_what_is_written_is_read_by_us_and_by_the_library(tmp_path_factory, contents, swap):
    path = tmp_path_factory.mktemp("roundtrip") / "a.safetensors"
    tensors = {name: drawn(*values) for name, values in contents.items()}
    if swap:
        tensors = {name: t.transpose(-1, -2) if t.dim() > 1 else t for name, t in tensors.items()}
    write_file(path, tensors, {"format": "pt"})
    header = read_header(path)
    ours, theirs = map_tensors(header), load_file(path)
    assert ours.keys() == theirs.keys() == tensors.keys()
    assert all(same(ours[name], tensors[name]) for name in tensors)
    assert all(same(theirs[name], tensors[name]) for name in tensors)
    assert header.data_start % PAGE == 0
    assert not list(path.parent.glob(".*"))


@given(contents=CONTENTS)
def test_what_the_library_writes_is_read(tmp_path_factory, contents):
    path = tmp_path_factory.mktemp("foreign") / "a.safetensors"
    tensors = {name: drawn(*values) for name, values in contents.items()}
    save_file(tensors, path, {"format": "pt"})
    ours = map_tensors(read_header(path))
    assert ours.keys() == tensors.keys()
    assert all(same(ours[name], tensors[name]) for name in tensors)


def test_large_tensors_lie_on_pages_and_all_others_at_multiples_of_64(tmp_path):
    path = tmp_path / "a.safetensors"
    shapes = {"norm": (48,), "odd": (1001,), "bank": (4, 96, 64), "matrix": (32, 64), "scalar": ()}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    write_file(path, tensors, {})
    mapped = map_tensors(read_header(path))
    assert mapped["bank"].data_ptr() % PAGE == 0
    assert all(mapped[name].data_ptr() % 64 == 0 for name in ("bank", "matrix", "norm"))


def test_mapped_tensors_share_one_mapping_and_never_reach_the_file(tmp_path):
    path = tmp_path / "a.safetensors"
    write_file(path, {"a": torch.zeros(64, 64), "b": torch.ones(64, 64)}, {})
    before = path.read_bytes()
    mapped = map_tensors(read_header(path))
    assert mapped["a"].untyped_storage().data_ptr() == mapped["b"].untyped_storage().data_ptr()
    mapped["a"].fill_(7)
    assert path.read_bytes() == before
    assert torch.equal(map_tensors(read_header(path))["a"], torch.zeros(64, 64))


def test_a_file_larger_than_the_memory_is_mapped(tmp_path):
    if sys.platform != "linux":
        pytest.skip("asks Linux how much memory there is, and needs sparse files")
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2":
        pytest.skip("this machine counts every writable mapping as memory")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = 2 * memory + (64 << 30)  # more than memory and any usual swap
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    path = craft(tmp_path / "model.safetensors", {"a": entry}, b"")
    os.truncate(path, path.stat().st_size + size)  # a hole: takes no room on the disk
    mapped = map_tensors(read_header(path))["a"]
    mapped[-1] = 7
    assert mapped[-1] == 7
    assert path.stat().st_blocks * 512 < 2**20


def test_an_unpadded_header_of_another_writer_is_read(tmp_path):
    path = tmp_path / "a.safetensors"
    values = torch.arange(6, dtype=torch.float32)
    entry = {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}
    text = json.dumps({"a": entry}).encode()
    text += b" " * (3 - len(text) % 4)  # the data starts at no multiple of 4
    path.write_bytes(struct.pack("<Q", len(text)) + text + values.numpy().tobytes())
    assert torch.equal(map_tensors(read_header(path))["a"], values)


def test_a_failed_write_leaves_nothing(tmp_path):
    path = tmp_path / "a.safetensors"

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(path, {"a": torch.zeros(4)}, {}, stop)
    assert list(tmp_path.iterdir()) == []


def test_a_dtype_without_a_name_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"key 'a' has dtype torch.complex128"):
        write_file(tmp_path / "a", {"a": torch.zeros(2, dtype=torch.complex128)}, {})


# --- damage -------------------------------------------------------------------------------------


def craft(path, header, data=b"\0" * 16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(**changes):
    return {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **changes}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"not json", "header is not JSON"),
        (b"\xff\xfe{}", "header is not JSON"),
        (b"[" * 100_000, "header is not JSON"),
        (b"[1]", "JSON list"),
        (b'{"a": {}, "a": {}}', "'a' stands there twice"),
        ({"a": entry(), "__metadata__": {"x": 1}}, "__metadata__"),
        ({"a": {"dtype": "F32"}}, "'a' lacks exactly"),
        ({"a": entry(extra=1)}, "'a' lacks exactly"),
        ({"a": entry(dtype="F31")}, "'a' has dtype 'F31'"),
        ({"a": entry(dtype=[])}, "'a' has dtype"),
        ({"a": entry(shape=[2, -2])}, "'a' has shape"),
        ({"a": entry(shape=[2, 2.0])}, "'a' has shape"),
        ({"a": entry(shape=[True, 4])}, "'a' has shape"),
        ({"a": entry(shape="22")}, "'a' has shape"),
        ({"a": entry(shape=[2**62, 2, 0], data_offsets=[0, 0])}, "'a' has shape .* too large"),
        ({"a": entry(shape=[0, 2**63], data_offsets=[0, 0])}, "'a' has shape .* too large"),
        ({"a": entry(shape=[1] * 65)}, "'a' has shape .* at most 64"),
        ({"a": entry(shape=[2, 3])}, "'a' of shape .2, 3. .* needs 24 bytes"),
        ({"a": entry(data_offsets=[0, 8])}, "'a' .* span 8"),
        ({"a": entry(shape=[2])}, "'a' .* needs 8 bytes.* span 16"),
        ({"a": entry(data_offsets=[16, 0])}, "'a' .* span -16"),
        ({"a": entry(data_offsets=[0, 8, 16])}, "'a' has data_offsets"),
        ({"a": entry(shape=[1], data_offsets=[4, 8])}, "'a' begins at byte 4 and leaves a gap"),
        (
            {"a": entry(shape=[2], data_offsets=[0, 8]), "b": entry(data_offsets=[4, 20])},
            "'b' begins at byte 4 and overlaps",
        ),
        ({"a": entry(shape=[4, 2], data_offsets=[0, 32])}, "'a' ends at byte 32 .* truncated"),
        ({"a": entry(shape=[2], data_offsets=[0, 8])}, "end at byte 8 of 16"),
        ({}, "end at byte 0 of 16"),
    ],
)
def test_a_wrong_header_is_named_with_file_and_key(tmp_path, header, words):
    path = craft(tmp_path / "model.safetensors", header)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it has 0 bytes"),
        (b"\0\0\0", "it has 3 bytes"),
        (struct.pack("<Q", 2**63), "header claims 9,223,372,036,854,775,808 bytes"),
        (struct.pack("<Q", 9), "header claims 9 bytes, but the file has 8"),
    ],
)
def test_an_impossible_header_length_is_refused(tmp_path, content, words):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_header(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere.safetensors: cannot be read"):
        read_header(tmp_path / "nowhere.safetensors")


@pytest.mark.parametrize("shape", [[2**61, 2, 0], [0, 2**62], [0] + [1] * 63])
def test_empty_tensors_of_any_allowed_shape(tmp_path, shape):
    path = craft(tmp_path / "a", {"a": entry(shape=shape, data_offsets=[0, 0])}, b"")
    assert list(map_tensors(read_header(path))["a"].shape) == shape


def test_a_name_that_comes_twice_among_many(tmp_path):
    names = [*map(str, range(50_000)), "49999"]  # searched pair by pair this would take minutes
    text = "{" + ", ".join(f'"{name}": 0' for name in names) + "}"
    path = tmp_path / "a"
    path.write_bytes(struct.pack("<Q", len(text)) + text.encode())
    with pytest.raises(CheckpointError, match="'49999' stands there twice"):
        read_header(path)


@pytest.mark.parametrize("seed", range(100))
def test_a_damaged_file_is_refused_or_still_consistent(tmp_path, seed):
    """Bits flipped, bytes cut or added: a clean error, or still tensors of the shapes stated."""
    generator = torch.Generator().manual_seed(seed)

    def below(bound):
        return int(torch.randint(0, bound, (), generator=generator))

    path = tmp_path / "model.safetensors"
    tensors = {f"layers.{i}.weight": torch.randn(i + 1, 4, generator=generator) for i in range(4)}
    save_file(tensors, path, {"format": "pt"})
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack("<Q", content[:8])
    kind = seed % 4
    if kind == 0:
        del content[below(len(content)) :]
    elif kind == 1:
        content += bytes(1 + below(9))
    else:
        for _ in range(1 + below(3)):
            content[below(8 + length)] ^= 1 << below(8)
    path.write_bytes(content)
    message = ""
    try:
        mapped = map_tensors(read_header(path))
    except CheckpointError as error:
        message = str(error)
    if message:
        assert str(path) in message
        assert "\n" not in message
    else:
        # A flip within a name or the metadata leaves a sound file: the key tables notice it.
        assert kind >= 2
        assert sorted(t.nbytes for t in mapped.values()) == sorted(
            t.nbytes for t in tensors.values()
        )
