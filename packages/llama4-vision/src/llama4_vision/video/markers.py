"""The text that stands before each frame of a film. Imports without torch or Pillow.

Llama 4 has no tokens for films, and no convention is published. Here a film is written as::

    Frame 1 at 0.0 s:<image>
    Frame 2 at 1.5 s:<image>

one line for each frame that is looked at, numbered from 1 in the order of the film, with its time
from the start in seconds and tenths; ``<image>`` are the special tokens of a picture. The markers
are ordinary text for the tokenizer, and nothing stands before the first or behind the last frame.
"""

from __future__ import annotations


def marker(number: int, seconds: float) -> str:
    """The text before one frame.

    Args:
        number: of the frame among those that are looked at, from 1.
        seconds: from the start of the film.
    """
    return f"{'' if number == 1 else chr(10)}Frame {number} at {seconds:.1f} s:"
