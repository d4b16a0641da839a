"""Region words: image features learn the words of the boxes that they lie in, and their edges.

A caption that says what is where (``<ref>red star</ref><box>...</box>``) tells for every place of a
picture what is there. The text model hears of it only through its own loss, many layers later; this
objective says it to the encoder directly, at the cost of the encoder alone::

    llama4 train RECIPE --plugin recipes/tiny/region_words.py --out FOLDER
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl
from llama4_train.errors import RecipeError, TrainingError
from llama4_train.protocols import Batch, Loss, StepFacts
from llama4_train.worlds.pictures import COLOURS, SHAPES

NOTHING = -100
"""Label of a feature that lies in no box whose phrase has a word of the group."""

SHARPNESS = 16.0
"""Factor of the cosines: with it the right word of eight can have nearly all of the weight."""

_BOX = re.compile(
    r"<ref>([^<>]{1,80}+)</ref>\s{0,8}+<box>(\d{1,4}),(\d{1,4}),(\d{1,4}),(\d{1,4})</box>"
)
_SCALE = 1000  # boxes are thousandths of the picture's width and height


CYCLES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Waves over a picture whose phases say where an edge is: half a one tells left from right, those
of 5 and 10 go with the tenths and hundredths of a coordinate that is written in decimals."""

AMPLITUDE = 0.1
"""Of the waves in a feature of length 1: all 40 together have a fifth of its square."""


SCENES: Mapping[str, Sequence[str]] = {"colour": tuple(COLOURS), "shape": SHAPES}
"""Groups of the world ``scenes``."""


class RegionWords:
    """Cross-entropy of each feature's word, in groups of words that exclude each other, and edges.

    The logit of word w at a feature f is ``16 cos(f, e_w)``, where ``e_w`` is the embedding of the
    word's tokens, less the mean of its group: nothing is learnt beside the model, and features end
    up where the text model has its words. The loss is the mean over all features under a box, added
    over the groups. Embeddings get no gradient, and the text model does not run.

    With ``edges``, cosine and sine of ``2 pi c e``, for each edge e of the box (a share of the
    picture) and each c of :data:`CYCLES`, are read off the feature along fixed directions; their
    mean squared error, times ``edges``, is added.

    Args:
        groups: name -> words, such as ``{"colour": ["red", "blue"]}``; those of the world
            ``scenes`` unless given. A feature has the word of the box that covers most of its part
            of the picture.
        cover: least share of that part that the box covers.
        edges: weight of the edges; 0 to leave them out.

    Raises:
        RecipeError: a group has fewer than two words or one twice, ``cover`` is no share, or
            ``edges`` is below 0.
    """

    def __init__(
        self,
        *,
        groups: Mapping[str, Sequence[str]] = SCENES,
        cover: float = 0.15,
        edges: float = 0.0,
    ) -> None:
        if not groups:
            raise RecipeError(
                "objective region-words: groups is empty; expected names with words, such as "
                "{ colour = ['red', 'blue'] }"
            )
        for name, words in groups.items():
            if isinstance(words, str) or len(set(words)) != len(words) or len(words) < 2:
                raise RecipeError(
                    f"objective region-words: the group {name} is {words!r:.80}; expected two or "
                    "more different words"
                )
        if isinstance(cover, bool) or not isinstance(cover, int | float) or not 0 < cover <= 1:
            raise RecipeError(
                f"objective region-words: cover is {cover!r}; expected a share above 0, up to 1"
            )
        if (
            isinstance(edges, bool)
            or not isinstance(edges, int | float)
            or not 0 <= edges < math.inf
        ):
            raise RecipeError(
                f"objective region-words: edges is {edges!r}; expected a weight of at least 0"
            )
        self.edges = float(edges)
        self.groups = {name: tuple(words) for name, words in groups.items()}
        self.cover = float(cover)

    def __call__(self, model: nn.Module, batch: Batch, step: StepFacts) -> Loss:
        """One forward of the encoder over the pictures of the batch.

        Raises:
            TrainingError: a document has no picture of exactly one tile, or no feature of the batch
                lies in a box.
        """
        features = _features(model, batch)
        boxes = [_boxes(model, tokens) for tokens in batch.tokens.split(list(batch.lengths))]
        side = math.isqrt(features.shape[1])
        places = [covering(one, side, self.cover) for one in boxes]
        share = len(batch.tokens) / step.tokens
        parts: dict[str, Tensor] = {}
        known = features.new_zeros(())
        for name, words in self.groups.items():
            labels = torch.stack(
                [labels_of(one, at, words) for one, at in zip(boxes, places, strict=True)]
            ).to(features.device)
            known = known + (labels != NOTHING).sum()
            logits = SHARPNESS * F.normalize(features, dim=-1) @ self._vectors(model, words).T
            summed = F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=NOTHING, reduction="sum"
            )
            seen = (labels != NOTHING).sum().clamp(min=1)
            parts[f"region.{name}"] = summed / seen * share
            parts[f"right.{name}"] = (logits.argmax(-1) == labels).sum() / seen * share
        if not known:
            raise TrainingError(
                f"no picture of step {step.number} has a box with a word of {list(self.groups)}; "
                "expected captions such as <ref>red star</ref><box>10,20,300,400</box>"
            )
        if self.edges:
            parts["region.edges"] = self.edges * share * _edge_error(features, boxes, places)
        total = torch.stack(
            [one for name, one in parts.items() if name.startswith("region.")]
        ).sum()
        layers: Any = model.layers
        found = {name: value.detach() for name, value in parts.items()}
        return Loss(total, found, [None] * len(layers))

    def _vectors(self, model: Any, words: Sequence[str]) -> Tensor:
        """``[W, D]``: directions of the words, each of length 1."""
        table = model.embedding.weight.detach()
        rows = []
        for word in words:
            ids = [
                token
                for text in (word, " " + word)
                for token in model.tokenizer.encode(text, bos=False)
            ]
            rows.append(table[ids].mean(0))
        vectors = torch.stack(rows)
        return F.normalize(vectors - vectors.mean(0), dim=-1)


Box = tuple[str, tuple[float, ...]]
"""A phrase with ``x0, y0, x1, y1`` as shares of width and height."""


def covering(boxes: Sequence[Box], side: int, cover: float) -> Tensor:
    """The box of each feature of a picture of one tile, row by row: the one that covers most of it.

    Args:
        boxes: of the picture.
        side: features across and down.
        cover: least share of a feature's part of the picture that a box covers.

    Returns:
        ``[side * side]`` int64: places in ``boxes``, or -100.
    """
    starts = torch.arange(side, dtype=torch.float64) / side
    most = torch.full((side, side), cover, dtype=torch.float64)
    found = torch.full((side, side), NOTHING)
    for number, (_, (x0, y0, x1, y1)) in enumerate(boxes):
        across, down = (
            ((starts + 1 / side).clamp(max=high) - starts.clamp(min=low)).clamp(min=0) * side
            for low, high in ((x0, x1), (y0, y1))
        )
        area = down[:, None] * across[None, :]
        found = torch.where(area >= most, number, found)
        most = torch.maximum(most, area)
    return found.flatten()


def labels_of(boxes: Sequence[Box], at: Tensor, words: Sequence[str]) -> Tensor:
    """The word of each feature: places in ``words``, or -100, of the shape of ``at``.

    Args:
        boxes: of a picture.
        at: of :func:`covering`.
        words: of one group.
    """
    phrases = [phrase.split() for phrase, _ in boxes]
    of_box = [
        next((place for place, word in enumerate(words) if word in phrase), NOTHING)
        for phrase in phrases
    ]
    of_any = torch.tensor([*of_box, NOTHING])
    return of_any[torch.where(at == NOTHING, len(boxes), at)]


def edge_waves(edges: Tensor) -> Tensor:
    """Cosine and sine of ``2 pi c e``: ``[..., 4]`` shares of a picture to ``[..., 40]``."""
    phases = 2 * math.pi * edges.unsqueeze(-1) * torch.tensor(CYCLES, dtype=edges.dtype)
    return torch.cat((phases.cos(), phases.sin()), -1).flatten(-2)


def _edge_error(
    features: Tensor, boxes: Sequence[Sequence[Box]], places: Sequence[Tensor]
) -> Tensor:
    """Mean squared error of the waves that are read off the features under a box."""
    edges = torch.cat(
        [
            torch.tensor([box for _, box in one])[at[at != NOTHING]]
            for one, at in zip(boxes, places, strict=True)
            if one
        ]
    )
    waves = edge_waves(edges).to(features)
    width = features.shape[-1]
    seeded = torch.randn(width, waves.shape[-1], generator=torch.Generator().manual_seed(0))
    directions = torch.linalg.qr(seeded).Q.to(features)
    under = torch.stack(list(places)).to(features.device) != NOTHING
    read = F.normalize(features[under], dim=-1) @ directions / AMPLITUDE
    return F.mse_loss(read, waves)


def _features(model: Any, batch: Batch) -> Tensor:
    """``[documents, features, D]``."""
    modalities = {modality.placeholder: modality for modality in model.modalities}
    placeholders = [one for one in batch.inputs if one in modalities]
    counts = [
        int((tokens == placeholder).sum())
        for placeholder in placeholders
        for tokens in batch.tokens.split(list(batch.lengths))
    ]
    if len(placeholders) == 1:
        inputs = batch.inputs[placeholders[0]].to(model.device, model.dtype)
        features: Tensor = modalities[placeholders[0]](inputs)
        if len(features) == len(batch.lengths) and set(counts) == {features.shape[1]}:
            return features
    raise TrainingError(
        f"the documents of the batch have {sorted(set(counts))} image features; the objective "
        "region-words learns from one picture of one tile in each document: choose such data"
    )


def _boxes(model: Any, tokens: Tensor) -> list[tuple[str, tuple[float, ...]]]:
    """What the text of a document says to be where."""
    text = model.tokenizer.decode(tokens.tolist())
    return [
        (phrase, tuple(int(number) / _SCALE for number in numbers))
        for phrase, *numbers in _BOX.findall(text)
    ]


@hookimpl
def llama4_objectives() -> tuple[Component, ...]:
    """The one objective of this file."""
    return (Component("region-words", f"{__name__}:RegionWords", "features learn words of boxes"),)
