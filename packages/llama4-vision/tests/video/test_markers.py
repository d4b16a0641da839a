"""The convention of frames in the text."""

from __future__ import annotations

from llama4_vision.video.markers import marker


def test_one_line_per_frame() -> None:
    assert marker(1, 0.0) == "Frame 1 at 0.0 s:"
    assert marker(2, 1.26) == "\nFrame 2 at 1.3 s:"
    assert marker(30, 3599.96) == "\nFrame 30 at 3600.0 s:"
