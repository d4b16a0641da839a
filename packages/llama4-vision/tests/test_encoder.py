"""``VisionEncoder``: built, loaded, exported and compiled without a text model."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import llama4_core as l4
from llama4_core.checkpoints import shards
from llama4_core.checkpoints.extract import extract
from llama4_core.errors import CheckpointError, ModalityError, OverrideError, SpecError
from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    RopeSpec,
    TokenIds,
    VisionSpec,
)
from llama4_vision import VisionEncoder
from llama4_vision.testing.laws import fill

VISION = VisionSpec(
    16, 2, 2, 64, 8, 2, 3, shuffle_ratio=0.5, adapter_width=12, adapter_output=12, theta=1e4,
    norm_eps=1e-5,
)  # fmt: skip
PARTS = [
    (encoder, adapter)
    for encoder in ("llama4", "siglip")
    for adapter in ("pixel-shuffle-mlp", "pooled-linear")
]


def spec_of(encoder="llama4", adapter="pixel-shuffle-mlp"):
    return replace(VISION, encoder=encoder, adapter=adapter)


def made(*names):
    encoder = VisionEncoder(spec_of(*names))
    fill(encoder)
    return encoder


@pytest.fixture(scope="module")
def model():
    """A whole tiny model in bfloat16, with its eyes."""
    layer = LayerSpec(AttentionSpec("full-rope", 4, 2, 16, rope=RopeSpec(1e4)), DenseSpec(width=96))
    spec = ModelSpec(
        "tiny-eyes", 512, 64, 1e-5, 1024, False, (layer, layer), VISION,
        TokenIds(bos=0, eos=(1,), pad=2, image=500, image_start=501, image_end=502),
    )  # fmt: skip
    model = l4.assemble(spec, device="cpu", dtype="bfloat16")
    fill(model)
    return model


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    """The model in every format, and its encoder alone."""
    root = tmp_path_factory.mktemp("formats")
    for name in ("native", "huggingface", "meta"):
        l4.save(model, root / name, format=name)
    extract(root / "native", root / "extracted", "vision")
    return root


def tiles(count=3, dtype=torch.float32):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(5)).to(dtype)


# --- built --------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", PARTS)
@given(count=st.integers(1, 6), wide=st.booleans())
def test_features_of_the_adapter(names, count, wide):
    """Encoder and adapter one after the other; pixels of any floating dtype."""
    encoder = made(*names)
    pixels = tiles(count, torch.float64 if wide else torch.float32)
    got = encoder(pixels, out_layers=(1,))
    inner = encoder.encoder(pixels.float(), out_layers=(1,))
    assert got.features.shape == (count, encoder.tokens, encoder.width) == (count, 4, 12)
    assert torch.equal(got.features, encoder.adapter(inner.features))
    assert torch.equal(got.hidden[0], inner.hidden[0])
    assert not encoder.training


def test_weights_are_drawn_and_finite():
    for names in PARTS:
        assert VisionEncoder(spec_of(*names))(tiles()).features.isfinite().all()


def test_the_report_names_the_parts():
    report = made("siglip", "pooled-linear").report
    assert report.choices["encoder"].asked == "siglip"
    assert report.choices["adapter"].asked == "pooled-linear"
    assert "encoder.layers.1.attention.backend" in report.choices


def test_overrides_put_other_parts_in():
    swapped = VisionEncoder(VISION, {"adapter": "pooled-linear"})
    assert type(swapped.adapter).__name__ == "PooledLinear"
    eager = VisionEncoder(VISION, {"encoder.layers.*.attention.backend": "eager"})
    plain = VisionEncoder(VISION)
    plain.load_state_dict(eager.state_dict())
    # The same sums by another kernel.
    torch.testing.assert_close(eager(tiles()).features, plain(tiles()).features)


def test_bad_settings_are_errors():
    with pytest.raises(SpecError, match="dtype is 'int8'"):
        VisionEncoder(VISION, dtype="int8")
    with pytest.raises(SpecError, match="device is 'toaster'"):
        VisionEncoder(VISION, device="toaster")
    with pytest.raises(OverrideError):
        VisionEncoder(VISION, {"ears": "none"})
    with pytest.raises(ModalityError, match="whole numbers from 0 to 1"):
        made()(tiles(), out_layers=(2,))
    with pytest.raises(ModalityError, match=r"torch\.int64"):
        made()(tiles().long())


# --- loaded -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["native", "huggingface", "meta", "extracted"])
@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_loads_from_every_format(model, folders, name, dtype):
    """The same features as the whole model's encoder and adapter, in the dtype that was asked."""
    # Meta's files are pickle and do not say how long a context may be.
    settings = {"format": "meta", "max_positions": 1024} if name == "meta" else {}
    loaded = VisionEncoder.load(folders / name, dtype, **settings)
    eyes = model.vision
    pixels = tiles(dtype=torch.bfloat16)
    with torch.no_grad():
        want = eyes.adapter(eyes.encoder(pixels).features)
        got = loaded(pixels).features
    if dtype == "auto":
        assert loaded.dtype == torch.bfloat16
        assert torch.equal(got, want)
    else:
        assert loaded.dtype == torch.float32
        # bfloat16 keeps 8 bits, through two blocks and the adapter.
        torch.testing.assert_close(got, want.float(), rtol=0.05, atol=0.05)


def test_a_part_in_the_place_of_another_draws_its_weights(folders, caplog):
    loaded = VisionEncoder.load(folders / "native", overrides={"adapter": "pooled-linear"})
    assert loaded(tiles()).features.isfinite().all()
    assert "starts with its own" in caplog.text


def test_a_text_model_is_an_error(model, folders, tmp_path):
    extract(folders / "native", tmp_path / "text", "text")
    with pytest.raises(CheckpointError, match="no image encoder"):
        VisionEncoder.load(tmp_path / "text")
    with pytest.raises(CheckpointError, match="expected 'auto' or one of"):
        VisionEncoder.load(folders / "native", "int8")


def mapped(path):
    """Resident kilobytes of each mapping of a file, with its addresses."""
    found, current = [], None
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \d+\s+(.*)", line):
            current = head if head[3] == str(path) else None
        elif current and line.startswith("Rss:"):
            found.append((int(current[1], 16), int(current[2], 16), int(line.split()[1])))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_only_the_vision_keys_are_read(model, tmp_path, monkeypatch):
    """Not a page of a shard without them is touched, and no weight is copied."""
    folder = tmp_path / "sharded"
    l4.save(model, folder, format="huggingface", shard_bytes=20_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    seen = {file for key, file in index.items() if key.startswith("vision_model.")}
    text = {file for key, file in index.items() if "language_model" in key} - seen
    assert len(text) > 5
    kept = []

    def keeping(header):
        # Mappings that nobody holds would vanish, and with them what was read of them.
        kept.append(real(header))
        return kept[-1]

    real = shards.map_tensors
    monkeypatch.setattr(shards, "map_tensors", keeping)
    loaded = VisionEncoder.load(folder)
    assert loaded(tiles()).features.isfinite().all()
    for file in text:
        ranges = mapped(folder / file)
        assert ranges, f"{file} is not mapped: this test proves nothing"
        assert sum(resident for *_, resident in ranges) == 0, f"{file} was read"
    everywhere = [found for file in seen for found in mapped(folder / file)]
    for name, weight in loaded.named_parameters():
        place = weight.data_ptr()
        assert any(start <= place < stop for start, stop, _ in everywhere), f"{name} was copied"


# --- exported and compiled ----------------------------------------------------------------------


@pytest.mark.parametrize("names", [PARTS[0], pytest.param(PARTS[3], marks=pytest.mark.slow)])
def test_exports_for_any_number_of_tiles(names):
    """One strict program serves 1, 2 and 7 tiles."""
    encoder = VisionEncoder(replace(spec_of(*names), layers=1))
    count = torch.export.Dim("tiles", min=1, max=64)
    with torch.no_grad():
        program = torch.export.export(
            encoder, (tiles(3),), dynamic_shapes=({0: count},), strict=True
        )
        for number in (1, 2, 7):
            got = program.module()(tiles(number)).features
            # The same kernels: those of F.linear, which compiled graphs take.
            torch.testing.assert_close(got, encoder(tiles(number)).features, rtol=1e-5, atol=1e-6)


def test_compiles_once_for_any_number_of_tiles():
    torch.compiler.reset()
    encoder = made()
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(encoder, backend=counting, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for number in (2, 5, 9):
            want = encoder(tiles(number)).features
            torch.testing.assert_close(compiled(tiles(number)).features, want, rtol=1e-5, atol=1e-6)
    assert len(graphs) == 1
