"""Names and values to be remembered, and how they are said and asked for."""

from __future__ import annotations

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

STYLES: dict[str, tuple[str, str]] = {
    "sentence": ("The key of the {name} is {value}.", "What is the key of the {name}?"),
    "terse": ("{name}: {value}", "{name}?"),
}
"""How a value is said, and how it is asked for."""


def values(stream: Stream, count: int, digits: int) -> list[str]:
    """``count`` different values of so many digits, zeros in front included."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[str(stream.below(10**digits)).zfill(digits)] = None
    return list(found)
