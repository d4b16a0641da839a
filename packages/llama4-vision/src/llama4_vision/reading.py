"""From the pictures and films of one prompt to tokens and tiles."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from llama4_core.errors import ModalityError
from llama4_core.protocols.modalities import Reading
from llama4_core.specs.model import VisionSpec
from llama4_core.tokenizers.tokenizer import Tokenizer
from llama4_vision.images.layout import PATCH, layout, layout_ids
from llama4_vision.images.limits import Limits
from llama4_vision.images.processor import ImageProcessor, ProcessedImage
from llama4_vision.video.frames import sampled
from llama4_vision.video.markers import marker

_WITHOUT = (
    "without one, make tiles with llama4_vision.ImageProcessor and use "
    "model.logits(tokens, pixel_values) or model.generate(ids, pixel_values=...)"
)


class Reader:
    """Reads inputs for one model.

    Args:
        spec: of the model's vision: tiles are as large as its encoder takes.
        tokens_per_tile: T, features of one tile.
        placeholder: id of the token that the model puts features at.
        tokenizer: of the model.
        limits: see :class:`~llama4_vision.images.limits.Limits`.
        frame_tiles: largest grid of tiles of one frame of a film.

    Raises:
        ModalityError: there is no tokenizer, or it has another id for patches than the model.
    """

    def __init__(
        self,
        spec: VisionSpec,
        tokens_per_tile: int,
        placeholder: int,
        tokenizer: Tokenizer | None,
        limits: Limits,
        frame_tiles: int,
    ) -> None:
        if tokenizer is None:
            raise ModalityError(
                "the model has no tokenizer, which writing down pictures needs; load a folder that "
                f"holds one; {_WITHOUT}"
            )
        self._tokens, self._tokenizer, self._limits = tokens_per_tile, tokenizer, limits
        self._specials = _specials(tokenizer, placeholder)
        self._pictures = ImageProcessor.from_spec(spec, limits)
        self._frames = ImageProcessor(
            spec.image_size, max_tiles=min(frame_tiles, limits.tiles), limits=limits
        )

    def image(self, source: Any) -> Reading:
        """One picture.

        Raises:
            ModalityError: it cannot be read, or the tokenizer lacks a token of its layout.
        """
        done = self._pictures(source)
        ids = self._ids(done)
        key = self._key(self._pictures, "image", done.key)
        return Reading(key, ids, self._places(done), done.pixel_values)

    def film(self, source: Any, count: int | None = None, fps: float | None = None) -> Reading:
        """Some frames of a film, one picture in memory at a time.

        Args:
            source: see :func:`~llama4_vision.video.frames.read_frames`.
            count: how many frames; None for the default number.
            fps: frames per second instead; None for ``count``.

        Raises:
            ModalityError: as for pictures; both ``count`` and ``fps`` are given.
        """
        ids: list[int] = []
        tiles, facts, places = [], [], 0
        film = sampled(source, count, fps, self._limits)
        for number, frame in enumerate(film, 1):
            done = self._frames.process(frame.image)
            words = marker(number, frame.seconds)
            ids += self._tokenizer.encode(words, bos=False)
            ids += self._ids(done)
            places += self._places(done)
            tiles.append(done.pixel_values)
            facts += [words, done.key]
        key = self._key(self._frames, "video", *facts)
        return Reading(key, tuple(ids), places, torch.cat(tiles))

    def _ids(self, done: ProcessedImage) -> tuple[int, ...]:
        missing = {name for name in layout(done.plan, self._tokens) if name not in self._specials}
        if missing:
            raise ModalityError(_missing(missing))
        return layout_ids(done.plan, self._tokens, self._specials)

    def _places(self, done: ProcessedImage) -> int:
        return done.plan.tiles * self._tokens

    def _key(self, processor: ImageProcessor, *facts: str) -> str:
        """Names the pixels and everything that decides which tiles and tokens they become."""
        how = (processor.tile, processor.max_tiles, self._tokens, *facts)
        return hashlib.sha256(repr(how).encode()).hexdigest()


def _specials(tokenizer: Tokenizer, placeholder: int) -> dict[str, int]:
    """The tokenizer's special tokens, if its patches are where the model looks for features."""
    specials = dict(tokenizer.specials)
    if PATCH not in specials:
        raise ModalityError(_missing({PATCH}))
    if specials[PATCH] != placeholder:
        raise ModalityError(
            f"the tokenizer's {PATCH} is {specials[PATCH]}, but the model puts features at token "
            f"{placeholder}; expected the same id: load the tokenizer that belongs to the model"
        )
    return specials


def _missing(names: set[str]) -> str:
    return (
        f"the tokenizer has no {', '.join(sorted(names))}, which writing down pictures needs; "
        f"load the tokenizer of a multimodal Llama 4; {_WITHOUT}"
    )
