"""Checkpoints with eyes of other makes, in other dtypes; and text that knows nothing of them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.parity.oracle import (
    PATCH,
    VISION_BASE,
    random_tiles,
    random_tokens,
    saved,
    seeing_oracle,
    tolerance,
)

import llama4_core as l4
from llama4_core.checkpoints.convert import convert
from llama4_core.checkpoints.extract import extract
from llama4_core.checkpoints.part import vision_part
from llama4_core.checkpoints.shards import map_folder
from llama4_core.errors import CheckpointError, Llama4Error, SpecError
from llama4_core.model.initialise import initialise

pytest.importorskip("llama4_vision")

TEXT = {"num_hidden_layers": 2}
OTHERS = [
    {"encoder": "siglip"},
    {"adapter": "pooled-linear"},
    {"encoder": "siglip", "adapter": "pooled-linear"},
]


@pytest.fixture(scope="module")
def theirs() -> Any:
    return seeing_oracle(TEXT, VISION_BASE)


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(theirs, tmp_path_factory.mktemp("seeing") / "huggingface")


@pytest.fixture
def prompt() -> tuple[torch.Tensor, torch.Tensor]:
    """Two tiles between words."""
    words = random_tokens(1, 7, PATCH, 1)[0].tolist()
    ids = [*words[:3], *[PATCH] * 8, *words[3:]]
    return torch.tensor(ids), random_tiles(2, VISION_BASE, 1)


def drawn(folder: Path, changes: dict[str, str]) -> Any:
    """A model of the folder's numbers with other parts in its eyes, and random weights."""
    spec = l4.load(folder).spec
    assert spec.vision is not None
    model = l4.assemble(
        replace(spec, vision=replace(spec.vision, **changes)), device="cpu", dtype="float32"
    )
    initialise(model, 5)
    return model


@pytest.mark.parametrize("changes", OTHERS, ids=lambda changes: "+".join(changes.values()))
def test_eyes_of_another_make_are_kept_in_the_native_format(
    folder: Path, tmp_path: Path, changes: dict[str, str], prompt: Any
) -> None:
    """Their weights have names and shapes that only the component knows."""
    model = drawn(folder, changes)
    l4.save(model, tmp_path / "native")
    again = l4.load(tmp_path / "native")
    assert again.spec.vision == model.spec.vision
    kept, expected = again.state_dict(), model.state_dict()
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], expected[name]) for name in expected)
    with torch.no_grad():
        assert torch.equal(again.logits(*prompt), model.logits(*prompt))
    # Copied, extracted and read alone, without the component being asked.
    convert(tmp_path / "native", tmp_path / "copy")
    assert map_folder(tmp_path / "copy").keys() == expected.keys()
    extract(tmp_path / "native", tmp_path / "eyes", "vision")
    vision, width, tensors = vision_part(tmp_path / "eyes")
    assert (vision, width) == (model.spec.vision, model.spec.width)
    assert {f"vision.{name}" for name in tensors} == {
        name for name in expected if name.startswith("vision.")
    }


@pytest.mark.parametrize("form", ["huggingface", "meta"])
@pytest.mark.parametrize("changes", OTHERS, ids=lambda changes: "+".join(changes.values()))
def test_other_formats_have_no_word_for_them(
    folder: Path, tmp_path: Path, changes: dict[str, str], form: str
) -> None:
    model = drawn(folder, changes)
    slot, name = next(iter(changes.items()))
    with pytest.raises(SpecError, match=rf"vision\.{slot} is '{name}'.*native format"):
        l4.save(model, tmp_path / "out", form)
    assert not list(tmp_path.iterdir())


def test_a_foreign_weight_that_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    l4.save(drawn(folder, {"encoder": "siglip"}), tmp_path / "native")
    for path in (tmp_path / "native").glob("*.safetensors"):
        tensors = load_file(path)
        gone = next(name for name in tensors if name.startswith("vision.encoder."))
        del tensors[gone]
        save_file(tensors, path)
    (tmp_path / "native" / "model.safetensors.index.json").unlink(missing_ok=True)
    (path := next((tmp_path / "native").glob("*.safetensors"))).rename(
        path.with_name("model.safetensors")
    )
    with pytest.raises(CheckpointError, match=gone.replace(".", r"\.")):
        l4.load(tmp_path / "native")


def test_another_adapter_by_override_starts_with_its_own_weights(
    folder: Path, prompt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What is stored for the part that was replaced is left out, and said."""
    model = l4.load(folder, overrides={"vision.adapter": "pooled-linear"})
    assert "2 weights are not used" in caplog.text
    assert torch.equal(
        model.vision.encoder.norm_pre.weight, l4.load(folder).vision.encoder.norm_pre.weight
    )
    with torch.no_grad():
        assert model.logits(*prompt).isfinite().all()


def stored_as(source: Path, target: Path, text: torch.dtype, eyes: torch.dtype) -> Path:
    """The folder with text model and encoder in two dtypes."""
    target.mkdir()
    tensors = {}
    for name, tensor in map_folder(source).items():
        tensors[name] = tensor.to(text if name.startswith("language_model.") else eyes).clone()
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize("text", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("eyes", [torch.float32, torch.bfloat16, torch.float16])
def test_eyes_in_another_dtype_than_the_text(
    folder: Path, tmp_path: Path, prompt: Any, text: torch.dtype, eyes: torch.dtype
) -> None:
    """Kept as they are stored, and encoding in it; features are cast where they are fused."""
    model = l4.load(stored_as(folder, tmp_path / "mixed", text, eyes))
    assert {p.dtype for p in model.vision.parameters()} == {eyes}
    assert {p.dtype for p in model.layers.parameters()} == {text}
    assert model.dtype == text
    tokens, tiles = prompt
    with torch.no_grad():
        features = model.vision(tiles.to(eyes))
        assert features.dtype == eyes
        hidden, _ = model(
            tokens, model.packed([len(tokens)]), {PATCH: features.flatten(0, 1).to(text)}
        )
        assert torch.equal(model.logits(tokens, tiles), model.project(hidden))
    found = model.generate(tokens.tolist(), pixel_values=tiles, max_tokens=2)
    assert len(found.tokens) <= 2
    l4.save(model, tmp_path / "back", "huggingface")
    back, stored = map_folder(tmp_path / "back"), map_folder(tmp_path / "mixed")
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[n], stored[n]) and back[n].dtype == stored[n].dtype for n in back)


def test_float32_eyes_beside_bfloat16_text_are_not_rounded(
    folder: Path, tmp_path: Path, theirs: Any
) -> None:
    """transformers casts all to one dtype; in ours the encoder keeps what it was stored with."""
    model = l4.load(stored_as(folder, tmp_path / "mixed", torch.bfloat16, torch.float32))
    tiles = random_tiles(2, VISION_BASE, 3)
    with torch.no_grad():
        expected = theirs.multi_modal_projector(theirs.vision_model(tiles).last_hidden_state)
        # As the parity tests have it.
        limit = 5e-6 * float(expected.abs().max())
        assert float((model.vision(tiles) - expected).abs().max()) <= limit


def test_one_dtype_for_all_when_asked(folder: Path, tmp_path: Path, prompt: Any) -> None:
    mixed = stored_as(folder, tmp_path / "mixed", torch.float32, torch.bfloat16)
    model = l4.load(mixed, dtype="float32")
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    with torch.no_grad():
        assert model.logits(*prompt).isfinite().all()


SCRIPT = """
import hashlib, importlib.metadata, json, sys

if sys.argv[2] == "hidden":
    # As where the package was never installed: no entry point, no module.
    every = importlib.metadata.distributions

    def others(**context):
        return (d for d in every(**context) if d.metadata["Name"] != "llama4-vision")

    importlib.metadata.distributions = others
    sys.modules["llama4_vision"] = None

import torch
import llama4_core as l4

torch.set_num_threads(1)
model = l4.load(sys.argv[1])
tokens = torch.arange(3, 40).reshape(1, -1) * 7 % 500
logits = model.logits(torch.cat([tokens, tokens.flip(1)]))
spoken = model.generate(tokens[0].tolist(), max_tokens=12, seed=3, temperature=0.7)
sharp = model.generate(tokens[0].tolist(), max_tokens=12)
print(json.dumps({
    "logits": hashlib.sha256(logits.detach().numpy().tobytes()).hexdigest(),
    "spoken": [list(spoken.tokens), list(sharp.tokens)],
    "eyes": type(model.vision).__name__,
    "aside": len(model.extra_weights),
}))
"""


def run(folder: Path, way: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), way],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_text_is_bit_equal_with_and_without_the_package(folder: Path) -> None:
    """Two processes on one checkpoint with eyes, of which one has never heard of them."""
    seeing, blind = run(folder, "installed"), run(folder, "hidden")
    assert (seeing.pop("eyes"), blind.pop("eyes")) == ("VisionModality", "Aside")
    assert seeing.pop("aside") == 0
    assert blind.pop("aside") > 0
    assert seeing == blind


def test_text_is_bit_equal_with_and_without_eyes(folder: Path) -> None:
    """In one process, by an override; and as the text model alone."""
    tokens = random_tokens(2, 27, PATCH, 4)
    models = [l4.load(folder), l4.load(folder, overrides={"vision": "none"})]
    with torch.inference_mode():
        found = [hashlib.sha256(m.logits(tokens).numpy().tobytes()).hexdigest() for m in models]
    said = [m.generate(tokens[0].tolist(), max_tokens=8).tokens for m in models]
    assert found[0] == found[1]
    assert said[0] == said[1]


def test_the_extracted_text_model_says_the_same(
    folder: Path, tmp_path: Path, theirs: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    extract(folder, tmp_path / "text", "text")
    tokens = random_tokens(1, 20, PATCH, 4)
    with torch.inference_mode():
        expected = theirs(input_ids=tokens).logits
        found = l4.load(tmp_path / "text").logits(tokens)
    assert (found - expected).abs().max() <= tolerance(expected)


def test_a_blind_model_says_what_it_lacks(folder: Path, prompt: Any) -> None:
    model = l4.load(folder, overrides={"vision": "none"})
    with pytest.raises(Llama4Error, match="pip install llama4-vision"):
        model.logits(*prompt)
