"""Who may see whom: masks, evaluated with their own brute-force definition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama4_core.errors import DrawingError
from llama4_core.protocols.masks import (
    Causal,
    Chunked,
    Everything,
    Mask,
    Place,
    SameDocument,
    SlidingWindow,
    parts_of,
)
from llama4_core.show.drawing import COLOURS, blank_figure
from llama4_core.specs.model import DenseSpec, ModelSpec

#: Most tokens on a side: a picture of more has no visible cells, and cost grows with the square.
LONGEST = 1024

_PLAIN: dict[str, type[Any]] = {
    "everything": Everything,
    "causal": Causal,
    "document": SameDocument,
}
_SIZED: dict[str, type[Any]] = {"chunked": Chunked, "window": SlidingWindow}


@dataclass(frozen=True)
class MaskPicture:
    """One kind of mask over a stream of documents.

    Attributes:
        mask: what was evaluated, ``SameDocument()`` included where there are several documents.
        layers: indices of the layers that have it; empty for a mask that stands alone.
        documents: tokens of each document.
        seen: ``[T][S]``, row ``t`` tells which keys query ``t`` sees.
    """

    mask: Mask
    layers: tuple[int, ...]
    documents: tuple[int, ...]
    seen: tuple[tuple[bool, ...], ...]

    @property
    def title(self) -> str:
        """The mask in words, and its layers."""
        return describe(self.mask) + (f" · layers {_ranges(self.layers)}" if self.layers else "")

    def plain(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        return {
            "mask": describe(self.mask),
            "layers": list(self.layers),
            "documents": list(self.documents),
            "seen": [[int(cell) for cell in row] for row in self.seen],
        }


def picture(mask: Mask, documents: Sequence[int], layers: Sequence[int] = ()) -> MaskPicture:
    """Evaluates ``mask.visible`` for every pair of tokens.

    Args:
        mask: without ``SameDocument()``, which is added for more than one document.
        documents: tokens of each document, back to back; positions restart at 0 in each.
        layers: indices of the layers that have this mask.

    Raises:
        DrawingError: no token, or more than :data:`LONGEST` together.
    """
    if not documents or min(documents) < 1 or sum(documents) > LONGEST:
        raise DrawingError(
            f"the documents have lengths {list(documents)}; expected at least 1 token in each and "
            f"at most {LONGEST} together"
        )
    if len(documents) > 1:
        mask = mask & SameDocument()
    places = [
        Place(position, document)
        for document, length in enumerate(documents)
        for position in range(length)
    ]
    seen = tuple(tuple(bool(mask.visible(q, k)) for k in places) for q in places)
    return MaskPicture(mask, tuple(layers), tuple(documents), seen)


def parse_mask(text: str) -> Mask:
    """The mask that ``causal&chunked:8`` spells.

    Raises:
        DrawingError: a part is unknown, or its size is missing or superfluous.
        SpecError: a size below 1.
    """
    found: Mask = Everything()
    for part in text.split("&"):
        name, colon, size = part.strip().partition(":")
        if name in _PLAIN and not colon:
            found = found & _PLAIN[name]()
        elif name in _SIZED and size.isdecimal():
            found = found & _SIZED[name](int(size))
        else:
            raise DrawingError(
                f"{part.strip()!r} is no mask; expected parts joined by &: {', '.join(_PLAIN)}, "
                f"{', '.join(f'{name}:SIZE' for name in _SIZED)}, as in 'causal&chunked:8'"
            )
    return found


def describe(mask: Mask) -> str:
    """A mask as :func:`parse_mask` reads it; a foreign one by its repr."""
    names = {kind: name for name, kind in {**_PLAIN, **_SIZED}.items()}
    words = []
    for part in parts_of(mask):
        name = names.get(type(part))
        sized = isinstance(part, Chunked | SlidingWindow)
        words.append(repr(part) if name is None else f"{name}:{part.size}" if sized else name)  # type: ignore[attr-defined]
    return "&".join(words)


def shrunk(spec: ModelSpec, size: int) -> ModelSpec:
    """The same model with every chunk and window of ``size`` positions, so that they show."""

    def smaller(attention: Any) -> Any:
        return replace(
            attention,
            chunk=None if attention.chunk is None else size,
            window=None if attention.window is None else size,
        )

    return replace(
        spec,
        layers=tuple(replace(x, attention=smaller(x.attention)) for x in spec.layers),
    )


def attention_alone(spec: ModelSpec) -> ModelSpec:
    """The same model with tiny dense feed-forwards: its masks need no package of experts."""
    return replace(
        spec, layers=tuple(replace(layer, feed_forward=DenseSpec(1)) for layer in spec.layers)
    )


def masks_of(model: Any) -> dict[Mask | None, list[int]]:
    """The layers of each mask of an assembled model; None for layers that do not attend."""
    found: dict[Mask | None, list[int]] = {}
    for index, layer in enumerate(model.layers):
        kind = layer.attention.kind
        found.setdefault(None if kind is None else kind.mask, []).append(index)
    return found


def text(pictures: Iterable[MaskPicture]) -> str:
    """Each mask as a square of characters: queries go down, keys to the right."""
    blocks = []
    for drawn in pictures:
        side = len(drawn.seen)
        label = len(str(side - 1))
        ruler = "".join(str(i).ljust(10) for i in range(0, side, 5))
        lines = [drawn.title, f"{'':{label}}  {ruler.rstrip()}"]
        for index, row in enumerate(drawn.seen):
            cells = "".join("██" if cell else "· " for cell in row)
            lines.append(f"{index:>{label}}  {cells}".rstrip())
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def draw(pictures: Sequence[MaskPicture]) -> Any:
    """The masks side by side as a matplotlib figure."""
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import MaxNLocator

    figure = blank_figure(4.2 * len(pictures), 5.0)
    for axes, drawn in zip(
        figure.subplots(1, len(pictures), squeeze=False)[0], pictures, strict=True
    ):
        side = len(drawn.seen)
        axes.imshow(drawn.seen, cmap=ListedColormap(["#eef1f4", COLOURS[0]]), vmin=0, vmax=1)
        if side <= 64:
            axes.set_xticks([i - 0.5 for i in range(side)], minor=True)
            axes.set_yticks([i - 0.5 for i in range(side)], minor=True)
            axes.grid(which="minor", color="white", linewidth=0.8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(which="both", length=0)
        edge = -0.5
        for length in drawn.documents[:-1]:
            edge += length
            axes.axhline(edge, color=COLOURS[5], linewidth=1.2)
            axes.axvline(edge, color=COLOURS[5], linewidth=1.2)
        axes.spines[:].set_visible(False)
        axes.set_title(_broken(drawn.title), fontsize=10)
        axes.set_xlabel("key")
        axes.set_ylabel("query")
    return figure


def _broken(title: str) -> str:
    head, dot, tail = title.partition(" · ")
    return f"{head}\n{tail}" if dot else head


def _ranges(indices: Sequence[int]) -> str:
    """``0-2, 4-6``; every fourth layer of many as ``0-2, 4-6, ... 44-46``."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    words = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    if len(words) > 4:
        words = [*words[:2], f"... {words[-1]} ({len(indices)} layers)"]
    return ", ".join(words)
