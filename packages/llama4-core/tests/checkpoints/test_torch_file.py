"""Files of torch.save whose archive contradicts itself or its list of tensors."""

import struct
import zipfile

import pytest
import torch

from llama4_core.checkpoints.torch_file import read_records, read_tensors
from llama4_core.errors import CheckpointError


@pytest.fixture
def path(tmp_path):
    torch.save({"a": torch.arange(64.0), "b": torch.arange(64.0)}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def test_views_with_strides_and_offsets(tmp_path):
    whole = torch.arange(60.0).view(6, 10)
    views = {"t": whole.T, "cut": whole[1:4, 2:9:3], "scalar": whole[2, 2], "none": whole[:0]}
    torch.save(views, tmp_path / "x.pth")
    found = read_tensors(tmp_path / "x.pth")
    assert all(torch.equal(found[name], views[name]) for name in views)


def test_a_sparse_tensor(tmp_path):
    torch.save({"t": torch.eye(3).to_sparse()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"'t' is torch\.sparse_coo"):
        read_tensors(tmp_path / "x.pth")


def test_a_header_that_moves_the_data(path):
    """Both headers are sound by themselves, but 64 bytes of the tensor would be skipped."""
    with zipfile.ZipFile(path) as archive:
        member = next(m for m in archive.infolist() if m.filename.endswith("data/0"))
    data = bytearray(path.read_bytes())
    name_size, extra_size = struct.unpack_from("<2H", data, member.header_offset + 26)
    struct.pack_into("<H", data, member.header_offset + 28, extra_size + 64)
    padding = member.header_offset + 30 + name_size + 2
    (old,) = struct.unpack_from("<H", data, padding)
    struct.pack_into("<H", data, padding, old + 64)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="lie between"):
        read_records(path)


@pytest.mark.parametrize("change", [-64, 64])
def test_a_member_of_another_length_than_the_list_says(path, change):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data/0"))
    members[name] = members[name][:change] if change < 0 else members[name] + b"x" * change
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    with pytest.raises(CheckpointError, match="claims bytes that no member"):
        read_tensors(path)


def test_a_checksum_that_is_wrong(path):
    record = read_records(path)["data.pkl"]
    data = bytearray(path.read_bytes())
    data[record.start + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="checksum"):
        read_tensors(path)


def test_numbers_of_a_big_endian_machine(path):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for key, value in members.items():
            archive.writestr(key, b"big" if key.endswith("byteorder") else value)
    with pytest.raises(CheckpointError, match="little-endian"):
        read_tensors(path)
