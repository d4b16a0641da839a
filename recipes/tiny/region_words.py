"""Region words: image features learn the words of the boxes that they lie in.

A caption that says what is where (``<ref>red star</ref><box>...</box>``) tells for every place of a
picture what is there. The text model hears of it only through its own loss, many layers later; this
objective says it to the encoder directly, at the cost of the encoder alone::

    llama4 train recipes/tiny/eyes.toml --plugin recipes/tiny/region_words.py --out build/tiny/eyes
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


SCENES: Mapping[str, Sequence[str]] = {"colour": tuple(COLOURS), "shape": SHAPES}
"""Groups of the world ``scenes``."""


class RegionWords:
    """Cross-entropy of each feature's word, within groups of words that exclude each other.

    The logit of word w at a feature f is ``16 cos(f, e_w)``, where ``e_w`` is the embedding of the
    word's tokens, less the mean of its group: nothing is learnt beside the model, and features end
    up where the text model has its words. The loss is the mean over all features under a box, added
    over the groups. Embeddings get no gradient, and the text model does not run.

    Args:
        groups: name -> words, such as ``{"colour": ["red", "blue"]}``; those of the world
            ``scenes`` unless given. A feature has the word of the box that covers most of its part
            of the picture.
        cover: least share of that part that the box covers.

    Raises:
        RecipeError: a group has fewer than two words or one twice, or ``cover`` is no share.
    """

    def __init__(
        self, *, groups: Mapping[str, Sequence[str]] = SCENES, cover: float = 0.15
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
        parts: dict[str, Tensor] = {}
        known = features.new_zeros(())
        for name, words in self.groups.items():
            labels = torch.stack([labels_of(one, words, side, self.cover) for one in boxes])
            labels = labels.to(features.device)
            known = known + (labels != NOTHING).sum()
            logits = SHARPNESS * F.normalize(features, dim=-1) @ self._vectors(model, words).T
            summed = F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=NOTHING, reduction="sum"
            )
            seen = (labels != NOTHING).sum().clamp(min=1)
            share = len(batch.tokens) / step.tokens
            parts[f"region.{name}"] = summed / seen * share
            parts[f"right.{name}"] = (logits.argmax(-1) == labels).sum() / seen * share
        if not known:
            raise TrainingError(
                f"no picture of step {step.number} has a box with a word of {list(self.groups)}; "
                "expected captions such as <ref>red star</ref><box>10,20,300,400</box>"
            )
        total = torch.stack([parts[f"region.{name}"] for name in self.groups]).sum()
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


def labels_of(
    boxes: Sequence[tuple[str, tuple[float, ...]]], words: Sequence[str], side: int, cover: float
) -> Tensor:
    """The word of each feature of a picture of one tile, row by row.

    Args:
        boxes: phrases with ``x0, y0, x1, y1`` as shares of width and height.
        words: of one group.
        side: features across and down.
        cover: least share of a feature's part of the picture that a box covers.

    Returns:
        ``[side * side]`` int64: places in ``words``, or -100.
    """
    starts = torch.arange(side, dtype=torch.float64) / side
    most = torch.full((side, side), cover, dtype=torch.float64)
    labels = torch.full((side, side), NOTHING)
    for phrase, (x0, y0, x1, y1) in boxes:
        found = [number for number, word in enumerate(words) if word in phrase.split()]
        across, down = (
            ((starts + 1 / side).clamp(max=high) - starts.clamp(min=low)).clamp(min=0) * side
            for low, high in ((x0, x1), (y0, y1))
        )
        area = down[:, None] * across[None, :]
        labels = torch.where(area >= most, found[0] if found else NOTHING, labels)
        most = torch.maximum(most, area)
    return labels.flatten()


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
