"""The key tables account for every key of the two published models, and for no other."""

import importlib.util
import json
from pathlib import Path

import pytest

from llama4_core.checkpoints.keys import CONDITIONAL, huggingface_rows, naming_of
from llama4_core.specs.presets import preset

GOLDENS = Path(__file__).parent / "data" / "goldens"


def unfolded(name):
    location = importlib.util.spec_from_file_location("compact", GOLDENS / "compact.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module.unfold(json.loads((GOLDENS / f"hf_keys_{name}.json").read_text()))


@pytest.mark.parametrize(("name", "count"), [("scout", 1133), ("maverick", 1061)])
def test_every_key_of_a_published_model_has_a_row(name, count):
    golden = unfolded(name)
    assert len(golden) == count
    assert naming_of(golden) == CONDITIONAL
    rows = huggingface_rows(preset(name), CONDITIONAL)
    assert {row.theirs: row.their_shape for row in rows} == golden
