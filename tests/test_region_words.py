"""The objective of recipes/tiny that tells image features what is where."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import llama4_tiny
from llama4_train import Recipe
from llama4_train.errors import RecipeError, TrainingError
from llama4_train.protocols import StepFacts
from llama4_train.trainer.loop import Trainer

FILE = Path(__file__).resolve().parent.parent / "recipes" / "tiny" / "region_words.py"
TINY = Path(llama4_tiny.__file__).parent / "data"


def _module():
    spec = importlib.util.spec_from_file_location("region_words", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


region_words = _module()
WORDS = ("red", "blue", "star")

edges = st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda pair: pair[0] < pair[1])


@given(
    boxes=st.lists(
        st.tuples(st.sampled_from((*WORDS, "red hat", "hat")), edges, edges), max_size=4
    ),
    side=st.sampled_from((1, 2, 4, 5)),
    cover=st.sampled_from((0.0301, 0.2703, 0.7101)),  # no share of squares is one of these
)
def test_a_feature_has_the_word_of_the_box_that_covers_most_of_it(boxes, side, cover):
    """Counted in squares of a grid of 40 x 40, in which all boxes here lie."""
    cell = 40 // side
    given_boxes = [
        (phrase, (across[0] / 40, down[0] / 40, across[1] / 40, down[1] / 40))
        for phrase, across, down in boxes
    ]
    at = region_words.covering(given_boxes, side, cover)
    found = region_words.labels_of(given_boxes, at, WORDS).view(side, side)
    for row in range(side):
        for column in range(side):
            counts = [
                sum(
                    across[0] <= x < across[1] and down[0] <= y < down[1]
                    for x in range(column * cell, (column + 1) * cell)
                    for y in range(row * cell, (row + 1) * cell)
                )
                for _, across, down in boxes
            ]
            label = int(found[row, column])
            best = max(counts, default=0)
            if best < cover * cell * cell:
                assert label == region_words.NOTHING
            elif counts.count(best) == 1:
                phrase = boxes[counts.index(best)][0]
                words = [place for place, word in enumerate(WORDS) if word in phrase.split()]
                assert label == (words[0] if words else region_words.NOTHING)


def recipe(**changes) -> Recipe:
    base = Recipe.of(
        {
            "name": "eyes",
            "steps": 6,
            "model": {"start": str(TINY), "tokenizer": str(TINY), "train": ["vision.**"]},
            "data": {
                "length": 160,
                "tokens": 1200,
                "sources": [
                    {"name": "worlds", "settings": {"world": "scenes", "form": "caption"}},
                ],
            },
            "objective": {"name": "region-words"},
            "optimizer": {"name": "adamw", "settings": {"lr": 3e-3}},
        }
    )
    return base.override(changes)


def test_the_encoder_learns_and_nothing_else_does():
    trainer = Trainer.of(recipe(), plugins=[FILE])
    before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
    steps = list(trainer)
    changed = {
        name
        for name, value in trainer.model.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed
    assert all(name.startswith("vision.") for name in changed)
    first, last = steps[0].parts, steps[-1].parts
    assert last["region.colour"] < first["region.colour"]
    assert 0 <= last["right.shape"] <= 1


def test_what_it_cannot_learn_from_is_said():
    sums = {"data.sources": [{"name": "worlds", "settings": {"world": "arithmetic"}}]}
    with pytest.raises(TrainingError, match="one picture of one tile"):
        Trainer.of(recipe(**sums), plugins=[FILE]).step()
    words = {"objective.settings": {"groups": {"taste": ["sweet", "sour"]}}}
    with pytest.raises(TrainingError, match="no picture of step 0 has a box"):
        Trainer.of(recipe(**words), plugins=[FILE]).step()
    for settings in ({"groups": {}}, {"groups": {"one": ["red"]}}, {"cover": 0}, {"edges": -1}):
        with pytest.raises(RecipeError, match="region-words"):
            region_words.RegionWords(**settings)


def test_the_loss_is_that_of_the_formula():
    """Feature by feature, with the embeddings of the words' tokens."""
    trainer = Trainer.of(recipe(), plugins=[FILE])
    model, batch = trainer.model, trainer.parts.data.batch()
    objective = region_words.RegionWords(groups={"colour": ["red", "blue", "green"]})
    loss = objective(model, batch, StepFacts(0, batch.weight, len(batch.tokens), 0))
    (inputs,) = batch.inputs.values()
    features = model.vision(inputs)
    rows = []
    for word in ("red", "blue", "green"):
        ids = [i for text in (word, " " + word) for i in model.tokenizer.encode(text, bos=False)]
        rows.append(sum(model.embedding.weight[i] for i in ids) / len(ids))
    mean = sum(rows) / 3
    found = []
    for tokens, picture in zip(batch.tokens.split(list(batch.lengths)), features, strict=True):
        boxes = region_words._boxes(model, tokens)
        at = region_words.covering(boxes, 4, 0.15)
        labels = region_words.labels_of(boxes, at, ("red", "blue", "green"))
        for feature, label in zip(picture, labels.tolist(), strict=True):
            if label != region_words.NOTHING:
                cosines = [torch.cosine_similarity(feature, row - mean, dim=0) for row in rows]
                found.append(-torch.log_softmax(16 * torch.stack(cosines), 0)[label])
    assert len(found) > 10
    # Sums of a hundred float32 numbers of the order of 1.
    wanted = sum(found) / len(found)
    assert loss.total.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_edges_are_read_off_fixed_directions():
    """Wave by wave: cosine before sine, edge after edge, over the features under a box."""
    trainer = Trainer.of(recipe(), plugins=[FILE])
    model, batch = trainer.model, trainer.parts.data.batch()
    facts = StepFacts(0, batch.weight, len(batch.tokens), 0)
    alone, both = (region_words.RegionWords(edges=weight)(model, batch, facts) for weight in (0, 3))
    assert "region.edges" not in alone.parts
    (inputs,) = batch.inputs.values()
    generator = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(model.spec.width, 40, generator=generator)).Q
    wrong = []
    for tokens, picture in zip(
        batch.tokens.split(list(batch.lengths)), model.vision(inputs), strict=True
    ):
        boxes = region_words._boxes(model, tokens)
        for feature, at in zip(
            picture, region_words.covering(boxes, 4, 0.15).tolist(), strict=True
        ):
            if at == region_words.NOTHING:
                continue
            waves = []
            for edge in boxes[at][1]:
                phases = [2 * math.pi * cycles * edge for cycles in (0.5, 1, 2, 5, 10)]
                waves += [math.cos(phase) for phase in phases]
                waves += [math.sin(phase) for phase in phases]
            read = feature / feature.norm() @ directions / region_words.AMPLITUDE
            wrong += [(one - wave) ** 2 for one, wave in zip(read.tolist(), waves, strict=True)]
    assert len(wrong) > 400
    # Sums of thousands of float32 numbers of the order of 1.
    expected = 3 * sum(wrong) / len(wrong)
    assert both.parts["region.edges"].item() == pytest.approx(expected, rel=1e-5)
    assert both.total.item() == pytest.approx(alone.total.item() + expected, rel=1e-5)
