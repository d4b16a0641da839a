"""Damaged checkpoints of every format: one clear line each, nothing run, nothing left."""

import pytest

from .corruptions import GENERAL, META, SAFETENSORS, run
from .folders import make_all


@pytest.mark.parametrize(
    ("count", "seed"), [(100, 1), pytest.param(1000, 0, marks=pytest.mark.slow)]
)
def test_corrupted_checkpoints_are_refused(tmp_path, monkeypatch, count, seed):
    workplace = tmp_path / "work"
    workplace.mkdir()
    sound = make_all(tmp_path / "sound")
    monkeypatch.chdir(tmp_path)
    refused, _ = run(sound, workplace, count, seed)
    assert refused.total() == count
    if count == 1000:
        assert {damage.__name__ for damage in GENERAL + META + SAFETENSORS} == set(refused)
