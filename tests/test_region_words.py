"""The objective of recipes/tiny that tells image features what is where."""

from __future__ import annotations

import importlib.util
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
    found = region_words.labels_of(given_boxes, WORDS, side, cover).view(side, side)
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
    for settings in ({"groups": {}}, {"groups": {"one": ["red"]}}, {"cover": 0}):
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
        labels = region_words.labels_of(boxes, ("red", "blue", "green"), 4, 0.15)
        for feature, label in zip(picture, labels.tolist(), strict=True):
            if label != region_words.NOTHING:
                cosines = [torch.cosine_similarity(feature, row - mean, dim=0) for row in rows]
                found.append(-torch.log_softmax(16 * torch.stack(cosines), 0)[label])
    assert len(found) > 10
    # Sums of a hundred float32 numbers of the order of 1.
    wanted = sum(found) / len(found)
    assert loss.total.item() == pytest.approx(wanted.item(), rel=1e-5)
