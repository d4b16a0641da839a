"""Checkpoints beside the steps: copies, one at a time, the latest kept, no error lost."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import CheckpointError
from llama4_train.checkpoints import keeper as module
from llama4_train.checkpoints import storage, whole
from llama4_train.checkpoints.folders import CHECKPOINTS, checkpoints, latest, partial_folder
from llama4_train.checkpoints.keeper import Keeper
from llama4_train.checkpoints.manifest import read_manifest, verify
from llama4_train.checkpoints.whole import contents, read_part


def state(value: float = 0.0) -> dict:
    return {"w": torch.full((3,), value), "notes": {"value": value}}


@pytest.fixture
def held(monkeypatch):
    """Writing waits until the event is set."""
    go = threading.Event()
    original = whole.write

    def write(*args):
        # The limit only ends a test that is wrong.
        assert go.wait(60)
        original(*args)

    monkeypatch.setattr(whole, "write", write)
    return go


def test_what_is_stored_is_the_state_at_the_call(tmp_path, held):
    kept = Keeper(tmp_path, 2)
    one = state(1.0)
    kept.save(1, one)
    one["w"].fill_(2.0)
    one["notes"]["value"] = 2.0
    kept.check()
    assert latest(tmp_path) is None
    held.set()
    kept.wait()
    found = read_part(latest(tmp_path), "")
    assert found["w"].tolist() == [1.0] * 3
    assert found["notes"] == {"value": 1.0}


def test_one_at_a_time(tmp_path, held):
    kept = Keeper(tmp_path, 2)
    kept.save(1, state())
    first = kept._thread
    threading.Thread(target=held.set).start()
    kept.save(2, state())
    assert not first.is_alive()
    kept.wait()
    assert [step for step, _ in checkpoints(tmp_path)] == [1, 2]


@given(
    steps=st.lists(st.integers(1, 99), min_size=1, max_size=6, unique=True), keep=st.integers(1, 3)
)
def test_the_latest_are_kept(tmp_path_factory, steps, keep):
    run = tmp_path_factory.mktemp("run")
    kept = Keeper(run, keep)
    for step in sorted(steps):
        kept.save(step, state(step))
    kept.wait()
    assert [step for step, _ in checkpoints(run)] == sorted(steps)[-keep:]
    assert read_part(latest(run), "w")["w"].tolist() == [max(steps)] * 3
    assert all(not path.name.startswith(".") for path in (run / CHECKPOINTS).iterdir())


def test_at_every_moment_what_has_a_name_is_whole(tmp_path, monkeypatch):
    """What a process that is killed at that moment leaves behind."""
    kept = Keeper(tmp_path, 2)
    moments = []

    def look():
        found = checkpoints(tmp_path)
        for _, folder in found:
            verify(folder, read_manifest(folder).values())
            contents(folder)
        moments.append([step for step, _ in found])

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*args, **settings):
            look()
            result = original(*args, **settings)
            look()
            return result

        monkeypatch.setattr(owner, name, watched)

    watch(os, "fsync")
    watch(Path, "replace")
    watch(Path, "mkdir")
    watch(shutil, "rmtree")
    watch(storage, "_raw")
    for step in range(1, 5):
        kept.save(step, state(step))
        kept.wait()
    assert len(moments) > 100
    # Never fewer than are kept, once they were written; never more than one beyond.
    assert set(map(tuple, moments)) == {(), (1,), (1, 2), (1, 2, 3), (2, 3), (2, 3, 4), (3, 4)}


def test_an_error_of_the_thread_is_raised_once_by_the_next_call(tmp_path, monkeypatch):
    kept = Keeper(tmp_path, 2)
    kept.save(1, state(1.0))
    kept.wait()

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        kept.save(2, state())
        kept._thread.join()
    with pytest.raises(CheckpointError, match="No space left") as raised:
        kept.check()
    assert "\n" not in str(raised.value)
    kept.check()
    # The older one is whole, nothing lies about, and the run can go on.
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["step-00000001"]
    assert read_part(latest(tmp_path), "w")["w"].tolist() == [1.0] * 3
    kept.save(3, state())
    kept.wait()


def test_an_error_that_is_not_ours_is_not_lost_either(tmp_path, monkeypatch):
    kept = Keeper(tmp_path, 2)

    def broken(*_):
        raise ZeroDivisionError("of a plugin")

    monkeypatch.setattr(whole, "write", broken)
    kept.save(1, state())
    with pytest.raises(CheckpointError, match="of a plugin") as raised:
        kept.save(2, state())
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_too_small_a_disk_is_told_at_once_and_the_older_stay(tmp_path, monkeypatch):
    kept = Keeper(tmp_path, 1)
    kept.save(1, state())
    kept.wait()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1))
    with pytest.raises(CheckpointError, match="older checkpoints are untouched"):
        kept.save(2, state())
    assert [step for step, _ in checkpoints(tmp_path)] == [1]


def test_a_value_that_is_no_json_is_told_at_once(tmp_path):
    with pytest.raises(CheckpointError, match="data cannot be stored as JSON"):
        Keeper(tmp_path, 1).save(1, {"data": object()})


def test_what_a_kill_left_is_ignored_and_removed(tmp_path):
    kept = Keeper(tmp_path, 2)
    kept.save(3, state())
    kept.wait()
    place = tmp_path / CHECKPOINTS
    for name in (".step-00000004.partial", ".step-00000001.removed"):
        (place / name).mkdir()
        (place / name / "manifest.json").write_text("{}")
    other = place / "notes"
    other.mkdir()
    assert latest(tmp_path).name == "step-00000003"
    Keeper(tmp_path, 2)
    assert sorted(path.name for path in place.iterdir()) == ["notes", "step-00000003"]


def test_left_overs_do_not_hinder_the_same_step(tmp_path):
    kept = Keeper(tmp_path, 2)
    partial = partial_folder(module.checkpoint_folder(tmp_path, 1))
    partial.mkdir()
    (partial / "tensors-00000.safetensors").write_text("half")
    kept.save(1, state(1.0))
    kept.wait()
    assert read_part(latest(tmp_path), "w")["w"].tolist() == [1.0] * 3
    assert not partial.exists()


def test_a_step_that_is_stored_is_not_stored_again(tmp_path):
    kept = Keeper(tmp_path, 2)
    kept.save(1, state(1.0))
    kept.save(1, state(2.0))
    kept.wait()
    assert read_part(latest(tmp_path), "w")["w"].tolist() == [1.0] * 3


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        Keeper(tmp_path / "run", 1)
    assert Path(tmp_path / "run").read_text() == "a file"
