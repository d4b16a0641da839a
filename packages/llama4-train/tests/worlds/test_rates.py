"""Chance and majority are what players reach who do not look."""

import math
import random
from collections import Counter

import pytest

from llama4_train.errors import DataError
from llama4_train.worlds import rates, world
from llama4_train.worlds.sample import Question
from llama4_train.worlds.targets import Exact

CLOSED = [
    ("scenes", {}, {"colour", "shape", "count", "position", "relation", "existence"}),
    ("scenes", {"objects": (1, 1)}, {"colour", "shape", "count", "position", "existence"}),
    ("films", {}, {"direction", "colour", "shape", "end"}),
    ("arithmetic", {"digits": (1, 1)}, {"arithmetic-1"}),
    ("passkey", {"length": 400}, {"passkey"}),
    ("recall", {}, {"recall"}),
]


def asked(given, indices):
    found = {}
    for index in indices:
        for question in given.sample(index).questions:
            found.setdefault(question.kind, []).append(question)
    return found


@pytest.mark.parametrize(("name", "settings", "kinds"), CLOSED)
def test_a_player_who_guesses_among_the_choices_is_right_at_the_chance_rate(name, settings, kinds):
    given = world(name, **settings)
    player = random.Random(1)
    found = asked(given, range(400))
    assert kinds <= set(found)
    for kind in kinds:
        questions = found[kind]
        right = sum(question.accept(str(player.choice(question.choices))) for question in questions)
        expected = sum(question.chance for question in questions)
        # Five standard deviations of a sum of independent draws, and one count for small sums.
        spread = sum(question.chance * (1 - question.chance) for question in questions)
        assert abs(right - expected) < 5 * math.sqrt(spread) + 1, kind
        for question in questions[:20]:
            assert sum(question.accept(str(choice)) for choice in question.choices) == 1


def test_the_majority_rate_holds_for_other_samples():
    given = world("scenes")
    known = rates(given)
    first, later = asked(given, range(2000)), asked(given, range(2000, 3000))
    for kind, questions in later.items():
        if kind == "box":
            continue
        most = Counter(question.answer for question in first[kind]).most_common(1)[0][0]
        rate = sum(question.answer == most for question in questions) / len(questions)
        share = known[kind].majority
        assert known[kind].chance == pytest.approx(questions[0].chance)  # a mean of equal numbers
        # Five standard deviations of the difference of two shares.
        spread = share * (1 - share) * (1 / len(questions) + 1 / len(first[kind]))
        assert abs(rate - share) < 5 * math.sqrt(spread), kind
        assert first[kind][0].majority == share
        assert share >= known[kind].chance * 0.9


def test_yes_is_as_often_right_as_no_and_every_position_as_any_other():
    found = asked(world("scenes", kinds=("relation", "existence", "position")), range(1500))
    for kind, share in (("relation", 1 / 2), ("existence", 1 / 2), ("position", 1 / 9)):
        answers = Counter(question.answer for question in found[kind])
        count = sum(answers.values())
        assert len(answers) == round(1 / share)
        # Five standard deviations of a binomial count.
        bound = 5 * math.sqrt(count * share * (1 - share))
        assert all(abs(number - count * share) < bound for number in answers.values()), kind


def test_open_answers_are_measured_with_those_of_other_questions():
    boxes = rates(world("scenes", kinds=("box",), objects=(1, 1), questions=1), 400)["box"]
    assert 0 < boxes.chance < boxes.majority < 0.3
    sentences = rates(world("sentences"), 300)
    assert set(sentences) == {"translation", "completion"}
    assert sentences["translation"].chance < 0.01
    assert sentences["translation"].majority < 0.02


def test_rates_that_are_known_are_not_counted():
    question = world("passkey", length=400, keys=5, digits=3).sample(0).question
    assert (question.chance, question.majority) == (1 / 5, 10**-3)
    told = world("recall").sample(0).question
    assert told.chance == 1 / len(told.choices)


def test_a_question_without_a_world_has_no_majority():
    question = Question("colour", "red", Exact("red"), choices=("red", "blue"))
    assert question.chance == 0.5
    with pytest.raises(DataError, match="this question came from no world"):
        question.majority
