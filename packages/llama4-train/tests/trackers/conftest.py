"""A recipe that trackers are built with."""

import pytest

from llama4_train.recipe import DataPart, ModelPart, Recipe, SourcePart


@pytest.fixture
def recipe():
    def make(steps=100, trackers=(), dtype="float32"):
        source = SourcePart("jsonl", settings={"path": "a.jsonl"})
        return Recipe(
            "small run",
            steps,
            ModelPart("nano", dtype=dtype),
            DataPart(8, 8, (source,)),
            trackers=tuple(trackers),
        )

    return make
