"""When a sequence ends: stop strings found across the borders of tokens.

Stop tokens, lengths and contexts are plain comparisons and live in the loop of ``generate``.
"""

from __future__ import annotations

from collections.abc import Sequence

from llama4_core.errors import GenerationError

STOP_TOKEN = "stop_token"
STOP_STRING = "stop_string"
LENGTH = "length"
CONTEXT = "context"


class StopStrings:
    """Scans text as it arrives and holds back whatever may still become a stop string.

    The stop string that is complete first ends the text; among those complete at the same
    character, the longest one. The emitted text is what precedes it, however the text was cut into
    pieces.

    Args:
        stops: non-empty strings; none at all lets everything through.

    Raises:
        GenerationError: a stop string is empty or no string.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.found: str | None = None
        self._held = ""

    def feed(self, text: str) -> str:
        """Takes the next piece; returns what is now certain to precede any stop string."""
        if self.found is not None or not (self.stops and text):
            return "" if self.found is not None else text
        text = self._held + text
        ends = [
            (start + len(stop), start, stop)
            for stop in self.stops
            if (start := text.find(stop)) >= 0
        ]
        if ends:
            _, start, self.found = min(ends)
            self._held = ""
            return text[:start]
        held = max(_overlap(text, stop) for stop in self.stops)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def finish(self) -> str:
        """What was held back, now that no more text comes."""
        held, self._held = self._held, ""
        return held


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """The stop strings as a tuple, checked.

    Raises:
        GenerationError: one is empty or no string.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for one in stops:
        if not isinstance(one, str) or not one:
            raise GenerationError(
                f"stop contains {one!r}; expected non-empty strings (token ids go in stop_tokens)"
            )
    return stops


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper front of ``stop`` that ends ``text``."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
