"""The older positions of the encoder: Meta's rule by hand and by torch, and such folders."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from llama4_core.checkpoints.convert import convert, opened
from llama4_core.checkpoints.joined import gathered
from llama4_core.checkpoints.legacy import NEW_POSITIONS, OLD_POSITIONS, new_positions
from llama4_core.checkpoints.torch_file import read_tensors
from llama4_core.errors import CheckpointError

from .folders import make, mixture_spec

NAME = "vision.encoder.positional_embedding"


def test_by_hand():
    # Class token 100; places 4 8 / 12 20. Each place gets a quarter of itself, of the one above, of
    # the one at its left and of the one between; outside is nothing.
    old = torch.tensor([[100.0], [4.0], [8.0], [12.0], [20.0]])
    #  [0, 0]: 4 / 4            [0, 1]: (4 + 8) / 4
    #  [1, 0]: (4 + 12) / 4     [1, 1]: (4 + 8 + 12 + 20) / 4
    expected = torch.tensor([[1.0], [3.0], [4.0], [11.0], [100.0]])
    assert torch.equal(new_positions(old, 2, 2), expected)


def test_a_row_is_not_a_column():
    old = torch.tensor([[7.0], [4.0], [8.0], [16.0]])
    assert new_positions(old, 1, 3).flatten().tolist() == [1, 3, 6, 7]
    assert new_positions(old, 3, 1).flatten().tolist() == [1, 3, 6, 7]


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 6),
    width=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_as_the_published_load_hook_samples(rows, columns, width, seed):
    """The rule as it is published: values at 2 x / columns - 1 and 2 y / rows - 1 of the grid."""
    generator = torch.Generator().manual_seed(seed)
    old = torch.randn(1 + rows * columns, width, generator=generator)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    wanted = torch.stack([x / columns, y / rows], -1)[None] * 2 - 1
    picture = old[1:].unflatten(0, (rows, columns)).permute(2, 0, 1)[None]
    found = F.grid_sample(picture, wanted, padding_mode="zeros", align_corners=False)
    expected = torch.cat([found[0].permute(1, 2, 0).flatten(0, 1), old[:1]])
    # Their corners are rounded coordinates: quarters are off by some 1e-7 of values up to 4.
    torch.testing.assert_close(new_positions(old, rows, columns), expected, atol=5e-6, rtol=0)


def test_sums_are_taken_in_float32():
    old = torch.tensor([[0.0], [256.0], [1.0], [1.0], [2.0]], dtype=torch.bfloat16)
    found = new_positions(old, 2, 2)
    assert found.dtype == torch.bfloat16
    assert found[3].item() == 65.0  # 260 / 4; 256 + 1 is 256 in bfloat16, and 258 / 4 would be 64.5


@pytest.mark.parametrize("shape", [(4, 2), (6, 2), (5,), (5, 1, 2)])
def test_another_grid_is_refused(shape):
    with pytest.raises(CheckpointError, match=r"expected 5 rows.*2 x 2"):
        new_positions(torch.zeros(shape), 2, 2)


@pytest.fixture
def meta(tmp_path):
    make(tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "meta", "meta", shards=2)
    return tmp_path / "meta"


def change(folder, function):
    for path in folder.glob("*.pth"):
        tensors = {name: tensor.clone() for name, tensor in read_tensors(path).items()}
        function(tensors)
        torch.save(tensors, path)


def make_old(tensors):
    new = tensors.pop(NEW_POSITIONS)
    tensors[OLD_POSITIONS] = torch.cat([new[-1:], new[:-1]])


def test_a_folder_with_older_positions(meta, tmp_path):
    before = gathered(opened(meta, "meta")[2][NAME]).clone()
    change(meta, make_old)
    found = gathered(opened(meta, "meta")[2][NAME])
    old = torch.cat([before[-1:], before[:-1]])
    assert torch.equal(found, new_positions(old, 2, 2))
    assert torch.equal(found[-1], before[-1])
    assert not torch.equal(found[:-1], before[:-1])
    # What is written has the name of today, and is read as it stands.
    convert(meta, tmp_path / "again", "meta", source_format="meta")
    names = read_tensors(tmp_path / "again" / "consolidated.00.pth")
    assert NEW_POSITIONS in names
    assert OLD_POSITIONS not in names
    assert torch.equal(gathered(opened(tmp_path / "again", "meta")[2][NAME]), found)


def test_both_are_refused(meta):
    change(meta, lambda tensors: tensors.update({OLD_POSITIONS: tensors[NEW_POSITIONS]}))
    with pytest.raises(CheckpointError, match=r"consolidated\.00\.pth: holds both"):
        opened(meta, "meta")


def test_a_folder_with_another_grid_is_refused_by_file(meta):
    def longer(tensors):
        make_old(tensors)
        tensors[OLD_POSITIONS] = torch.zeros(10, 48)

    change(meta, longer)
    with pytest.raises(CheckpointError, match=r"consolidated\.00\.pth: .*expected 5 rows"):
        opened(meta, "meta")


def test_in_a_text_model_they_are_not_part_of_it(tmp_path):
    make(tmp_path / "native", vision=False)
    convert(tmp_path / "native", tmp_path / "meta", "meta")
    change(tmp_path / "meta", lambda tensors: tensors.update({OLD_POSITIONS: torch.zeros(5, 48)}))
    with pytest.raises(CheckpointError, match="not part of this model"):
        opened(tmp_path / "meta", "meta")


def test_the_spec_of_these_tests_has_a_grid_of_two_by_two():
    vision = mixture_spec().vision
    assert vision.image_size // vision.patch_size == 2
