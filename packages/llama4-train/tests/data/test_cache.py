"""Cached tokens: the same examples, written once, whole or not at all, refused when stale."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from llama4_core.errors import ComponentError
from llama4_core.protocols.modalities import Reading
from llama4_core.tokenizers.meta import MetaTokenizer, tokenizers_encoder
from llama4_core.tokenizers.sample import sample_ranks
from llama4_train.data.cache import INDEX, CachedRows, write_cache
from llama4_train.data.encode import Encoder
from llama4_train.data.fingerprint import tokenizer_fingerprint
from llama4_train.data.mixture import Mixture
from llama4_train.data.pipeline import Pipeline
from llama4_train.errors import DataError
from llama4_train.protocols import Example
from llama4_train.sources.cached import Cached
from llama4_train.sources.jsonl import Jsonl

TOKENIZER = MetaTokenizer(sample_ranks(), tokenizers_encoder)
KEY = {"what": "rows", "length": 3}


class Rows:
    """A source of examples."""

    def __init__(self, examples, fail_at=None):
        self.examples, self.place, self.fail_at = examples, 0, fail_at

    def __next__(self):
        if self.place == self.fail_at:
            raise KeyboardInterrupt
        if self.place == len(self.examples):
            raise StopIteration
        self.place += 1
        return self.examples[self.place - 1]

    def state(self):
        return {"place": self.place}

    def restore(self, state):
        self.place = state["place"]


def same(record):
    return record


EXAMPLES = st.lists(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.25, 1.0])),
        min_size=1,
        max_size=9,
    ).map(lambda pairs: Example(*(tuple(part) for part in zip(*pairs, strict=True)))),
    min_size=1,
    max_size=15,
)


@given(examples=EXAMPLES, most=st.integers(1, 30))
def test_examples_come_back(tmp_path_factory, examples, most):
    folder = tmp_path_factory.mktemp("cache") / "new"
    calls = []
    write_cache(
        Rows(examples),
        same,
        folder,
        KEY,
        shard_tokens=most,
        progress=lambda *done: calls.append(done),
    )
    rows = CachedRows(folder, KEY)
    assert [rows[number] for number in range(len(rows))] == examples
    files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    assert all(file["tokens"].dtype == np.uint32 for file in files)
    # Closed with the example that fills it, not before and not after.
    for file in files[:-1]:
        assert file["ends"][-1] >= most > (file["ends"][-2] if len(file["ends"]) > 1 else 0)
    assert calls[-1] == (len(examples), sum(len(one.tokens) for one in examples))
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


@given(examples=EXAMPLES, most=st.integers(1, 12), data=st.data())
def test_a_killed_writer_goes_on(tmp_path_factory, examples, most, data):
    folder = tmp_path_factory.mktemp("cache")
    whole = folder / "whole"
    write_cache(Rows(examples), same, whole, KEY, shard_tokens=most)
    part = folder / "part"
    for fail_at in sorted(data.draw(st.lists(st.integers(0, len(examples)), max_size=3))):
        with pytest.raises(KeyboardInterrupt):
            write_cache(Rows(examples, fail_at), same, part, KEY, shard_tokens=most)
        with pytest.raises(DataError, match="no whole cache"):
            CachedRows(part, KEY)
    write_cache(Rows(examples), same, part, KEY, shard_tokens=most)
    for path in whole.iterdir():
        assert (part / path.name).read_bytes() == path.read_bytes()
    # What is whole is not written again.
    before = {path.name: path.stat().st_mtime_ns for path in part.iterdir()}
    write_cache(Rows([], fail_at=0), same, part, KEY)
    assert {path.name: path.stat().st_mtime_ns for path in part.iterdir()} == before


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ({**KEY, "length": 4}, "length 3, and is now wanted with 4"),
        ({**KEY, "more": 1}, "more None"),
        ({"length": 3}, "what 'rows', and is now wanted with None"),
    ],
)
def test_a_stale_cache_is_refused(tmp_path, key, said):
    write_cache(Rows([Example((1,), (0.0,))]), same, tmp_path, KEY)
    for call in (
        lambda: write_cache(Rows([]), same, tmp_path, key),
        lambda: CachedRows(tmp_path, key),
    ):
        with pytest.raises(DataError, match=said):
            call()


def test_damaged_caches_are_one_line(tmp_path):
    write_cache(Rows([Example((1, 2), (0.0, 1.0))]), same, tmp_path, KEY)
    shard = tmp_path / "00000.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-3])
    with pytest.raises(DataError, match=r"00000\.safetensors cannot be read"):
        CachedRows(tmp_path, KEY)
    shard.unlink()
    with pytest.raises(DataError, match=r"00000\.safetensors cannot be read"):
        CachedRows(tmp_path, KEY)
    shard.write_bytes(content)
    index = json.loads((tmp_path / INDEX).read_text())
    index["shards"][0]["tokens"] = 3
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"does not hold what index\.json says"):
        CachedRows(tmp_path, KEY)
    for text, said in (
        ("{", "cannot be read"),
        ("[]", "is no index"),
        ('{"format": 1}', "no index"),
    ):
        (tmp_path / INDEX).write_text(text)
        with pytest.raises(DataError, match=said):
            CachedRows(tmp_path, KEY)
    index["format"] = 2
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match="format 2, this version reads 1"):
        CachedRows(tmp_path, KEY)


def test_pictures_are_not_kept(tmp_path):
    example = Example((1,), (0.0,), (Reading("", (), 1, None),))
    with pytest.raises(DataError, match="holds a picture"):
        write_cache(Rows([example]), same, tmp_path, KEY)


def test_no_space_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    import llama4_train.data.cache as cache

    examples = [Example((n,), (1.0,)) for n in range(4)]
    real, calls = cache.os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(cache.os, "fsync", full)
    with pytest.raises(DataError, match=r"00001\.safetensors cannot be written \(No space left"):
        write_cache(Rows(examples), same, tmp_path, KEY, shard_tokens=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.safetensors", INDEX]
    write_cache(Rows(examples), same, tmp_path, KEY, shard_tokens=1)
    assert len(CachedRows(tmp_path, KEY)) == 4


def test_nothing_to_tokenise_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no records"):
        write_cache(Rows([]), same, tmp_path, KEY)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(20)))
    return path


def cached(tmp_path, data, **settings):
    return Cached(str(tmp_path / "cache"), "jsonl", {"files": str(data)}, **settings)


def test_a_cached_source_gives_what_the_source_gives(tmp_path, data, caplog):
    encoder = Encoder(TOKENIZER, length=12)

    def batches(source):
        pipeline = Pipeline(Mixture([("x", source)], [1], 0), encoder, 24)
        return [(batch.tokens.tolist(), batch.weights.tolist()) for batch in pipeline]

    plain = batches(Jsonl(str(data), epochs=2, shuffle=True, seed=3))
    with caplog.at_level(logging.INFO):
        kept = batches(cached(tmp_path, data, epochs=2, shuffle=True, seed=3, shard_tokens=50))
    assert kept == plain
    said = [record.message.rpartition(": ")[2] for record in caplog.records]
    assert said[-1] == "skipped 0 of 20 records"
    assert said[-2].startswith("20 examples, ")
    assert batches(cached(tmp_path, data, epochs=2, shuffle=True, seed=3)) == plain


def test_other_data_or_tokens_are_not_taken_for_these(tmp_path, data):
    encoder = Encoder(TOKENIZER, length=12)
    cached(tmp_path, data).prepare(encoder)
    with pytest.raises(DataError, match="with length 12, and is now wanted with 13"):
        cached(tmp_path, data).prepare(Encoder(TOKENIZER, length=13))
    other = MetaTokenizer([*sample_ranks(), b"text"], tokenizers_encoder)
    with pytest.raises(DataError, match="tokenizer"):
        cached(tmp_path, data).prepare(Encoder(other, length=12))
    data.write_text(data.read_text().replace("text 3", "text 4"))
    with pytest.raises(DataError, match="with data"):
        cached(tmp_path, data).prepare(encoder)


def test_broken_lines_stop_the_writing_or_are_skipped(tmp_path, data):
    lines = data.read_text().split("\n")
    lines[4] = "{"
    data.write_text("\n".join(lines))
    encoder = Encoder(TOKENIZER, length=12)
    with pytest.raises(DataError, match="line 5"):
        cached(tmp_path, data).prepare(encoder)
    source = cached(tmp_path, data, on_error="skip")
    source.prepare(encoder)
    assert len(list(source)) == 19


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"source": "jsnl"}, ComponentError, "did you mean 'jsonl'"),
        ({"source": "worlds", "settings": {"world": "arithmetic"}}, DataError, "never ends"),
        ({"source": "cached"}, DataError, "a cache of a cache"),
        ({"settings": 3}, DataError, "settings are 3"),
        ({"shard_tokens": 0}, DataError, "shard_tokens is 0"),
        ({"epochs": -1}, DataError, "epochs are -1"),
    ],
)
def test_wrong_settings_are_named(tmp_path, data, settings, error, said):
    given = {"source": "jsonl", "settings": {"files": str(data)}, **settings}
    with pytest.raises(error, match=said):
        Cached(str(tmp_path / "cache"), **given).prepare(Encoder(TOKENIZER, length=12))


def test_tokens_need_an_encoder_first(tmp_path, data):
    with pytest.raises(DataError, match="prepare"):
        next(cached(tmp_path, data))


def test_fingerprints_tell_tokenizers_apart():
    ranks = list(sample_ranks())
    again = MetaTokenizer(ranks, tokenizers_encoder)
    assert tokenizer_fingerprint(again) == tokenizer_fingerprint(TOKENIZER)
    others = [
        MetaTokenizer([*ranks, b"xyz"], tokenizers_encoder),
        MetaTokenizer([*ranks[:-2], ranks[-1], ranks[-2]], tokenizers_encoder),
        MetaTokenizer(ranks, tokenizers_encoder, bos=None),
    ]
    found = {tokenizer_fingerprint(one) for one in (TOKENIZER, *others)}
    assert len(found) == 4
