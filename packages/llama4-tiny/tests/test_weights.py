"""What the package brings: weights that load, run and are what its card says."""

from __future__ import annotations

import hashlib
import json
import re
import struct
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import torch

import llama4_core as l4
import llama4_tiny
from llama4_core.errors import CheckpointError
from llama4_core.specs.accounting import account
from llama4_core.specs.find import spec_from_path
from llama4_tiny import plugin

LARGEST = 12_000_000
DATA = Path(llama4_tiny.__file__).parent / "data"


@pytest.fixture(scope="module")
def model():
    return l4.load("tiny")


def card() -> str:
    """The README of the checkout, or the one that the wheel's metadata carries."""
    file = Path(__file__).parents[1] / "README.md"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = metadata.metadata("llama4-tiny")
    return str(found.get_payload() or found["Description"])


def test_it_loads_as_it_is_stored(model) -> None:
    """In bfloat16, with tokenizer and eyes, every weight a number."""
    assert model.dtype == torch.bfloat16
    assert model.tokenizer is not None
    assert model.extra_weights == {}
    assert model.folder == DATA
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def test_its_numbers_are_those_of_its_description(model) -> None:
    """All of them, and those that one token needs."""
    spec = spec_from_path(DATA)
    total = sum(weight.numel() for weight in model.parameters())
    assert total == account(spec).total == 5_596_544
    assert account(spec).active < total / 2
    assert spec.name == "tiny"
    assert spec.dtype == "bfloat16"
    assert spec.vocabulary == 2048 >= model.tokenizer.vocabulary


def test_it_is_a_whole_llama_4() -> None:
    """Every part that the published models have, and none that they do not: no balancing bias."""
    spec = spec_from_path(DATA)
    for index, layer in enumerate(spec.layers):
        attention, forward = layer.attention, layer.feed_forward
        everything = (index + 1) % 4 == 0
        assert attention.variant == ("nope-global" if everything else "irope-chunked")
        assert (attention.temperature is not None) == everything
        assert attention.qk_norm == (attention.rope is not None) == (not everything)
        assert (forward.kind, forward.router) == ("moe", "sigmoid-top-k")
        assert (forward.top_k, forward.weight_on) == (1, "input")
        assert forward.shared_width > 0
    assert spec.vision is not None
    assert spec.vision.shuffle_ratio == 0.5


def test_the_files_are_small_and_hold_no_code() -> None:
    """Weights within 12 MB; safetensors by their own header, and text."""
    weights = list(DATA.glob("*.safetensors"))
    assert len(weights) == 1
    assert sum(file.stat().st_size for file in weights) <= LARGEST
    (length,) = struct.unpack("<Q", weights[0].read_bytes()[:8])
    header = json.loads(weights[0].read_bytes()[8 : 8 + length])
    assert not [name for name in header if name.endswith("router.bias")]
    assert {one["dtype"] for name, one in header.items() if name != "__metadata__"} == {"BF16"}
    for file in DATA.iterdir():
        assert file.suffix in {".safetensors", ".json", ".toml"}, file
        if file.suffix != ".safetensors":
            file.read_text(encoding="utf-8")


def test_it_speaks(model) -> None:
    """The same words twice, of its own tokenizer, and a reply that ends by itself."""
    reply = model.chat("12 + 30 =", max_tokens=16)
    again = model.chat("12 + 30 =", max_tokens=16)
    assert reply.generation.tokens == again.generation.tokens
    assert reply.generation.stop_reason == "stop_token"
    assert reply.message.text.strip() == "42"


def test_the_card_says_what_was_measured_of_these_weights() -> None:
    """Row by row, number by number; and that these are the weights."""
    found = json.loads((DATA / "figures.json").read_text(encoding="utf-8"))
    (weights,) = DATA.glob("*.safetensors")
    assert found["weights"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    part = card().partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in part.splitlines() if "|" in line]
    expected = [
        [
            f"{one['value']:.3f}",
            f"{one['low']:.3f} to {one['high']:.3f}",
            f"{one['count']}",
            *(f"{one[rate]:.3f}" for rate in ("chance", "majority") if rate in one),
        ]
        for task in found["tasks"]
        for one in task["figures"]
        if one["metric"] == "accuracy"
        and (one["name"] != "all" or task["label"].startswith("arithmetic"))
    ]
    assert len(expected) > 40
    assert [[cell for cell in row[2:] if cell] for row in rows[2:]] == expected


def test_the_card_says_what_training_took() -> None:
    """Steps and tokens of every stage."""
    found = json.loads((DATA / "training.json").read_text(encoding="utf-8"))
    part = card().partition("<!-- training -->")[2].partition("<!-- end of training -->")[0]
    for stage in found["stages"]:
        numbers = f"| {stage['steps']:,} | {stage['tokens']:,} | {stage['seconds'] / 3600:.2f} |"
        assert [line for line in part.splitlines() if stage["name"] in line and numbers in line]


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With where they should be, and what to do."""
    monkeypatch.setattr(plugin, "FILES", ("spec.toml", "weights.safetensors"))
    with pytest.raises(CheckpointError, match=r"has no .*weights\.safetensors; reinstall it"):
        l4.load("tiny")


def test_a_package_without_files_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As out of a zip archive, from which nothing can be mapped."""
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("data/spec.toml", "")
    packed = zipfile.Path(tmp_path / "packed.zip")
    monkeypatch.setattr(plugin, "files", lambda package: packed)
    with pytest.raises(CheckpointError, match="nothing can be mapped"):
        plugin.folder()


def test_the_hook_imports_without_torch() -> None:
    """Listing models stays quick, and does not look for the weights."""
    code = "import sys, llama4_tiny.plugin as p; print(p.MODELS[0].name, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tiny", "False"]
