"""A key of a picture's pixels, by which caches find what was computed from it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from llama4_vision.images.rows import copy_rows

if TYPE_CHECKING:
    from PIL import Image


def new_digest(image: Image.Image) -> hashlib._Hash:
    """The hash of :func:`image_key`, before any pixel."""
    digest = hashlib.sha256()
    width, height = image.size
    digest.update(f"{image.mode} {width} {height}\n".encode())
    # What numbers of pixels mean in some modes is kept beside them.
    clear = image.info.get("transparency")
    if clear is not None:
        digest.update(f"transparency {clear!r}\n".encode())
    if image.mode in ("P", "PA"):
        digest.update(bytes(image.getpalette("RGBA") or ()))
    return digest


def image_key(image: Image.Image) -> str:
    """A key that is equal for equal pixels, whatever file they came from.

    SHA-256 of the mode, the width, the height and the bytes of the pixels, row by row (with the
    palette and the transparent colour, where a picture has them). A hash that nobody can find
    collisions of, because a cache of features may serve many people.

    Returns:
        64 hexadecimal digits.

    Raises:
        ModalityError: the picture cannot be decoded.
    """
    digest = new_digest(image)
    copy_rows(image, digest.update)
    return digest.hexdigest()
