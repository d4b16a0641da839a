"""Parts of a checkpoint that is elsewhere: the same files as from a folder, only their bytes."""

import math
import shutil
from dataclasses import replace

import pytest
import torch

from llama4_core.checkpoints.extract import extract
from llama4_core.checkpoints.keys import native_shapes
from llama4_core.checkpoints.part import vision_part
from llama4_core.checkpoints.save import write_checkpoint
from llama4_core.cli import main
from llama4_core.errors import CheckpointError
from llama4_core.hub.extract import extract_remote
from llama4_core.hub.remote import RemoteCheckpoint
from llama4_core.hub.resolve import cached, folder_of
from llama4_core.hub.settings import Repo
from llama4_core.specs import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    RopeSpec,
    TokenIds,
    VisionSpec,
)

REPO = "someone/small"


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def plain(checkpoint, tmp_path):
    """The checkpoint without what does not belong to it."""
    folder = tmp_path / "small"
    shutil.copytree(checkpoint, folder)
    (folder / "consolidated.00.pth").unlink()
    (folder / "unused.safetensors").unlink()
    return folder


@pytest.mark.parametrize("part", ["text", "layer:0", "layer:3"])
def test_a_part_is_what_a_folder_gives(serve, plain, tmp_path, part):
    if part == "text":
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            (plain / name).write_text(name)
    serve(plain)
    extract_remote(RemoteCheckpoint(REPO), tmp_path / "remote", part)
    extract(plain, tmp_path / "local", part)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {"small", "remote", "local"}


def test_a_target_in_use_is_refused_before_anything_is_read(serve, plain, tmp_path):
    hub = serve(plain)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(CheckpointError, match="nothing is overwritten"):
        extract_remote(RemoteCheckpoint(REPO), tmp_path / "out", "layer:0")
    assert not hub.requests


def test_a_layer_reads_its_own_bytes(serve, plain, tmp_path):
    hub = serve(plain)
    remote = RemoteCheckpoint(REPO)
    remote.check()
    headers = sum(header.data_start for header in remote.headers.values())
    shapes = {name: s for name, s in remote.shapes.items() if ".layers.1." in name}
    needed = sum(4 * math.prod(shape) for shape in shapes.values())
    before = remote.received
    extract_remote(remote, tmp_path / "out", "layer:1")
    small = sum((plain / n).stat().st_size for n in ("config.json", "LICENSE", "USE_POLICY.md"))
    index = (plain / "model.safetensors.index.json").stat().st_size
    assert remote.received - before == headers + needed + small + index
    assert remote.received < remote.nbytes / 10
    assert hub.sent == remote.received


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("layer:9", "has no layer:9; it has the layers 0 to 3"),
        ("vision", "no vision"),
        ("x", "part"),
    ],
)
def test_what_cannot_be_extracted(serve, plain, tmp_path, part, message):
    serve(plain)
    with pytest.raises(CheckpointError, match=message):
        extract_remote(RemoteCheckpoint(REPO), tmp_path / "out", part)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.ranges").exists()


def test_the_command(serve, plain, tmp_path, capsys):
    hub = serve(plain)
    assert main(["extract", REPO, "--part", "layer:1", str(tmp_path / "out")]) == 0
    assert cached(Repo(REPO)) is None
    folder_of(Repo(REPO))
    before = len(hub.requests)
    assert main(["extract", REPO, "--part", "layer:1", str(tmp_path / "again")]) == 0
    assert len(hub.requests) == before
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    address = f"{hub.origin}/storage"
    assert main(["extract", address, "--from", "meta", "--part", "text", str(tmp_path / "x")]) == 2
    assert "leave --from out" in capsys.readouterr().err


@pytest.fixture(params=["huggingface", "native", "other encoder"])
def with_eyes(request, tmp_path):
    """A checkpoint with eyes, of Llama 4's make or of one that only a component knows."""
    attention = AttentionSpec("full-rope", 2, 1, 4, rope=RopeSpec(1e4))
    vision = VisionSpec(8, 1, 2, 32, 8, 4, 3, 0.5, 6, 6, 1e4, 1e-5)
    spec = ModelSpec("small", 9, 8, 1e-5, 64, False, (LayerSpec(attention, DenseSpec(3)),),
                     vision=vision, tokens=TokenIds(image=5), dtype="float32")  # fmt: skip
    weights = {name: torch.randn(shape) for name, shape in native_shapes(spec).items()}
    if request.param == "other encoder":
        spec = replace(spec, vision=replace(vision, encoder="other"))
        weights = {n: t for n, t in weights.items() if not n.startswith("vision.encoder.")}
        weights["vision.encoder.of.its.own"] = torch.randn(3, 4)
    folder = tmp_path / "small"
    folder.mkdir()
    form = "native" if request.param == "other encoder" else request.param
    write_checkpoint(weights, spec, folder, form)
    return folder


@pytest.mark.parametrize("part", ["vision", "text"])
def test_eyes_are_read_alone(serve, with_eyes, tmp_path, part):
    serve(with_eyes)
    remote = RemoteCheckpoint(REPO)
    extract_remote(remote, tmp_path / "remote", part)
    extract(with_eyes, tmp_path / "local", part)
    assert contents(tmp_path / "remote") == contents(tmp_path / "local")
    if part == "vision":
        ours, theirs = vision_part(tmp_path / "remote"), vision_part(with_eyes)
        assert ours[:2] == theirs[:2]
        assert ours[2].keys() == theirs[2].keys()
        assert all(torch.equal(ours[2][name], theirs[2][name]) for name in ours[2])
