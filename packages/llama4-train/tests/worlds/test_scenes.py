"""Answers about scenes, found again in the pixels of the rendered picture."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.chat.messages import Image, Text
from llama4_train.errors import DataError
from llama4_train.worlds import world
from llama4_train.worlds.pairs import HELD_OUT_PAIRS
from llama4_train.worlds.pictures import COLOURS, PLURALS, SHAPES, mask
from llama4_train.worlds.scenes import KINDS, Scenes
from llama4_train.worlds.targets import read_box

NAMES = {rgb: name for name, rgb in COLOURS.items()}
SINGULARS = {plural: shape for shape, plural in PLURALS.items()}
GROUNDS = ((255, 255, 255), (200, 200, 200))
CELLS = [
    ["top left", "top", "top right"],
    ["left", "centre", "right"],
    ["bottom left", "bottom", "bottom right"],
]


def found_in(picture):
    """Colour, shape and box of each thing, by flood fill."""
    width, height = picture.size
    pixels = picture.load()
    left = {(x, y) for x in range(width) for y in range(height) if pixels[x, y] not in GROUNDS}
    things = []
    while left:
        start = left.pop()
        colour, piece, edge = pixels[start], {start}, [start]
        while edge:
            x, y = edge.pop()
            for near in itertools.product((x - 1, x, x + 1), (y - 1, y, y + 1)):
                if near in left:
                    assert pixels[near] == colour, "two things touch"
                    left.remove(near)
                    piece.add(near)
                    edge.append(near)
        xs, ys = [x for x, _ in piece], [y for _, y in piece]
        box = (min(xs), min(ys), max(xs) + 1, max(ys) + 1)
        things.append({"colour": NAMES[colour], "shape": looks_like(piece, box), "box": box})
    return sorted(things, key=lambda thing: thing["box"][:2])


def looks_like(piece, box):
    """The shape, told by its outline alone."""
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    rows = [[(x, y) in piece for x in range(x0, x1)] for y in range(y0, y1)]
    if not rows[-1][width // 2]:
        return "star"  # the only one that stands on two legs
    if len(piece) == width * height:
        return "square"
    if all(rows[-1]):
        return "triangle"
    if len(piece) > 0.68 * width * height:
        return "circle"
    # A third of the way down a diamond is two thirds wide, and so is a cross at no place.
    return "diamond" if 0.5 * width < sum(rows[round(0.3 * height)]) < 0.9 * width else "cross"


def position(thing, width, height):
    x0, y0, x1, y1 = thing["box"]
    return CELLS[int((y0 + y1) / 2 / height * 3)][int((x0 + x1) / 2 / width * 3)]


def solve(ask, things, width, height):
    """The answer to a question out of what was seen."""

    def named(name):
        (one,) = [thing for thing in things if f"{thing['colour']} {thing['shape']}" == name]
        return one

    if match := re.fullmatch(r"What colour is the (\w+)\?", ask):
        (one,) = [thing for thing in things if thing["shape"] == match[1]]
        return one["colour"]
    if match := re.fullmatch(r"What shape is the (\w+) object\?", ask):
        (one,) = [thing for thing in things if thing["colour"] == match[1]]
        return one["shape"]
    if match := re.fullmatch(r"Where is the (\w+ \w+)\?", ask):
        return position(named(match[1]), width, height)
    if match := re.fullmatch(r"How many (?:(\w+) )?(\w+) are there\?", ask):
        colour, what = match.groups()
        return str(
            sum(
                (colour is None or thing["colour"] == colour)
                and (what == "objects" or thing["shape"] == SINGULARS[what])
                for thing in things
            )
        )
    if match := re.fullmatch(r"Is there an? (\w+ \w+)\?", ask):
        there = any(f"{thing['colour']} {thing['shape']}" == match[1] for thing in things)
        return "yes" if there else "no"
    if match := re.fullmatch(r"Is the (\w+ \w+) (left of|above) the (\w+ \w+)\?", ask):
        one, other = named(match[1])["box"], named(match[3])["box"]
        axis = 0 if match[2] == "left of" else 1
        assert one[axis] + one[axis + 2] != other[axis] + other[axis + 2]
        return "yes" if one[axis] + one[axis + 2] < other[axis] + other[axis + 2] else "no"
    match = re.fullmatch(r"Draw a box around the (\w+ \w+)\.", ask)
    return named(match[1])["box"]


def picture_of(sample):
    return sample.record.pieces[0].part.source


@pytest.mark.parametrize(
    ("width", "height", "settings"),
    [
        (64, 64, {}),
        (128, 64, {"backgrounds": ("silver", "white")}),
        (96, 128, {"sizes": (8, 30), "objects": (3, 9)}),
    ],
)
def test_every_answer_is_what_the_pixels_say(width, height, settings):
    scenes = Scenes(split="held-out", width=width, height=height, **settings)
    seen = set()
    for index in range(60):
        sample = scenes.sample(index)
        things = found_in(picture_of(sample))
        assert picture_of(sample).size == (width, height)
        assert 1 <= len(sample.questions) <= 6
        for question in sample.questions:
            image, text = question.prompt
            assert image.source is picture_of(sample)
            seen.add(question.kind)
            right = solve(text.text.removesuffix("\n"), things, width, height)
            if question.kind == "box":
                # Tight to the pixel: rounding to thousandths moves a border by half of one, and
                # 1e-9 is for float64.
                sides = (width, height, width, height)
                given = read_box(question.answer)
                for said, there, side in zip(given, right, sides, strict=True):
                    assert abs(said * side / 1000 - there) <= 0.5 * side / 1000 + 1e-9
                assert question.target.corners == tuple(
                    there * 1000 / side for there, side in zip(right, sides, strict=True)
                )
            else:
                assert question.answer == right, text
            assert question.accept(question.answer + "\nmore")
    assert seen == set(KINDS)


def test_scene_gives_the_labels_of_the_picture_that_is_asked_about():
    for form, index in itertools.product(("pack", "caption"), range(20)):
        scenes = Scenes(form=form)
        scene, sample = scenes.scene(index), scenes.sample(index)
        assert scene.picture.tobytes() == picture_of(sample).tobytes()
        assert [
            {"colour": thing.colour, "shape": thing.shape, "box": thing.box}
            for thing in scene.things
        ] == found_in(scene.picture)


def test_a_caption_names_everything_with_its_box_and_carries_all_of_the_loss():
    for index in range(40):
        sample = Scenes(form="caption", box_step=10).sample(index)
        image, caption = sample.record.pieces
        assert (image.weight, caption.weight) == (0.0, 1.0)
        things = found_in(image.part.source)
        said = re.findall(r"<ref>(\w+) (\w+)</ref><box>([\d,]+)</box>", caption.part.text)
        assert [(colour, shape) for colour, shape, _ in said] == [
            (thing["colour"], thing["shape"]) for thing in things
        ]
        assert all(int(number) % 10 == 0 for *_, box in said for number in box.split(","))
        assert sample.accept(sample.answer)
        assert sample.kind == "caption"
        assert sample.prompt == (image.part,)


def test_a_description_says_everything_in_words():
    sample = Scenes(form="caption", kinds=("description",), objects=(3, 3)).sample(1)
    things = found_in(picture_of(sample))
    said = re.findall(r"an? (\w+) (\w+) \(([a-z ]+)\)", sample.answer)
    assert said == [(thing["colour"], thing["shape"], position(thing, 64, 64)) for thing in things]


def test_held_out_pairs_never_come_up_in_training():
    words = {" ".join(pair) for pair in HELD_OUT_PAIRS}
    for form in ("pack", "caption"):
        for index in range(300):
            sample = Scenes(form=form, wordings=2).sample(index)
            for thing in Scenes(form=form, wordings=2).scene(index).things:
                assert (thing.colour, thing.shape) not in HELD_OUT_PAIRS
            texts = " ".join(
                piece.part.text for piece in sample.record.pieces if isinstance(piece.part, Text)
            )
            assert not any(word in texts for word in words)


def test_the_held_out_split_can_show_all_pairs_or_the_held_out_ones_alone():
    def shown(**settings):
        scenes = Scenes(split="held-out", **settings)
        return {(thing.colour, thing.shape) for i in range(400) for thing in scenes.scene(i).things}

    assert len(shown()) == 48
    assert shown(pairs="held-out") == set(HELD_OUT_PAIRS)
    assert len(shown(pairs="train")) == 42
    assert not shown(pairs="train") & set(HELD_OUT_PAIRS)


def test_answers_carry_the_loss_and_questions_none():
    for weighting in ("token", "root", "answer"):
        pieces = Scenes(weighting=weighting).sample(5).record.pieces
        assert isinstance(pieces[0].part, Image)
        assert [piece.weight > 0 for piece in pieces[1:]] == [False, True] * (len(pieces) // 2)
        for piece in pieces[2::2]:
            # One for each digit and sign, one for six letters, one for the end of the line.
            units = len(re.findall(r"\d|[^\w\s]|[a-z]{1,6}", piece.part.text)) + 1
            total = {"token": units, "root": units**0.5, "answer": 1}[weighting]
            assert piece.weight * units == pytest.approx(total, rel=1e-12)  # float64 rounding


def test_a_chat_shows_the_picture_once_and_asks_each_question_alone():
    sample = Scenes(form="chat", questions=3).sample(2)
    roles = [message.role for message in sample.record.messages]
    assert roles == ["user", "assistant"] * 3
    assert [len(message.images) for message in sample.record.messages] == [1, 0, 0, 0, 0, 0]
    pack = Scenes(questions=3).sample(2)
    for question, other in zip(sample.questions, pack.questions, strict=True):
        (message,) = question.messages
        assert len(message.images) == 1
        assert message.text + "\n" == other.prompt[1].text
        assert (question.answer, question.stop, question.prompt) == (other.answer, "", ())
        assert question.accept(f" {question.answer} ")


@given(
    objects=st.integers(1, 9),
    size=st.integers(6, 19),
    index=st.integers(0, 10**9),
    margin=st.integers(0, 7),
)
def test_things_never_touch_nor_leave_the_picture_nor_share_a_cell(objects, size, index, margin):
    scenes = Scenes(objects=(objects, objects), sizes=(size, 19), margin=margin)
    scene = scenes.scene(index)
    seen = found_in(scene.picture)
    assert [thing["box"] for thing in seen] == [thing.box for thing in scene.things]
    assert len({position(thing, 64, 64) for thing in seen}) == objects


@given(shape=st.sampled_from(SHAPES), size=st.integers(6, 64))
def test_a_mask_touches_all_of_its_sides_and_covers_its_middle(shape, size):
    drawn = mask(shape, size)
    width, height = drawn.size
    assert drawn.getbbox() == (0, 0, width, height)
    assert max(width, height) <= size
    assert drawn.getpixel((width // 2, height // 2)) == 255
    assert set(drawn.tobytes()) <= {0, 255}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kinds": ["color"]}, "a kind of scenes is 'color' .did you mean 'colour'"),
        ({"kinds": ()}, "a kind of scenes is ''"),
        ({"form": "packs"}, "did you mean 'pack'"),
        ({"objects": (0, 4)}, "objects of scenes is"),
        ({"objects": (1, 10)}, "from 1 to 9"),
        ({"sizes": (12, 25)}, "from 6 to 19"),
        ({"box_step": 3}, "box_step is 3"),
        ({"pairs": "held-out"}, "which never shows them"),
        ({"held_out_pairs": [["red", "heart"]]}, "a held-out pair is"),
        ({"kinds": ["relation"], "objects": (1, 1)}, "a relation needs two"),
        ({"width": 10}, "width of scenes is 10"),
        ({"backgrounds": ["pink"]}, "a background of scenes"),
        ({"sise": 3}, "no setting 'sise' .did you mean 'sizes'"),
        ({"form": "caption", "kinds": ["colour"]}, "expected one of caption, description"),
        ({"weighting": "tokens"}, "did you mean 'token'"),
        ({"split": "held-out", "pairs": "held-out", "objects": (1, 6)}, "6 pairs for up to 6"),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(DataError, match=words) as caught:
        world("scenes", **settings)
    assert "\n" not in str(caught.value)


def test_lists_out_of_a_recipe_are_as_good_as_tuples():
    lists = {"objects": [1, 2], "kinds": ["count"], "held_out_pairs": [["red", "star"]]}
    tuples = {"objects": (1, 2), "kinds": ("count",), "held_out_pairs": (("red", "star"),)}
    assert world("scenes", **lists) == world("scenes", **tuples)
    assert hash(world("scenes", **lists)) == hash(world("scenes", **tuples))


def test_without_pillow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    mask.cache_clear()
    with pytest.raises(DataError, match="pip install pillow"):
        Scenes().sample(0)
