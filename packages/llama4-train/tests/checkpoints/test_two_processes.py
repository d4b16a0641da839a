"""Two processes store what they hold in parts; one reads it whole, and the other way round."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from llama4_train.checkpoints.folders import checkpoints
from llama4_train.checkpoints.whole import contents, read_part, write

PROGRAM = Path(__file__).with_name("ranks.py")


def test_parts_of_two_become_the_whole_of_one_and_back(tmp_path):
    spec = importlib.util.spec_from_file_location("ranks", PROGRAM)
    ranks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ranks)
    expected = ranks.tensors()
    write({**expected, "step": 3}, tmp_path / "one")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(rank), str(tmp_path)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors

    found = read_part(tmp_path / "two", "")
    assert found.pop("step") == 3
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        assert torch.equal(found[name], one), name
    assert contents(tmp_path / "two")["rows"].shape == (5, 4)
    # Each process wrote its own part, and what both hold was written once.
    files = sorted(path.name for path in (tmp_path / "two").glob("tensors-*"))
    assert files == ["tensors-00000.safetensors", "tensors-00001.safetensors"]
    # A part is not called by the name of the whole.
    assert "rows@3,0" in load_file(tmp_path / "two" / files[1])
    total = sum(one.nbytes for one in expected.values())
    assert sum((tmp_path / "two" / name).stat().st_size for name in files) < 2 * 4096 + total + 64
    assert [step for step, _ in checkpoints(tmp_path / "run")] == [2]
    assert not (tmp_path / "never").exists()
    for rank in range(2):
        assert "mine cannot be stored as JSON" in (tmp_path / f"said-{rank}").read_text()
