"""Tables: Parquet files by row group, data sets of a local folder whole and streamed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.messages import Message
from llama4_train.errors import DataError, NoMoreDataError
from llama4_train.sources.hub import Hub
from llama4_train.sources.parquet import Parquet

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def texts(records):
    return [record.pieces[0].part.text for record in records]


def table(path, values, group, **columns):
    data = pyarrow.table({"text": values, "other": list(range(len(values))), **columns})
    parquet.write_table(data, path, row_group_size=group)


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=3).filter(any),
    group=st.integers(1, 4),
    shuffle=st.booleans(),
    window=st.integers(1, 3),
    data=st.data(),
)
def test_rows_of_parquet_come_once(tmp_path_factory, counts, group, shuffle, window, data):
    folder = tmp_path_factory.mktemp("parquet")
    expected = []
    for number, count in enumerate(counts):
        values = [f"{number}.{row}" for row in range(count)]
        table(folder / f"{number}.parquet", values, group)
        expected += values

    def build():
        return Parquet(str(folder / "*.parquet"), shuffle=shuffle, window=window, seed=3)

    whole = texts(build())
    assert sorted(whole) == sorted(expected)
    assert shuffle or whole == expected
    cut = data.draw(st.integers(0, len(whole)))
    first, second = build(), build()
    for _ in range(cut):
        next(first)
    second.restore(json.loads(json.dumps(first.state())))
    assert texts(second) == whole[cut:]


def test_only_the_needed_columns_are_read(tmp_path, monkeypatch):
    table(tmp_path / "a.parquet", ["x", "y"], 1)
    asked = []
    read = parquet.ParquetFile.read_row_group

    def spy(self, number, columns):
        asked.append(columns)
        return read(self, number, columns=columns)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", spy)
    assert texts(Parquet(str(tmp_path / "a.parquet"))) == ["x", "y"]
    assert asked == [["text"], ["text"]]


def test_groups_are_read_once_each_in_a_window(tmp_path, monkeypatch):
    table(tmp_path / "a.parquet", [str(n) for n in range(40)], 4)
    asked = []
    read = parquet.ParquetFile.read_row_group

    def spy(self, number, columns):
        asked.append(number)
        return read(self, number, columns=columns)

    monkeypatch.setattr(parquet.ParquetFile, "read_row_group", spy)
    assert len(list(Parquet(str(tmp_path / "a.parquet"), shuffle=True, window=3))) == 40
    assert sorted(asked) == list(range(10))


def test_conversations_stand_in_tables_too(tmp_path):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    table(tmp_path / "a.parquet", ["x"], 1, talk=[talk])
    record = next(Parquet(str(tmp_path / "a.parquet"), rows="chat", columns={"messages": "talk"}))
    assert record.messages == (Message("user", "a"), Message("assistant", "b"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rows": "texts"}, "did you mean 'text'"),
        ({"columns": {"field": "txt"}}, r"has no column 'txt' \(did you mean 'text'\?\)"),
        ({"files": "{}/bad.parquet"}, "bad.parquet is no Parquet file"),
        ({"files": "{}/none.parquet"}, "there are no rows"),
        ({"window": 0, "shuffle": True}, "window is 0"),
    ],
)
def test_wrong_tables_are_one_line(tmp_path, settings, said):
    table(tmp_path / "a.parquet", ["x"], 1)
    table(tmp_path / "none.parquet", pyarrow.array([], pyarrow.string()), 1)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    settings = {"files": "{}/a.parquet", **settings}
    settings["files"] = settings["files"].format(tmp_path)
    with pytest.raises(DataError, match=said) as caught:
        Parquet(**settings)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of two files, and a place for what the library keeps."""
    pytest.importorskip("datasets")
    place = tmp_path_factory.mktemp("hub")
    (place / "data").mkdir()
    for part in range(2):
        rows = [json.dumps({"text": f"{part}.{row}"}) for row in range(7)]
        (place / "data" / f"train-{part}.jsonl").write_text("\n".join(rows))
    return place


ROWS = [f"{part}.{row}" for part in range(2) for row in range(7)]


def hub(folder, **settings):
    return Hub(f"hf:{folder / 'data'}", cache=str(folder / "cache"), **settings)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_data_set_goes_on_anywhere(folder, streaming, shuffle):
    settings = {"streaming": streaming, "shuffle": shuffle, "buffer": 4, "epochs": 2}
    source = hub(folder, **settings)
    states, whole = [source.state()], []
    for record in source:
        whole += texts([record])
        states.append(json.loads(json.dumps(source.state())))
    assert sorted(whole[:14]) == sorted(whole[14:]) == ROWS
    assert (whole[:14] == ROWS) == (not shuffle)
    assert (whole[:14] == whole[14:]) == (not shuffle)
    # The start, within a block, its borders, the end of an epoch, the end.
    other = hub(folder, **settings)
    for cut in (0, 1, 3, 4, 6, 13, 14, 15, 27, 28):
        other.restore(states[cut])
        assert other.state() == states[cut]
        assert texts(other) == whole[cut:], cut


def test_streamed_rows_stay_in_their_block(folder):
    found = texts(hub(folder, streaming=True, shuffle=True, buffer=5))
    for start in (0, 5, 10):
        assert sorted(found[start : start + 5]) == ROWS[start : start + 5]


def test_a_state_of_other_blocks_is_refused(folder):
    state = hub(folder, streaming=True, buffer=5).state()
    with pytest.raises(DataError, match="blocks of 5"):
        hub(folder, streaming=True, buffer=4).restore(state)


def test_a_broken_stream_is_not_taken_for_its_end(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "data").mkdir()
    rows = [json.dumps({"text": f"row {row}"}) for row in range(3)]
    (tmp_path / "data" / "a.jsonl").write_text("\n".join(rows))
    source = Hub(str(tmp_path / "data"), streaming=True, cache=str(tmp_path / "cache"))
    (tmp_path / "data" / "a.jsonl").write_text('{"text": "row 0"}\n{"text": ')
    for _ in range(2):
        with pytest.raises(NoMoreDataError, match="cannot be read") as caught:
            next(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"repo": "hf:"}, "repo is 'hf:'"),
        ({"repo": "/nowhere/at all"}, "there is no folder"),
        ({"split": "tests"}, "cannot be read"),
        ({"revision": "main"}, "has no revision"),
        ({"buffer": 0}, "buffer is 0"),
        ({"epochs": -1}, "epochs are -1"),
        ({"rows": "x"}, "rows are 'x'"),
    ],
)
def test_wrong_data_sets_are_one_line(folder, settings, said):
    settings = {"repo": str(folder / "data"), "cache": str(folder / "cache"), **settings}
    with pytest.raises(DataError, match=said) as caught:
        Hub(**settings)
    assert "\n" not in str(caught.value)
