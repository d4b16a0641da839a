"""The whole text model: embedding, blocks, norm, head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from llama4_core.contexts.cached import CachedContext, CachedStep
from llama4_core.contexts.packed import PackedContext
from llama4_core.errors import ContextError, ModalityError
from llama4_core.model.block import Block
from llama4_core.model.features import FeatureCache
from llama4_core.model.fusion import fuse, input_dtype
from llama4_core.model.norm import RMSNorm
from llama4_core.model.projection import Projection, project
from llama4_core.protocols.modalities import Modality
from llama4_core.protocols.parts import Parts
from llama4_core.protocols.routing import Routing
from llama4_core.specs.model import ModelSpec

if TYPE_CHECKING:
    from llama4_core.chat.conversation import Reply
    from llama4_core.generation.result import Generation
    from llama4_core.inspection.capture import Capture, Captured
    from llama4_core.plugins.catalogue import Catalogue
    from llama4_core.plugins.report import AssemblyReport
    from llama4_core.tokenizers.tokenizer import Tokenizer


class Transformer(nn.Module):
    """A Llama-4-shaped language model over one flat stream of tokens.

    Made by :func:`llama4_core.assemble` or :func:`llama4_core.load`, not by hand.

    Attributes:
        spec: what it is.
        report: what runs in each slot, and why.
        catalogue: where its parts came from, plugin files included.
        tokenizer: or None when the checkpoint has none.
        vision: the modality of pictures and films, or None where the description has none.
        extra_weights: tensors of the checkpoint that belong to packages not in use (vision), kept
            to be written back.
        features: encoded pictures that are kept for the next question, at most ``features.limit``
            bytes (256 MiB, 0 for none).
        folder: where the weights came from, or None.
    """

    spec: ModelSpec
    report: AssemblyReport
    catalogue: Catalogue
    tokenizer: Tokenizer | None

    def __init__(self, spec: ModelSpec, parts: Parts) -> None:
        super().__init__()
        self.spec = spec
        self.tokenizer = None
        self.extra_weights: dict[str, Tensor] = {}
        self.features = FeatureCache()
        self.folder: Path | None = None
        self.embedding = nn.Embedding(spec.vocabulary, spec.width)
        self.layers = nn.ModuleList(
            Block(layer, spec.width, spec.norm_eps, parts.child(f"layers.{index}"))
            for index, layer in enumerate(spec.layers)
        )
        self.norm = RMSNorm(spec.width, spec.norm_eps)
        self.head = None if spec.tied else Projection(spec.width, spec.vocabulary)
        self.vision: Any = None
        if spec.vision is not None:
            self.vision = parts.build("modalities", "vision", "auto", spec, parts.child("vision"))
        self._make_cache = parts.factory("caches", "cache", "bounded")
        self.find_rotations()

    def find_rotations(self) -> None:
        """Looks up which rotations the layers need; again where a layer's variant was replaced."""
        rotaries = (
            getattr(getattr(layer.attention, "variant", None), "rotary", None)
            for layer in self.layers
        )
        self._rotaries = {rotary.name: rotary for rotary in rotaries if rotary is not None}

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.norm.weight.dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.norm.weight.device

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What can be read beside text."""
        return () if self.vision is None else (self.vision,)

    def forward(
        self,
        tokens: Tensor,
        context: PackedContext | CachedStep,
        features: Mapping[int, Tensor] | None = None,
    ) -> tuple[Tensor, tuple[Routing | None, ...]]:
        """One pass over a flat stream.

        Args:
            tokens: ``[N]`` int64.
            context: from :meth:`packed`, or ``cached.extend(...)``.
            features: placeholder id -> ``[M, D]``: row m replaces the embedding of the m-th
                occurrence of that token. None leaves every embedding as it is.

        Returns:
            Hidden states ``[N, D]`` after the final norm, and each layer's routing (None for dense
            layers). Pure: nothing is counted or stored but the context's provisional entries.

        Raises:
            ContextError: the tokens are not those that the context was made for.
            ModalityError: features are not as many as their places, or not as wide as the model.
        """
        positions = context.positions
        context.begin(tokens, {name: rotary(positions) for name, rotary in self._rotaries.items()})
        hidden = self.embedding(tokens)
        for placeholder, rows in (features or {}).items():
            hidden = fuse(hidden, tokens == placeholder, rows)
        routings = []
        for index, layer in enumerate(self.layers):
            hidden, routing = layer(hidden, context.layer(index))
            routings.append(routing)
        return self.norm(hidden), tuple(routings)

    def project(self, hidden: Tensor) -> Tensor:
        """Logits ``[..., V]`` in float32 of hidden states ``[..., D]``."""
        if self.head is None:
            rows = project(hidden.reshape(-1, hidden.shape[-1]), self.embedding.weight)
            return rows.reshape(*hidden.shape[:-1], rows.shape[-1]).float()
        logits: Tensor = self.head(hidden)
        return logits.float()

    def packed(self, lengths: Sequence[int], **facts: Any) -> PackedContext:
        """A context of whole documents, back to back, without memory.

        Args:
            lengths: tokens of each document.
            facts: ``generator`` and ``forced`` of :class:`PackedContext`.
        """
        return PackedContext(self._mixers(), lengths, self.device, training=self.training, **facts)

    def cached(
        self,
        rows: int,
        *,
        capacity: int = 0,
        cache: str | Callable[..., Any] = "auto",
    ) -> CachedContext:
        """The memory of ``rows`` sequences.

        Args:
            rows: number of sequences.
            capacity: expected length, to allocate at once.
            cache: "auto" for what was assembled, a component's name, or a cache class.
        """
        make = self._make_cache
        if cache != "auto":
            from llama4_core.assembly.assemble import cache_factory

            make = cache_factory(cache, self.catalogue) if isinstance(cache, str) else cache
        return CachedContext(self._mixers(), rows, make, self.dtype, self.device, capacity=capacity)

    def _mixers(self) -> list[Any]:
        return [layer.attention for layer in self.layers]

    @overload
    def logits(
        self,
        tokens: Tensor | Sequence[int] | Sequence[Sequence[int]],
        pixel_values: Tensor | None = ...,
        *,
        forced: Sequence[Tensor | None] | None = ...,
    ) -> Tensor: ...

    @overload
    def logits(
        self,
        tokens: Tensor | Sequence[int] | Sequence[Sequence[int]],
        pixel_values: Tensor | None = ...,
        *,
        capture: Capture,
        forced: Sequence[Tensor | None] | None = ...,
    ) -> Captured: ...

    def logits(
        self,
        tokens: Tensor | Sequence[int] | Sequence[Sequence[int]],
        pixel_values: Tensor | None = None,
        *,
        capture: Capture | None = None,
        forced: Sequence[Tensor | None] | None = None,
    ) -> Tensor | Captured:
        """Logits of every position, uncached; gradients follow torch's mode.

        Args:
            tokens: ``[T]`` or ``[B, T]`` token ids.
            pixel_values: tiles ``[tiles, 3, height, width]`` of all rows in order, as
                ``llama4_vision.ImageProcessor`` makes them; their features fill the patch tokens.
            capture: globs of activations to read, such as ``["layers.*.attention"]``, or globs with
                functions ``(value, path) -> replacement or None``: see
                :mod:`llama4_core.inspection.capture`.
            forced: per layer ``[N, K]`` expert ids to use in place of the router's, or None.

        Returns:
            ``[T, V]`` or ``[B, T, V]`` float32; with ``capture`` a pair of these and a dict of the
            activations over the flat stream, ``[N, ...]``.

        Raises:
            ContextError: another shape, no token, or an id outside the vocabulary.
            ModalityError: the model sees no pictures, or tiles and patch tokens do not fit.
            OverrideError: a glob matches nothing.
        """
        try:
            ids = torch.as_tensor(tokens, device=self.device)
        except (TypeError, ValueError) as error:
            raise ContextError(
                f"tokens are no rectangle of token ids ({error}); expected whole numbers of shape "
                "[T] or [B, T]: score texts of different lengths one by one"
            ) from error
        no_ids = ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool
        if ids.dim() not in (1, 2) or ids.numel() == 0 or no_ids:
            raise ContextError(
                f"tokens have shape {list(ids.shape)} and dtype {ids.dtype}; expected whole "
                "numbers of shape [T] or [B, T], at least one"
            )
        ids = ids.long()
        if ids.device.type != "meta":
            low, high = int(ids.min()), int(ids.max())
            if low < 0 or high >= self.spec.vocabulary:
                wrong = low if low < 0 else high
                raise ContextError(
                    f"token id {wrong} is outside the vocabulary; expected 0 to "
                    f"{self.spec.vocabulary - 1}"
                )
        rows = ids if ids.dim() == 2 else ids[None]
        context = self.packed([rows.shape[1]] * rows.shape[0], forced=forced)
        if capture is None:
            hidden, _ = self(rows.reshape(-1), context, self._features(pixel_values))
            return self.project(hidden).reshape(*ids.shape, -1)
        from llama4_core.inspection.capture import Captured, capturing

        with capturing(self, capture) as record:
            hidden, _ = self(rows.reshape(-1), context, self._features(pixel_values))
            logits = record.see("logits", self.project(hidden))
        return Captured(logits.reshape(*ids.shape, -1), record.values)

    def _features(self, pixel_values: Tensor | None) -> dict[int, Tensor] | None:
        """Features of tiles, as :meth:`forward` takes them."""
        if pixel_values is None:
            return None
        if self.vision is None:
            raise ModalityError(
                f"got pixel_values, but {self.spec.name} is a text model; leave them out, or load "
                "a multimodal checkpoint"
            )
        features = self.vision(pixel_values.to(self.device, input_dtype(self.vision, self.dtype)))
        return {self.vision.placeholder: features.flatten(0, 1)}

    def generate(
        self, prompt: Any, images: Any = (), pixel_values: Tensor | None = None, **settings: Any
    ) -> Generation | list[Generation]:
        """Continues a prompt, or a list of prompts: see :func:`llama4_core.generation.generate`."""
        from llama4_core.generation import generate

        return generate(self, prompt, images=images, pixel_values=pixel_values, **settings)

    def chat(self, messages: Any, images: Any = (), tools: Any = (), **settings: Any) -> Reply:
        """Replies to a conversation: see :func:`llama4_core.chat.conversation.chat`."""
        from llama4_core.chat.conversation import chat

        return chat(self, messages, images, tools, **settings)

    def stream(
        self, prompt: Any, images: Any = (), pixel_values: Tensor | None = None, **settings: Any
    ) -> Any:
        """Yields pieces as they are generated: see :func:`llama4_core.generation.stream`."""
        from llama4_core.generation import stream

        return stream(self, prompt, images=images, pixel_values=pixel_values, **settings)
