"""What damaged files show as."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

READER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
"""Pillow's readers are Python over bytes from strangers: damage shows as any of these."""
