"""Files of ranks: what is written comes back, and what is damaged is named by file and line."""

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import TokenizerError
from llama4_core.tokenizers import read_ranks, write_ranks
from llama4_core.tokenizers.ranks import LONGEST


def line(token, rank):
    return base64.b64encode(token) + b" %d" % rank


BYTES = [line(bytes((byte,)), byte) for byte in range(256)]


def test_what_is_written_comes_back(ranks, tmp_path):
    file = tmp_path / "a.model"
    write_ranks(ranks, file)
    assert read_ranks(file) == ranks
    first = file.read_bytes().split(b"\n")[0]
    assert first == line(ranks[0], 0)


def test_order_of_lines_and_their_ends_do_not_matter(ranks, tmp_path):
    lines = [line(token, rank) for rank, token in enumerate(ranks)]
    random.Random(0).shuffle(lines)
    file = tmp_path / "a.model"
    file.write_bytes(b"\r\n".join([*lines, b"", b""]))
    assert read_ranks(file) == ranks


@pytest.mark.parametrize(
    ("lines", "number", "words"),
    [
        ([*BYTES, b"!!!! 256"], 257, ["not base64", "!!!!"]),
        ([*BYTES, b"YWI 256"], 257, ["not base64"]),
        ([*BYTES, b"YWI=\xff 256"], 257, ["not base64", "xff"]),
        ([*BYTES, b"\xff\xfe 256"], 257, ["not base64"]),
        ([*BYTES, b"YWI= 2_56"], 257, ["rank", "2_56"]),
        ([*BYTES, b"YWI= -1"], 257, ["rank", "-1"]),
        ([*BYTES, b"YWI= \xd9\xa1"], 257, ["rank"]),
        ([*BYTES, b"YWI= " + b"1" * 5000], 257, ["rank", "digits"]),
        ([*BYTES, b"YWI="], 257, ["1 fields", "two"]),
        ([*BYTES, b"YWI= 256 7"], 257, ["3 fields", "two"]),
        ([*BYTES, line(b"ab", 17)], 257, ["rank 17", "line 18"]),
        ([*BYTES, line(b"A", 256)], 257, ["b'A'", f"line {ord('A') + 1}"]),
        ([*BYTES, line(b"ab", 258)], 257, ["rank 256", "258", "gaps"]),
        ([*BYTES, line(b"a" * (LONGEST + 1), 256)], 257, [str(LONGEST)]),
        (BYTES[:255], None, ["1 of the 256", "0xff"]),
        ([], None, ["256 of the 256"]),
        ([b"\n\x0b\n\x05<unk>\x15\x00\x00\x00\x00 \x02"], 3, ["not base64"]),
    ],
)
def test_damage_is_named(tmp_path, lines, number, words):
    file = tmp_path / "tokenizer.model"
    file.write_bytes(b"\n".join(lines))
    with pytest.raises(TokenizerError) as caught:
        read_ranks(file)
    message = str(caught.value)
    assert str(file) in message
    assert number is None or f"line {number}" in message
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_missing_file(tmp_path):
    with pytest.raises(TokenizerError, match="cannot be read"):
        read_ranks(tmp_path / "tokenizer.model")


def test_ranks_that_lack_a_byte_are_not_written(tmp_path):
    file = tmp_path / "tokenizer.model"
    with pytest.raises(TokenizerError, match="0x00"):
        write_ranks([b"a"], file)
    assert not file.exists()


@given(st.binary(max_size=300))
def test_any_file_is_read_or_refused(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "tokenizer.model"
    file.write_bytes(b"\n".join(BYTES) + b"\n" + data)
    try:
        found = read_ranks(file)
    except TokenizerError as error:
        message = str(error)
    else:
        assert len(found) >= 256
        message = str(file)
    assert str(file) in message
