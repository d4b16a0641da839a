"""Packing and the pipeline: nothing lost, nothing twice, the same batches from any state."""

import json
import logging
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.protocols.modalities import Reading
from llama4_train.data.mixture import Mixture
from llama4_train.data.packing import IGNORED, pack
from llama4_train.data.pipeline import Pipeline
from llama4_train.data.skipping import IN_A_ROW, Skipping
from llama4_train.errors import DataError, NoMoreDataError
from llama4_train.protocols import Example
from llama4_train.sources.finite import Finite

PATCH, SOUND = 90, 91


def example(start, length, pictures=0, weight=1.0):
    """Tokens that occur nowhere else, pictures between them."""
    tokens = [start + n for n in range(length)]
    readings, placeholders = [], []
    for number in range(pictures):
        placeholder = (PATCH, SOUND)[(start + number) % 2]
        tokens += [placeholder, placeholder]
        readings.append(Reading("", (), 2, torch.tensor([[float(start + number)]])))
        placeholders.append(placeholder)
    weights = [0.0] + [weight * (n % 3) for n in range(1, len(tokens))]
    return Example(tuple(tokens), tuple(weights), tuple(readings), "s", tuple(placeholders))


EXAMPLES = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), min_size=1, max_size=20).map(
    lambda shapes: [
        example(1000 * (1 + n), length, pictures) for n, (length, pictures) in enumerate(shapes)
    ]
)


class Rows:
    blocks = ()
    fingerprint = "rows"

    def __init__(self, examples, broken=()):
        self.examples, self.broken = examples, broken

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, number):
        if number in self.broken:
            raise DataError(f"row {number} is broken")
        return self.examples[number]


class Same:
    """An encoder of what is encoded."""

    def __init__(self, length):
        self.length = length

    def __call__(self, record):
        return record


def pipeline(examples, tokens=16, broken=(), on_error="stop", epochs=1, second=None):
    sources = [("a", Finite(Rows(examples, broken), epochs, shuffle=True))]
    if second is not None:
        sources.append(("b", Finite(Rows(second), epochs)))
    return Pipeline(Mixture(sources, [1] * len(sources), 0), Same(16), tokens, on_error)


def same(first, second):
    assert first.lengths == second.lengths
    assert first.sources == second.sources
    assert first.inputs.keys() == second.inputs.keys()
    for name in ("tokens", "targets", "weights"):
        assert torch.equal(getattr(first, name), getattr(second, name))
    for placeholder, inputs in first.inputs.items():
        assert torch.equal(inputs, second.inputs[placeholder])


@given(examples=EXAMPLES)
def test_targets_stay_within_their_document(examples):
    batch = pack(examples)
    assert batch.tokens.tolist() == [token for one in examples for token in one.tokens]
    assert batch.lengths == tuple(len(one.tokens) for one in examples)
    at = 0
    for one in examples:
        count = len(one.tokens)
        for place in range(count):
            weight = one.weights[place + 1] if place + 1 < count else 0.0
            target = one.tokens[place + 1] if weight else IGNORED
            assert batch.targets[at + place] == target
            assert batch.weights[at + place] == weight
        at += count
    assert batch.weight == sum(sum(one.weights) for one in examples)


@given(examples=EXAMPLES)
def test_inputs_are_in_the_order_of_their_tokens(examples):
    batch = pack(examples)
    for placeholder in (PATCH, SOUND):
        expected = [
            reading.inputs.item()
            for one in examples
            for reading, own in zip(one.readings, one.placeholders, strict=True)
            if own == placeholder
        ]
        got = batch.inputs.get(placeholder)
        assert ([] if got is None else got.flatten().tolist()) == expected
        assert (batch.tokens == placeholder).sum() == 2 * len(expected)


def test_what_cannot_be_packed_is_refused():
    with pytest.raises(DataError, match="without examples"):
        pack([])
    with pytest.raises(DataError, match="without tokens"):
        pack([Example((), ())])
    wide = Reading("", (), 1, torch.zeros(1, 2))
    narrow = Reading("", (), 1, torch.zeros(1, 3))
    with pytest.raises(DataError, match="shapes"):
        pack([Example((1,), (0.0,), (wide, narrow), "", (PATCH, PATCH))])


@given(examples=EXAMPLES, tokens=st.integers(16, 40))
def test_every_token_comes_once(examples, tokens):
    batches = list(pipeline(examples, tokens))
    got = [tuple(part.tolist()) for batch in batches for part in batch.tokens.split(batch.lengths)]
    assert sorted(got) == sorted(one.tokens for one in examples)
    for batch, after in pairwise(batches):
        assert len(batch.tokens) <= tokens
        # What begins the next batch had no room in this one.
        assert len(batch.tokens) + after.lengths[0] > tokens


@given(
    examples=EXAMPLES,
    second=st.none() | EXAMPLES,
    broken=st.sets(st.integers(0, 19), max_size=3),
    data=st.data(),
)
def test_it_goes_on_at_any_point(examples, second, broken, data):
    def build():
        return pipeline(examples, 24, broken, "skip", epochs=3, second=second)

    whole, states = build(), []
    batches, skipped = [], []
    while True:
        states.append(json.loads(json.dumps(whole.state())))
        skipped.append(whole.skipped)
        try:
            batches.append(whole.batch())
        except NoMoreDataError:
            break
    cut = data.draw(st.integers(0, len(batches)))
    resumed = build()
    for _ in range(data.draw(st.integers(0, min(2, len(batches))))):
        resumed.batch()
    resumed.restore(states[cut])
    assert resumed.state() == states[cut]
    # Records that are drawn again are counted again, not twice.
    assert resumed.skipped <= skipped[cut]
    rest = list(resumed)
    assert len(rest) == len(batches) - cut
    for got, expected in zip(rest, batches[cut:], strict=True):
        same(got, expected)
    assert resumed.skipped == whole.skipped


@pytest.mark.parametrize("row", range(5))
def test_an_error_loses_nothing(row):
    examples = [example(100 * n, 5) for n in range(1, 6)]
    source = pipeline(examples, 16, broken={row})
    first = []

    def draw():
        while True:
            first.append(source.batch())

    with pytest.raises(DataError, match=f"row {row}"):
        draw()
    # What was drawn before the error still waits, and is in the state.
    state = source.state()
    rest = list(source)
    again = pipeline(examples, 16, broken={row}, on_error="skip")
    again.restore(state)
    for got, expected in zip(again, rest, strict=True):
        same(got, expected)
    assert sum(len(batch.lengths) for batch in first + rest) == 4


def test_skipped_records_are_counted_at_the_end(caplog):
    examples = [example(100 * n, 5) for n in range(1, 6)]
    source = pipeline(examples, 16, broken={1, 3}, on_error="skip")
    with caplog.at_level(logging.WARNING):
        batches = list(source)
    assert sum(len(batch.lengths) for batch in batches) == 3
    assert source.skipped == 2
    *skipped, last = [record.message for record in caplog.records]
    assert sorted(skipped) == ["skipped: row 1 is broken", "skipped: row 3 is broken"]
    assert last == "skipped 2 of 5 records"


def test_nothing_but_broken_records_is_no_endless_search():
    source = pipeline([example(100, 5)] * 2, broken={0, 1}, on_error="skip", epochs=0)
    with pytest.raises(NoMoreDataError, match=f"{IN_A_ROW:,} records in a row .* row"):
        source.batch()


def test_data_that_breaks_off_is_not_its_end():
    class Broken:
        def __next__(self):
            raise NoMoreDataError("the connection is gone")

        def state(self):
            return {}

    source = Pipeline(Mixture([("a", Broken())], [1], 0), Same(4), 8, "skip")
    with pytest.raises(NoMoreDataError, match="the connection is gone"):
        list(source)


def test_sources_of_tokens_get_the_encoder():
    class Tokens(Finite):
        def prepare(self, encoder):
            self.prepared = encoder

    source, encoder = Tokens(Rows([example(100, 5)])), Same(16)
    Pipeline(Mixture([("a", source)], [1], 0), encoder, 16)
    assert source.prepared is encoder


@pytest.mark.parametrize("length", [None, 17])
def test_an_example_fits_into_a_batch(length):
    mixture = Mixture([("a", Finite(Rows([example(100, 5)])))], [1], 0)
    with pytest.raises(DataError, match=r"raise data\.tokens"):
        Pipeline(mixture, Same(length), 16)


def test_on_error_is_stop_or_skip():
    with pytest.raises(DataError, match="did you mean 'skip'"):
        Skipping("skpi")


@pytest.mark.parametrize(
    "state", [{}, {"mixture": 3, "used": 0, "skipped": 0}, {"mixture": {}, "used": "x"}]
)
def test_what_is_no_state_is_refused(state):
    source = pipeline([example(100, 5)])
    with pytest.raises(DataError, match="expected one of a pipeline"):
        source.restore(state)
