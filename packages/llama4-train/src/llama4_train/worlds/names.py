"""Names and values to be remembered, and how they are said and asked for."""

from __future__ import annotations

from dataclasses import dataclass

from llama4_train.worlds.streams import Stream

NOUNS = (
    "fox", "owl", "bear", "wolf", "crow", "duck", "frog", "goat", "hare", "lamb", "moth", "seal",
    "swan", "toad", "wasp", "deer", "apple", "bread", "chair", "clock", "cloud", "coat", "door",
    "drum", "fire", "glass", "house", "key", "lake", "lamp", "leaf", "moon", "nest", "paper", "pen",
    "pipe", "rain", "ring", "river", "road", "rock", "rope", "salt", "ship", "shoe", "snow", "star",
    "stone", "table", "tent", "tower", "train", "tree", "wall", "wheel", "wind", "wood", "yard",
)  # fmt: skip

QUALITIES = (
    "old", "new", "big", "small", "red", "blue", "green", "dark", "light", "cold", "warm", "dry",
    "wet", "fast", "slow", "soft", "hard", "loud", "quiet", "round", "flat", "deep", "tall",
    "short",
)  # fmt: skip

NAMES = (*NOUNS, *(f"{quality} {noun}" for quality in QUALITIES for noun in NOUNS))
"""Short names first: a short text needs no other."""


@dataclass(frozen=True)
class Style:
    """How values are talked about; ``{name}`` and ``{value}`` are put in.

    Attributes:
        tell: how one is said.
        ask: how it is asked for.
        answer: the one right answer.
    """

    tell: str
    ask: str
    answer: str = "{value}"


_FACT, _QUESTION = "The key of the {name} is {value}.", "What is the key of the {name}?"

STYLES: dict[str, Style] = {
    "sentence": Style(_FACT, _QUESTION),
    "statement": Style(_FACT, _QUESTION, _FACT),
    "terse": Style("{name}: {value}", "{name}?"),
}
"""A sentence, a question and a bare value; the same with a sentence for an answer; no words."""


def values(stream: Stream, count: int, digits: int) -> list[str]:
    """``count`` different values of so many digits, zeros in front included."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[str(stream.below(10**digits)).zfill(digits)] = None
    return list(found)
