"""Checks of the socket tokenizers: the format of the files, and the tokenizer that it loads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from llama4_core.errors import TokenizerError
from llama4_core.testing.check import Check, Subject, check
from llama4_core.testing.compare import holds
from llama4_core.tokenizers.tokenizer import Tokenizer

# What tokenizers stumble over: white space at borders, endings, marks, characters of two to four
# bytes and of several code points, controls, and case mappings that change the length.
_PIECES = (" ", "  ", "\n", "\r\n", "\t", "\0", "\x7f", "\u200b", "\ufeff", "\ufffd", "\u0301", "é")
_WORDS = (
    "the",
    " the",
    "'s",
    "'LL",
    "123",
    "0",
    "日本",
    "🦙",
    "👨\u200d👩",
    "ß",
    "İ",
    "ſ",
    "//",
    "_",
)
_ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@dataclass(frozen=True)
class Case:
    """A tokenizer and what it is given.

    Attributes:
        given: text, parts of a text, or ids.
        specials: the argument of this name.
        tokenizer: loaded from the sample of the format.
    """

    given: Any
    specials: bool = False
    tokenizer: Any = field(default=None, repr=False)


def sample(subject: Subject) -> Tokenizer:
    """The tokenizer of the sample that the subject's format writes."""
    with tempfile.TemporaryDirectory() as folder:
        kind = subject.build()
        kind.write_sample(Path(folder))
        loaded: Tokenizer = kind.load(Path(folder))
    return loaded


def _texts(names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    parts = st.one_of(st.sampled_from(_PIECES), st.sampled_from((*_WORDS, *names)), _ANY)
    return st.lists(parts, max_size=12).map("".join)


def _streams(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Ids of whole characters among ids of single bytes, special tokens and none at all."""
    whole = [tokenizer.encode(text, bos=False) for text in ("🦙", "日本", "é", "the")]
    names = [[tokenizer.specials[name]] for name in _names(tokenizer)]
    any_id = st.integers(0, tokenizer.vocabulary + 2) | st.integers(0, 255)
    parts = st.one_of(any_id.map(lambda n: [n]), st.sampled_from(whole), st.sampled_from(names))
    return st.lists(parts, max_size=10).map(lambda lists: [n for ids in lists for n in ids])


def _cases(
    draw: Callable[[Tokenizer], st.SearchStrategy[Any]],
) -> Callable[[Subject], st.SearchStrategy[Case]]:
    """Cases of one tokenizer, loaded once for all of them."""

    def made(subject: Subject) -> st.SearchStrategy[Case]:
        loaded = sample(subject)
        return st.builds(Case, draw(loaded), st.booleans(), st.just(loaded))

    return made


def _names(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Some special tokens: the first, the last and what lies between."""
    names = tuple(tokenizer.specials)
    holds(bool(names), "the sample has no special token; expected one or more")
    return tuple(dict.fromkeys((*names[:8], names[len(names) // 2], names[-1])))


def _hostile(tokenizer: Tokenizer) -> st.SearchStrategy[str]:
    """Texts that spell special tokens whole, cut, nested and doubled."""
    names = _names(tokenizer)
    half = len(names[0]) // 2
    cut = (names[0][:half], names[0][half:], names[0][:half] + names[0], f"\0{names[0]}")
    return _texts((*names, *cut, "<|", "|>"))


@check(
    properties=(35,),
    why="what the model reads and writes is not what was said",
    cases=_cases(lambda tokenizer: _texts()),
)
def round_trip(subject: Subject, case: Case) -> None:
    """Any text comes back from its ids, controls and all."""
    tokenizer, text = case.tokenizer, case.given
    for bos in (False, True):
        got = tokenizer.decode(tokenizer.encode(text, bos=bos))
        holds(got == text, f"got {got!r} back (bos={bos}), expected {text!r}")


@check(
    properties=(35,),
    why="a prompt of one repeated character stops the program or comes back changed",
    cases=_cases(
        lambda tokenizer: st.builds(
            lambda character, count, end: character * count + end,
            st.sampled_from((" ", "a", "A", "0", "\n", "!", "日", "\u0301", "\t ")),
            st.sampled_from((24_999, 25_000, 25_001, 60_000)),
            st.sampled_from(("", " ", "a", "\n")),
        )
    ),
    examples=10,
)
def long_runs(subject: Subject, case: Case) -> None:
    """Tens of thousands of equal characters in a row come back too."""
    got = case.tokenizer.decode(case.tokenizer.encode(case.given))
    holds(got == case.given, f"got {len(got)} characters back, expected {len(case.given)}")


@check(
    properties=(35, 54),
    why="readers see broken characters while the model writes, or text that is not in the answer",
    cases=_cases(_streams),
)
def stream_is_decode(subject: Subject, case: Case) -> None:
    """Ids fed one at a time give the text of all of them at once, also where it is no UTF-8."""
    stream = case.tokenizer.stream(specials=case.specials)
    got = "".join([*(stream.feed(token) for token in case.given), stream.finish()])
    expected = case.tokenizer.decode(case.given, specials=case.specials)
    holds(got == expected, f"streamed {got!r}, decoded at once {expected!r}")


@check(
    properties=(35, 54),
    why="half a character is shown as a replacement mark and never mended",
    cases=_cases(lambda tokenizer: _texts()),
)
def stream_keeps_characters_whole(subject: Subject, case: Case) -> None:
    """At every step a stream has shown a beginning of the text, and at its end all of it."""
    stream, shown = case.tokenizer.stream(), ""
    for token in case.tokenizer.encode(case.given):
        shown += stream.feed(token)
        holds(case.given.startswith(shown), f"showed {shown!r} of {case.given!r}")
    rest = stream.finish()
    holds(shown == case.given and not rest, f"showed {shown + rest!r}, expected {case.given!r}")


@check(
    properties=(36,),
    why="whoever types the name of a special token ends the turn, forges a system message or "
    "injects a tool result",
    cases=_cases(_hostile),
)
def user_text_yields_no_special(subject: Subject, case: Case) -> None:
    """Special tokens spelled in ordinary text never become their ids."""
    tokenizer, text = case.tokenizer, case.given
    ids = tokenizer.encode(text, bos=False)
    names = {n: name for name, n in tokenizer.specials.items()}
    found = [names[n] for n in ids if n in names]
    holds(not found, f"{text!r} yields {found}")
    got = tokenizer.decode(ids)
    holds(got == text, f"got {got!r} back, expected {text!r}")


@check(
    properties=(36, 37),
    why="a chat prompt that the program wrote reaches the model as mere text, or differs from the "
    "same turns encoded one by one, so that nothing cached fits",
    cases=_cases(
        lambda tokenizer: st.lists(
            st.tuples(st.sampled_from(_names(tokenizer)), _texts()), min_size=1, max_size=5
        )
    ),
)
def specials_when_asked(subject: Subject, case: Case) -> None:
    """With ``specials=True`` each name is one id, and the text between is encoded as if alone."""
    tokenizer, parts = case.tokenizer, case.given
    ids = tokenizer.encode("".join(n + t for n, t in parts), bos=False, specials=True)
    expected = []
    for name, text in parts:
        expected += [tokenizer.specials[name], *tokenizer.encode(text, bos=False)]
    holds(ids == expected, f"got {ids}, expected {expected}")
    for shown, whole in (
        (True, "".join(n + t for n, t in parts)),
        (False, "".join(t for _, t in parts)),
    ):
        got = tokenizer.decode(ids, specials=shown)
        holds(got == whole, f"decoded {got!r} (specials={shown}), expected {whole!r}")


@check(
    why="an id beyond the model's embedding stops a run, and a missing beginning of text makes "
    "every answer worse",
    cases=_cases(_hostile),
)
def ids_in_range(subject: Subject, case: Case) -> None:
    """All ids are whole numbers below ``vocabulary``, and ``bos`` adds one in front or none."""
    tokenizer, text = case.tokenizer, case.given
    ids = tokenizer.encode(text, bos=False, specials=case.specials)
    known = [*ids, *tokenizer.specials.values()]
    wrong = [n for n in known if type(n) is not int or not 0 <= n < tokenizer.vocabulary]
    holds(not wrong, f"ids {wrong[:5]}; expected whole numbers from 0 to {tokenizer.vocabulary}-1")
    front = [] if tokenizer.bos is None else [tokenizer.bos]
    got = tokenizer.encode(text, bos=True, specials=case.specials)
    holds(got == [*front, *ids], f"with bos {got[:5]}..., expected {[*front, *ids][:5]}...")


@check(
    why="a crash inside a library takes the server down instead of the one bad request",
    cases=_cases(
        lambda tokenizer: st.sampled_from(("\ud800", "a\udfffb", b"bytes", None, 1.5, "one", -1))
    ),
)
def bad_input_is_refused(subject: Subject, case: Case) -> None:
    """Lone surrogates, what is no string, and what is no id are refused with a TokenizerError."""
    given, tokenizer = case.given, case.tokenizer
    stream = tokenizer.stream(specials=case.specials)
    calls: list[Callable[[], Any]] = []
    if not isinstance(given, str) or "\ud800" in given or "\udfff" in given:
        calls.append(lambda: tokenizer.encode(given))
    if not isinstance(given, bytes):
        calls += [lambda: tokenizer.decode([given]), lambda: stream.feed(given)]
    for call in calls:
        try:
            got = call()
        except TokenizerError:
            continue
        raise AssertionError(f"{given!r} gives {got!r}; expected a TokenizerError")


@dataclass(frozen=True)
class Damage:
    """What is done to a file.

    Attributes:
        file: which, counted in the order of names, modulo how many there are.
        share: where, as a share of its length.
        new: bytes written there; None: the file ends there.
    """

    file: int
    share: float
    new: bytes | None


@check(
    properties=(45,),
    why="a download that broke off crashes the program, or is loaded as another vocabulary",
    cases=lambda subject: st.builds(
        Damage,
        st.integers(0, 2),
        st.floats(0, 0.999),
        st.none() | st.sampled_from((b"\xff", b"\n", b" ", b"0", b"{", b"]", b"\0\0", b'"')),
    ),
)
def damaged_files(subject: Subject, case: Damage) -> None:
    """A damaged file loads all the same, or is refused by name, in one line."""
    kind = subject.build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        holds(not kind.detect(folder), "detects a tokenizer in an empty folder")
        kind.write_sample(folder)
        files = sorted(folder.iterdir())
        holds(bool(files), "write_sample wrote no file")
        holds(kind.detect(folder), "does not detect its own sample")
        file = files[case.file % len(files)]
        data = file.read_bytes()
        at = int(len(data) * case.share)
        rest = b"" if case.new is None else case.new + data[at + len(case.new) :]
        file.write_bytes(data[:at] + rest)
        holds(
            kind.detect(folder) or case.share < 1e-3,
            f"overlooks {file.name} where it is damaged; expected an error of load",
        )
        try:
            kind.load(folder)
        except TokenizerError as error:
            message = str(error)
            holds(str(folder) in message, f"the error does not name the file: {message}")
            holds("\n" not in message, f"the error has several lines: {message!r}")


CHECKS: tuple[Check, ...] = (
    round_trip,
    long_runs,
    stream_is_decode,
    stream_keeps_characters_whole,
    user_text_yields_no_special,
    specials_when_asked,
    ids_in_range,
    bad_input_is_refused,
    damaged_files,
)
