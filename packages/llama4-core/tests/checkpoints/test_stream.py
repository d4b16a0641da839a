"""Conversions that are killed go on, and end with the same bytes; nothing else is touched."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llama4_core.checkpoints import stream
from llama4_core.checkpoints.convert import convert
from llama4_core.checkpoints.joined import Joined, compact, gathered, join, pieces
from llama4_core.checkpoints.plan import SafetensorsPlan, TorchPlan
from llama4_core.cli.progress import Progress, line
from llama4_core.errors import CheckpointError

from .folders import content, make

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "hf"
    make(folder, "huggingface", layers=2)
    (folder / "LICENSE").write_text("terms")
    (folder / "generation_config.json").write_text("{}")
    return folder


@needs_fork
@pytest.mark.parametrize(
    ("form", "shards", "points"),
    [
        ("native", None, 15),
        ("meta", 2, 15),
        pytest.param("native", None, 30, marks=pytest.mark.slow),
        pytest.param("meta", 2, 30, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_points_the_bytes_are_the_same(tmp_path, form, shards, points):
    small = tmp_path / "source"
    make(small, "huggingface", vision=False, layers=2)
    (small / "LICENSE").write_text("terms")
    words = [sys.executable, str(Path(__file__).with_name("kill_points.py")), str(small)]
    words += [str(tmp_path), form, str(points), "4"] + ([] if shards is None else [str(shards)])
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["killed"] == points
    assert report["points"] > 60


class StoppedError(Exception):
    """Raised within a conversion."""


def stopped(source, target, share=0.5, **settings):
    def stop(done, total):
        if done > share * total:
            raise StoppedError

    with pytest.raises(StoppedError):
        convert(source, target, progress=stop, **settings)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "__defaults__", (2048,))
    monkeypatch.setattr(stream, "SYNC_BYTES", 4096)


def test_what_was_written_is_not_written_again(source, tmp_path, monkeypatch, small_pieces):
    convert(source, tmp_path / "whole")
    stopped(source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        ".out.partial", ".out.partial.journal", "whole",
    ]  # fmt: skip
    written = []
    write = stream._write

    def counted(handle, raw, offset):
        written.append(len(raw))
        write(handle, raw, offset)

    monkeypatch.setattr(stream, "_write", counted)
    convert(source, tmp_path / "out")
    assert content(tmp_path / "whole") == content(tmp_path / "out")
    total = sum(len(data) for name, data in content(tmp_path / "out").items() if "safetens" in name)
    assert 0.3 * total < sum(written) < 0.6 * total


@pytest.mark.parametrize("change", ["source", "format", "shards"])
def test_another_conversion_starts_afresh(source, tmp_path, small_pieces, change):
    own = tmp_path / "own"
    convert(source, own, "huggingface")
    stopped(own, tmp_path / "out")
    settings = {"format": "native"}
    if change == "source":
        path = min(own.glob("*.safetensors"))
        os.utime(path, ns=(1, 1))
    elif change == "format":
        settings["format"] = "huggingface"
    else:
        settings["shard_bytes"] = 50_000
    convert(own, tmp_path / "out", **settings)
    convert(own, tmp_path / "whole", **settings)
    assert content(tmp_path / "whole") == content(tmp_path / "out")


@pytest.mark.parametrize("tear", [1, 5, 8, 9, 100])
def test_a_torn_journal(source, tmp_path, small_pieces, tear):
    stopped(source, tmp_path / "out", format="meta")
    notes = tmp_path / ".out.partial.journal"
    notes.write_bytes(notes.read_bytes()[:-tear])
    convert(source, tmp_path / "out", "meta")
    convert(source, tmp_path / "whole", "meta")
    assert content(tmp_path / "whole") == content(tmp_path / "out")


@pytest.mark.parametrize(("form", "kind"), [("native", SafetensorsPlan), ("meta", TorchPlan)])
def test_a_file_that_was_half_prepared(source, tmp_path, monkeypatch, form, kind):
    def half(self, path):
        path.write_bytes(b"half")
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(kind, "prepare", half)
        with pytest.raises(StoppedError):
            convert(source, tmp_path / "out", form)
    convert(source, tmp_path / "out", form)
    convert(source, tmp_path / "whole", form)
    assert content(tmp_path / "whole") == content(tmp_path / "out")


def test_the_journal_only_names_what_is_on_the_disk(source, tmp_path, monkeypatch, small_pieces):
    """A power failure may lose whatever was not synchronised."""
    unsafe, flushes = [], []
    write, sync, flush = stream._write, os.fsync, stream.Journal.flush

    def written(handle, raw, offset):
        unsafe.append(len(raw))
        write(handle, raw, offset)

    def synchronised(descriptor):
        unsafe.clear()
        sync(descriptor)

    def flushed(self):
        flushes.append(len(unsafe))
        flush(self)

    monkeypatch.setattr(stream, "_write", written)
    monkeypatch.setattr(stream.os, "fsync", synchronised)
    monkeypatch.setattr(stream.Journal, "flush", flushed)
    convert(source, tmp_path / "out")
    assert len(flushes) > 5
    assert not any(flushes)


def test_a_journal_whose_beginning_is_torn(source, tmp_path, small_pieces):
    stopped(source, tmp_path / "out")
    notes = tmp_path / ".out.partial.journal"
    notes.write_bytes(notes.read_bytes()[:20])
    convert(source, tmp_path / "out")
    convert(source, tmp_path / "whole")
    assert content(tmp_path / "whole") == content(tmp_path / "out")


def test_a_journal_that_a_power_failure_left_in_zeros(source, tmp_path, small_pieces):
    stopped(source, tmp_path / "out")
    notes = tmp_path / ".out.partial.journal"
    notes.write_bytes(notes.read_bytes()[:-18] + bytes(18))
    convert(source, tmp_path / "out")
    convert(source, tmp_path / "whole")
    assert content(tmp_path / "whole") == content(tmp_path / "out")


def test_a_partial_folder_that_somebody_removed(source, tmp_path, small_pieces):
    stopped(source, tmp_path / "out")
    shutil.rmtree(tmp_path / ".out.partial")
    convert(source, tmp_path / "out")
    convert(source, tmp_path / "whole")
    assert content(tmp_path / "whole") == content(tmp_path / "out")


def test_a_folder_of_somebody_else_is_not_removed(source, tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "precious").write_text("here")
    with pytest.raises(CheckpointError, match="in the way"):
        convert(source, tmp_path / "out")
    assert (tmp_path / ".out.partial" / "precious").read_text() == "here"


def test_a_second_process_is_kept_out(source, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".out.partial.journal").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process"):
            convert(source, tmp_path / "out")


def test_a_disk_that_is_too_small(source, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(stream.shutil, "disk_usage", lambda path: Usage)
    with pytest.raises(CheckpointError, match=r"needs 0\.00 GB more.*free"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / ".out.partial").exists()


def test_a_disk_that_fills_up_keeps_what_is_written(source, tmp_path, monkeypatch, small_pieces):
    write, count = stream._write, [0]

    def full(handle, raw, offset):
        count[0] += 1
        if count[0] == 30:
            raise OSError(28, "No space left on device")
        write(handle, raw, offset)

    monkeypatch.setattr(stream, "_write", full)
    with pytest.raises(CheckpointError, match=r"No space left.*goes on where it stopped"):
        convert(source, tmp_path / "out")
    assert (tmp_path / ".out.partial").is_dir()
    convert(source, tmp_path / "out")
    monkeypatch.undo()
    convert(source, tmp_path / "whole")
    assert content(tmp_path / "whole") == content(tmp_path / "out")


def test_joined_weights_are_what_torch_would_join():
    generator = torch.Generator().manual_seed(0)
    for axis in (0, 1, 2):
        parts = []
        for length in (1, 3, 2):
            shape = [4, 5, 6]
            shape[axis] = length
            parts.append(torch.randn(shape, generator=generator))
        whole, paper = torch.cat(parts, axis), join(parts, axis)
        assert isinstance(paper, Joined)
        assert paper.shape == whole.shape
        assert paper.nbytes == whole.nbytes
        assert torch.equal(gathered(paper), whole)
        assert torch.equal(gathered(paper.transpose(-2, -1)), whole.transpose(-2, -1))
        for dim in range(3):
            size = whole.shape[dim]
            for start in range(size):
                assert torch.equal(gathered(paper.select(dim, start)), whole.select(dim, start))
                for length in range(1, size - start + 1):
                    cut = paper.narrow(dim, start, length)
                    assert torch.equal(gathered(cut), whole.narrow(dim, start, length))
        for limit in (1, 24, 100, 10_000):
            flat = [gathered(piece).reshape(-1) for piece in pieces(paper, limit)]
            assert torch.equal(torch.cat(flat), whole.reshape(-1))
            assert all(p.nbytes <= max(limit, 4 * whole.shape[-1]) for p in flat)


def test_a_transposed_matrix_is_copied_as_it_is():
    whole = torch.arange(600 * 700).view(600, 700)
    for view in (whole, whole.T, whole.T[3:690, 5:597], whole[:, :20].T, whole[::2].T):
        assert torch.equal(compact(view), view)
        assert compact(view).is_contiguous()


def test_what_follows_has_a_line_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress() as shown:
        shown(1, 2)
    assert capsys.readouterr().err.endswith("GB\x1b[K\n")


def test_the_line_of_progress():
    assert line(5 * 10**8, 10**9, 0.0, 0, 10.0) == (
        "[############             ]  50% 0.50 of 1.00 GB, 50 MB/s, 0:10 left"
    )
    # Half was there when it began: the rate is that of what is left.
    assert line(75 * 10**7, 10**9, 0.0, 5 * 10**8, 5.0).endswith("50 MB/s, 0:05 left")
    assert line(0, 10**9, 3.0, 0, 3.0).endswith("0.00 of 1.00 GB")
