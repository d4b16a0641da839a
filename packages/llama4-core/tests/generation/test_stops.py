"""Stop strings are found at the same place however the text is cut."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llama4_core.errors import GenerationError
from llama4_core.generation.stops import StopStrings, stop_strings

# Few letters, so that strings overlap themselves and each other.
TEXT = st.text("ab", max_size=30)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=3)


def brute_force(text, stops):
    """What precedes the stop string that is complete first, character by character."""
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(text=TEXT, stops=STOPS, data=st.data())
@example(text="ab", stops=["abb"], data=None)
def test_any_cutting_finds_the_same_end(text, stops, data):
    expected, found = brute_force(text, stops)
    scanner = StopStrings(stops)
    shown, rest = "", text
    while rest:
        size = data.draw(st.integers(1, len(rest))) if data else 1
        shown += scanner.feed(rest[:size])
        rest = rest[size:]
        # Nothing is shown that a later character could take back.
        assert expected.startswith(shown)
    shown += scanner.finish()
    assert (shown, scanner.found) == (expected, found)


def test_the_stop_string_complete_first_wins_over_the_one_that_begins_first():
    scanner = StopStrings(["aabb", "ab"])
    assert scanner.feed("aabb") == "a"
    assert scanner.found == "ab"
    assert scanner.feed("more") == ""


@given(text=TEXT, stops=STOPS)
def test_no_more_is_held_back_than_a_stop_string_could_claim(text, stops):
    scanner = StopStrings(stops)
    shown = scanner.feed(text)
    if scanner.found is None:
        held = text[len(shown) :]
        assert held == "" or any(stop.startswith(held) and stop != held for stop in stops)
        assert not any(
            text.endswith(stop[:n]) for stop in stops for n in range(len(held) + 1, len(stop))
        )


def test_strings_are_checked():
    assert stop_strings("one") == ("one",)
    assert stop_strings(["a", "b"]) == ("a", "b")
    for wrong in ("", [""], [b"x"], [3]):
        with pytest.raises(GenerationError, match="stop contains"):
            stop_strings(wrong)
