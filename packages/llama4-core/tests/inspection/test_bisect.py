"""The pieces of bisection, on models without experts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from llama4_core.errors import CheckpointError, ContextError
from llama4_core.inspection.bisect import bisect
from llama4_core.inspection.capture import activations
from llama4_core.inspection.hints import Place, hint
from llama4_core.inspection.recording import (
    Recording,
    from_document_start,
    record,
    to_own_start,
)
from llama4_core.inspection.routes import flips_of, same_choice
from llama4_core.inspection.slots import comparable
from llama4_core.inspection.tolerances import coarser, deviation, tolerance

from .conftest import small

TOKENS = torch.arange(26).reshape(2, 13) % 40


def test_slots_lie_in_the_order_of_the_data(build):
    model = build()
    slots = comparable(activations(model))
    _, seen = model.logits(TOKENS, capture=slots)
    # v is computed before q and k are rotated, and the order of dictionaries is that of computing
    assert slots == list(seen)
    assert len(slots) == 3 + 4 * 11


def test_a_model_equals_itself(build):
    report = bisect(build(), build(), TOKENS)
    assert report.first is None
    assert report.parted == ()
    assert report.free_logits == 0
    assert report.free_argmax == 1
    # turning q and k to the document's start and back rounds once more
    assert max(result.deviation for result in report.slots) <= 2e-7


@pytest.mark.parametrize(
    ("name", "slot", "says"),
    [
        ("embedding.weight", "embedding", "embedding rows"),
        ("layers.1.attention_norm.weight", "layers.1.attention_norm", "norm's weight"),
        ("layers.1.attention.k_proj.weight", "layers.1.attention.k_proj", "other values"),
        ("layers.2.attention.o_proj.weight", "layers.2.attention", "other values"),
        ("layers.2.feed_forward.up_proj.weight", "layers.2.feed_forward", "the feed-forward"),
        ("norm.weight", "norm", "norm's weight"),
        ("head.weight", "logits", "the head"),
    ],
)
def test_a_changed_weight_is_found_where_it_is(build, name, slot, says):
    """And nowhere else: what comes after it is fed from the reference."""
    changed = build()
    weight = changed.get_parameter(name)
    with torch.no_grad():
        weight.view(-1)[::3] *= 1.01
    report = bisect(build(), changed, TOKENS)
    assert [result.slot for result in report.parted] == [slot]
    assert says in report.hint


def test_permuted_heads_are_called_a_layout(build):
    changed = build()
    with torch.no_grad():
        weight = changed.layers[0].attention.q_proj.weight
        weight.copy_(weight.roll(8, 0))
    assert "another order" in bisect(build(), changed, TOKENS).hint


def test_what_is_not_a_number_is_found(build):
    changed = build()
    with torch.no_grad():
        changed.layers[3].feed_forward.down_proj.weight[0, 0] = float("nan")
    report = bisect(build(), changed, TOKENS)
    assert report.first.slot == "layers.3.feed_forward"
    assert "not finite" in report.hint
    assert report.to_dict()["first"]["deviation"] is None


@pytest.mark.parametrize("modulo", [None, 6])
def test_rotations_that_no_score_shows_are_no_difference(build, modulo):
    """Positions may count from the document or from the chunk: only differences matter."""
    changed = build()
    for layer in (0, 1, 3):
        variant = changed.layers[layer].attention.variant
        rotary = replace(variant.rotary, modulo=modulo)
        variant.rotary, variant.rotation = rotary, rotary.name
        changed._rotaries[rotary.name] = rotary
    parted = [result.slot for result in bisect(build(), changed, TOKENS).parted]
    # Counted from blocks of 6, chunks of 4 are cut: then scores do differ.
    expected = [] if modulo is None else [f"layers.{n}.attention.mixed" for n in (0, 1, 3)]
    assert parted == expected


def test_a_recording_survives_the_disk(build, tmp_path):
    model = build()
    recording = record(model, TOKENS)
    recording.save(tmp_path / "run.safetensors")
    read = Recording.load(tmp_path / "run.safetensors")
    assert (read.name, read.dtype) == ("small", "float32")
    assert torch.equal(read.tokens, TOKENS)
    assert read.values.keys() == recording.values.keys()
    assert all(torch.equal(read.values[slot], v) for slot, v in recording.values.items())
    assert bisect(read, model, read.tokens).first is None


def test_a_file_that_is_no_recording_is_refused(tmp_path, build):
    from llama4_core.checkpoints.safetensors_file import write_file

    path = tmp_path / "x.safetensors"
    write_file(path, {"a": torch.zeros(2)}, {"format": "pt"})
    with pytest.raises(CheckpointError, match="expected a recording"):
        Recording.load(path)
    facts = {"format": "llama4-recording-1", "name": "x", "dtype": "float32"}
    write_file(path, {"logits": torch.zeros(2)}, facts)
    with pytest.raises(CheckpointError, match="no tokens"):
        Recording.load(path)
    write_file(path, {"tokens": torch.zeros(1, 3).long(), "logits": torch.zeros(2)}, facts)
    with pytest.raises(CheckpointError, match="logits"):
        Recording.load(path)


def test_shapes_that_differ_are_refused(build):
    short = replace(small(), layers=small().layers[:3])
    with pytest.raises(ContextError, match="3 layers"):
        bisect(build(), build(short), TOKENS)
    wide = replace(small(), width=32)
    with pytest.raises(ContextError, match=r"embedding has shape \[26, 32\]"):
        bisect(build(), build(wide), TOKENS)


def test_bfloat16_explains_its_own_rounding(build):
    report = bisect(build(), build(dtype="bfloat16"), TOKENS)
    assert report.first is None
    assert max(result.deviation for result in report.slots) > 1e-3


def test_deviation_is_relative_to_the_token():
    a = torch.tensor([[3.0, 4.0], [30.0, 40.0], [0.0, 0.0]])
    b = torch.tensor([[3.0, 4.5], [30.0, 45.0], [0.0, 0.0]])
    size = (2525 / 3) ** 0.5  # of an average token: a floor for small ones
    assert deviation(a, b).tolist() == pytest.approx([0.5 / size, 0.1, 0.0])
    assert not bool(deviation(a, b * float("nan")).isfinite().any())
    infinite = torch.tensor([[float("-inf"), 1.0]])
    assert deviation(infinite, infinite).tolist() == [0.0]


def test_tolerances():
    positions = torch.tensor([0, 100])
    assert tolerance("layers.0.attention_norm", "float32", positions).tolist() == [1e-6, 1e-6]
    assert tolerance("layers.0.attention", "float32", positions).tolist() == [1e-5, 1e-5]
    assert tolerance("layers.0.attention.mixed", "float32", positions).tolist() == [2e-5, 2e-5]
    q = tolerance("layers.0.attention.variant.q", "float32", positions).tolist()
    assert q == pytest.approx([1e-6, 1e-6 + 100 * 2**-23])
    assert coarser("float32", "bfloat16") == "bfloat16"
    assert coarser("float64", "float64") == "float32"


def test_turning_to_the_documents_start_and_back(build):
    model, positions = build(), torch.arange(13)
    path = "layers.0.attention.variant.q"
    q = torch.randn(13, 4, 8, generator=torch.Generator().manual_seed(0))
    turned = from_document_start(model, path, q, positions)
    assert torch.equal(turned[:4], q[:4])  # the first chunk starts where the document does
    assert not torch.allclose(turned[4:], q[4:], atol=0.1)
    assert torch.allclose(to_own_start(model, path, turned, positions), q, atol=1e-6)
    for other in ("layers.2.attention.variant.q", "layers.0.attention.q_proj", "logits"):
        assert from_document_start(model, other, q, positions) is q


def test_a_near_tie_may_flip_and_nothing_else():
    logits = torch.tensor([[1.0, 1.0001, -1.0], [1.0, 2.0, -1.0], [1.0, 2.0, -1.0]])
    given = torch.tensor([[1], [1], [1]])
    own = torch.tensor([[0], [0], [1]])
    flipped, beyond = flips_of(given, own, logits, torch.full((3,), 1e-4))
    assert flipped.tolist() == [True, True, False]
    assert beyond.tolist() == [False, True, False]
    _, beyond = flips_of(given, own, logits, torch.full((3,), 1e-6))
    assert beyond.tolist() == [True, True, False]
    none = torch.tensor([[-1], [1], [1]])
    assert flips_of(given, none, logits, torch.ones(3))[1].tolist() == [True, False, False]
    order = flips_of(torch.tensor([[0, 1]]), torch.tensor([[1, 0]]), logits[:1], torch.zeros(1))
    assert not order[0].any()


def test_weights_are_compared_where_the_choice_is_the_same():
    given = {"experts": torch.tensor([[0, 1], [0, 1]]), "weights": torch.tensor([[0.2, 0.7]] * 2)}
    own = {"experts": torch.tensor([[1, 0], [0, 2]]), "weights": torch.tensor([[0.7, 0.3]] * 2)}
    left, right = same_choice(given, own, "weights")
    assert torch.equal(left, torch.tensor([[0.2, 0.7], [0.0, 0.0]]))
    assert torch.equal(right, torch.tensor([[0.3, 0.7], [0.0, 0.0]]))


def test_a_hint_about_weights_of_reordered_experts() -> None:
    """The same experts in another order in every token: there is no token to read a rule from."""
    ids = torch.tensor([[0, 1], [2, 3]])
    values = {
        "feed_forward.router.logits": torch.zeros(2, 4),
        "feed_forward.router.experts": ids,
        "feed_forward.router.weights": torch.ones(2, 2),
    }
    other = {**values, "feed_forward.router.experts": ids.flip(1)}
    place = Place("feed_forward.router.weights", values, other, torch.arange(2), "float32")
    assert hint(place) == "equal logits and experts, other weights"
