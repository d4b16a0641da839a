"""How often players are right who do not look: the figures that skill is measured against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

from llama4_train.worlds.sample import Question, Rates, World
from llama4_train.worlds.targets import BoxTarget

COUNTED = 2000
"""Samples that are counted, from number 0 on: a rate of 1/8 is then known to 0.015 (two sigma)."""

BOXES = 64
"""Boxes that are tried as the one answer to all; each against :data:`TRIED` questions."""

TRIED = 512
"""Questions that each of them is tried against."""


@lru_cache(maxsize=64)
def rates(world: World, samples: int = COUNTED) -> Mapping[str, Rates]:
    """Chance and majority rates by kind, counted over the first samples of the world itself.

    A kind's chance is the mean over its questions; with open answers each question gets the answer
    of the next one of its kind. Its majority is the share of the most frequent answer, and for
    boxes that of the best of the first :data:`BOXES` boxes, given to the first :data:`TRIED`
    questions.

    Args:
        world: with its settings and its split.
        samples: how many are counted.
    """
    kinds: dict[str, list[Question]] = {}
    for index in range(samples):
        for question in world.sample(index).questions:
            kinds.setdefault(question.kind, []).append(question)
    return {kind: Rates(_chance(asked), _majority(asked)) for kind, asked in sorted(kinds.items())}


def _chance(asked: Sequence[Question]) -> float:
    total = 0.0
    for at, question in enumerate(asked):
        if question.exact is not None:
            total += question.exact.chance
        elif len(question.choices):
            total += 1 / len(question.choices)
        else:
            total += question.accept(asked[(at + 1) % len(asked)].answer)
    return total / len(asked)


def _majority(asked: Sequence[Question]) -> float:
    if all(question.exact is not None for question in asked):
        return sum(question.majority for question in asked) / len(asked)
    if isinstance(asked[0].target, BoxTarget):
        given = {question.answer for question in asked[:BOXES]}
        tried = asked[:TRIED]
    else:
        given = {Counter(question.answer for question in asked).most_common(1)[0][0]}
        tried = asked
    right = (sum(question.accept(answer) for question in tried) for answer in given)
    return max(right) / len(tried)
