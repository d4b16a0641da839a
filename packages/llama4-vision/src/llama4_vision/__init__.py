"""Images and video for Llama 4, and for anybody's model: tiling, encoders, fusion, grounding.

Importing this package does not import torch; what needs it does so on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "ImageProcessor": "llama4_vision.images.processor:ImageProcessor",
    "Limits": "llama4_vision.images.limits:Limits",
    "VisionEncoder": "llama4_vision.encoder:VisionEncoder",
    "image_key": "llama4_vision.images.key:image_key",
}

if TYPE_CHECKING:
    from llama4_vision.encoder import VisionEncoder
    from llama4_vision.images.key import image_key
    from llama4_vision.images.limits import Limits
    from llama4_vision.images.processor import ImageProcessor

__all__ = ["ImageProcessor", "Limits", "VisionEncoder", "__version__", "image_key"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'llama4_vision' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
