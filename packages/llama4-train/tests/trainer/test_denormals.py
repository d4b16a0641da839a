"""Numbers below 2^-126 count as 0 while a model is trained, and only then."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from llama4_core.cli import main
from llama4_train.errors import TrainingError
from llama4_train.trainer.denormals import flushed_denormals, flushes_denormals
from llama4_train.trainer.loop import Trainer

SMALLEST = 2.0**-126

RECIPE = """
name = "never begun"
steps = 1
model = { start = "nano" }
data = { length = 8, tokens = 8, sources = [{ name = "worlds", settings = { world = "source" } }] }
"""

pytestmark = pytest.mark.skipif(
    not torch.set_flush_denormal(False), reason="this processor cannot flush"
)


def test_inside_they_are_zero_and_outside_they_are_not():
    assert not flushes_denormals()
    with flushed_denormals():
        assert flushes_denormals()
        with flushed_denormals():
            pass
        assert flushes_denormals()  # the inner one leaves what it found
    assert not flushes_denormals()


def test_an_error_does_not_leave_it_on():
    with pytest.raises(KeyError), flushed_denormals():
        raise KeyError
    assert not flushes_denormals()


def test_threads_that_torch_starts_inside_flush_as_well():
    program = f"""
import torch
from llama4_train.trainer.denormals import flushed_denormals
torch.set_num_threads(2)
with flushed_denormals():
    many = torch.full((1 << 22,), {SMALLEST})
    many /= 2
print(int(many.view(torch.int32).count_nonzero()))
"""
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "0"


def test_the_command_flushes_before_anything_is_put_together(monkeypatch, tmp_path):
    """Torch starts its threads while a model is made: they take the setting over."""
    seen = []

    def made(*given, **named):
        seen.append(flushes_denormals())
        raise TrainingError("enough")

    monkeypatch.setattr(Trainer, "of", made)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    assert main(["train", str(tmp_path / "recipe.toml")]) == 2
    assert seen == [True]
    assert not flushes_denormals()
