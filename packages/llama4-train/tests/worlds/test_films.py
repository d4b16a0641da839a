"""Answers about films, found again in the pixels of the frames."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.messages import Image, Video
from llama4_train.errors import DataError
from llama4_train.worlds import world
from llama4_train.worlds.films import KINDS, Films
from llama4_train.worlds.pairs import HELD_OUT_PAIRS
from llama4_train.worlds.pictures import COLOURS

CELLS = [
    ["top left", "top", "top right"],
    ["left", "centre", "right"],
    ["bottom left", "bottom", "bottom right"],
]


def seen(frame):
    """Colour and box of the one thing in a frame."""
    white = frame.point(lambda value: 255 - value)  # the ground becomes black, which has no box
    box = white.convert("L").getbbox()
    middle = frame.getpixel(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2))
    return {rgb: name for name, rgb in COLOURS.items()}[middle], box


@given(
    index=st.integers(0, 10**9),
    frames=st.integers(2, 16),
    size=st.sampled_from([(64, 64), (128, 64), (64, 96)]),
)
def test_every_answer_is_what_the_frames_show(index, frames, size):
    width, height = size
    sample = Films(frames=frames, width=width, height=height).sample(index)
    film = sample.record.pieces[0].part
    assert isinstance(film, Video)
    shown = [seen(frame) for frame in film.source]
    assert len(shown) == frames
    assert [box for _, box in shown] == list(
        Films(frames=frames, width=width, height=height).film(index).boxes
    )
    first, last = shown[0][1], shown[-1][1]
    across, down = last[0] - first[0], last[1] - first[1]
    assert (across == 0) != (down == 0)
    way = ("right" if across > 0 else "left") if across else ("down" if down > 0 else "up")
    end = CELLS[int((last[1] + last[3]) / 2 / height * 3)][int((last[0] + last[2]) / 2 / width * 3)]
    answers = {question.kind: question.answer for question in sample.questions}
    assert set(answers) == set(KINDS)
    assert (answers["direction"], answers["colour"], answers["end"]) == (way, shown[0][0], end)
    # Even: no step is more than a pixel off the mean one.
    steps = [b[1][0] - a[1][0] + b[1][1] - a[1][1] for a, b in itertools.pairwise(shown)]
    assert all(abs(step - (across + down) / (frames - 1)) <= 1 for step in steps)
    assert all(step * (across + down) > 0 for step in steps)


def test_frames_can_be_shown_as_pictures_in_a_pack_and_in_a_chat():
    pack = Films(shown_as="pictures", frames=3).sample(4)
    assert [type(piece.part) for piece in pack.record.pieces[:3]] == [Image] * 3
    assert len(pack.questions[1].prompt) == 4
    chat = Films(form="chat", frames=3).sample(4)
    assert [len(message.inputs) for message in chat.record.messages] == [1, 0] + 6 * [0]
    assert [q.answer for q in chat.questions] == [q.answer for q in pack.questions]


def test_held_out_pairs_never_move_in_training():
    train, held = Films(), Films(split="held-out", pairs="held-out")
    for index in range(200):
        assert (train.film(index).colour, train.film(index).shape) not in HELD_OUT_PAIRS
        assert (held.film(index).colour, held.film(index).shape) in HELD_OUT_PAIRS


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"frames": 1}, "frames of films is 1"),
        ({"frames": 17}, "from 2 to 16"),
        ({"kinds": ["way"]}, "a kind of films"),
        ({"shown_as": "movie"}, "shown_as of films"),
        ({"sizes": (12, 40)}, "sizes of films"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(DataError, match=words):
        world("films", **settings)
