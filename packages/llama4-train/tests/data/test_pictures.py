"""Early fusion from files to the loss: JSON lines with pictures, films and chats, real eyes."""

import json
from dataclasses import replace

import pytest
import torch

from llama4_core.assembly.assemble import assemble
from llama4_core.model.initialise import initialise
from llama4_core.specs.layers import every, llama4_layers
from llama4_core.specs.model import DenseSpec, ModelSpec, RopeSpec, TokenIds, VisionSpec
from llama4_core.tokenizers.meta import MetaTokenizer, tokenizers_encoder
from llama4_core.tokenizers.sample import sample_ranks
from llama4_train.data.encode import Encoder
from llama4_train.data.mixture import Mixture
from llama4_train.data.pipeline import Pipeline
from llama4_train.errors import DataError
from llama4_train.objectives.next_token import NextToken
from llama4_train.protocols import StepFacts
from llama4_train.sources.jsonl import ChatJsonl, ImageTextJsonl

pytest.importorskip("llama4_vision")
pictures = pytest.importorskip("PIL.Image")

TOKENIZER = MetaTokenizer(sample_ranks(), tokenizers_encoder)
PATCH = TOKENIZER.specials["<|patch|>"]
COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


@pytest.fixture(scope="module")
def model():
    spec = ModelSpec(
        name="eyes",
        vocabulary=TOKENIZER.vocabulary,
        width=16,
        norm_eps=1e-5,
        max_positions=4096,
        tied=True,
        layers=llama4_layers(
            2,
            heads=2,
            kv_heads=1,
            head_dim=8,
            rope=RopeSpec(10_000.0),
            chunk=64,
            qk_norm=True,
            temperature=None,
            position_free=every(2, 2),
            moe_layers=(),
            moe=None,
            dense=DenseSpec(32),
        ),
        vision=VisionSpec(
            width=16,
            layers=1,
            heads=2,
            mlp_width=32,
            image_size=16,
            patch_size=4,
            channels=3,
            shuffle_ratio=0.5,
            adapter_width=16,
            adapter_output=16,
            theta=10_000.0,
            norm_eps=1e-5,
        ),
        tokens=TokenIds(bos=TOKENIZER.bos, image=PATCH),
    )
    model = assemble(spec, device="cpu", dtype="float32")
    initialise(model, 0)
    model.tokenizer = TOKENIZER
    return model.train()


@pytest.fixture
def data(tmp_path):
    """Captions, questions and chats about one-coloured pictures of several shapes."""
    captions, chats = [], []
    for number, (name, colour) in enumerate(COLOURS.items()):
        for width in (16, 40):
            path = f"{name}{width}.png"
            pictures.new("RGB", (width, 16), colour).save(tmp_path / path)
            captions.append({"image": path, "text": f"it is {name}"})
            captions.append({"image": [path] * 2, "question": "which?", "answer": name})
            part = {"type": "image_url", "image_url": {"url": path}}
            chat = [{"role": "user", "content": ["see ", part, f" {number}"]}]
            chats.append({"messages": [*chat, {"role": "assistant", "content": name}]})
    frames = [pictures.new("RGB", (16, 16), colour) for colour in COLOURS.values()]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], duration=500)
    captions.append({"video": "film.gif", "text": "red, then blue"})
    for name, rows in (("captions", captions), ("chats", chats)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def pipeline(model, data, on_error="stop"):
    sources = [
        ("captions", ImageTextJsonl(str(data / "captions.jsonl"), epochs=0, shuffle=True)),
        ("chats", ChatJsonl(str(data / "chats.jsonl"), epochs=0, shuffle=True)),
    ]
    encoder = Encoder(TOKENIZER, model.modalities, 128)
    return Pipeline(Mixture(sources, [2, 1], 0), encoder, 256, on_error)


def test_features_meet_their_places(model, data):
    """As many features as placeholders, of the pictures in the order of the stream."""
    source = pipeline(model, data)
    seen = set()
    for _ in range(6):
        batch = source.batch()
        seen |= set(batch.sources)
        tiles = batch.inputs[PATCH]
        each = model.modalities[0](tiles[:1]).shape[1]
        places = (batch.tokens == PATCH).nonzero().flatten()
        assert len(places) == each * len(tiles)
        # No picture is a target, and every document has one.
        assert not batch.weights[places - 1].any()
        assert all(part.any() for part in batch.weights.split(batch.lengths))
        # A tile is of one colour: it is that of the word behind it in the same document.
        at = 0
        for document in batch.tokens.split(batch.lengths):
            count = int((document == PATCH).sum()) // each
            text = TOKENIZER.decode(document.tolist())
            for tile in tiles[at : at + count] if "then" not in text else []:
                red = bool(tile[0].mean() > tile[2].mean())
                assert ("red" in text) == red, text
            at += count
        assert at == len(tiles)
    assert seen == {"captions", "chats"}


def test_batches_train_and_go_on_exactly(model, data):
    source, other = pipeline(model, data), pipeline(model, data)
    source.batch()
    other.restore(json.loads(json.dumps(source.state())))
    batch, again = source.batch(), other.batch()
    for name in ("tokens", "targets", "weights"):
        assert torch.equal(getattr(batch, name), getattr(again, name))
    assert torch.equal(batch.inputs[PATCH], again.inputs[PATCH])
    loss = NextToken()(model, batch, StepFacts(0, batch.weight, len(batch.tokens)))
    loss.total.backward()
    grads = [p.grad for name, p in model.named_parameters() if "vision" in name or "modal" in name]
    assert any(grad is not None and bool(grad.any()) for grad in grads)
    # The pictures matter to the loss.
    dark = replace(batch, inputs={PATCH: torch.zeros_like(batch.inputs[PATCH])})
    blind = NextToken()(model, dark, StepFacts(0, batch.weight, len(batch.tokens)))
    assert blind.total != loss.total


def test_a_damaged_picture_is_named_with_its_line(model, data):
    (data / "red16.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    source = pipeline(model, data)

    def draw():
        while True:
            source.batch()

    with pytest.raises(DataError) as caught:
        draw()
    assert ".jsonl, line 1: " in str(caught.value) or ".jsonl, line 2: " in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = pipeline(model, data, on_error="skip")
    for _ in range(5):
        kept.batch()
    assert kept.skipped > 0
