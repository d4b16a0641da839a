"""Which experts the tokens of a text visit, from the routings that a forward returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama4_core.errors import DrawingError
from llama4_core.show.drawing import COLOURS, bar, blank_figure, levels

if TYPE_CHECKING:
    from llama4_core.model.transformer import Transformer

_WIDTH = 96
_LABEL = 14
_BAR = 24


@dataclass(frozen=True)
class LayerVisits:
    """The routing of one layer.

    Attributes:
        layer: index.
        experts: E.
        visits: for each token the ids of its experts; -1 for none.
        weights: the weights beside them.
        counts: ``[E]``, tokens per expert.
    """

    layer: int
    experts: int
    visits: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class RoutingPicture:
    """The routings of one text.

    Attributes:
        name: of the model.
        tokens: ids.
        pieces: each token as text, or its id where there is no tokenizer.
        layers: those with experts.
    """

    name: str
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    layers: tuple[LayerVisits, ...]

    def plain(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        return {
            "name": self.name,
            "tokens": list(self.tokens),
            "pieces": list(self.pieces),
            "layers": [
                {
                    "layer": x.layer,
                    "experts": [list(ids) for ids in x.visits],
                    "weights": [list(weights) for weights in x.weights],
                    "counts": list(x.counts),
                }
                for x in self.layers
            ],
        }


def follow(model: Transformer, tokens: Sequence[int]) -> RoutingPicture:
    """Runs the model once over ``tokens`` and reads the routings that it returns.

    Raises:
        ContextError: no token.
        DrawingError: an id outside the vocabulary, or a model without experts.
    """
    import torch

    vocabulary = model.spec.vocabulary
    wrong = [token for token in tokens if not 0 <= token < vocabulary]
    if wrong:
        raise DrawingError(f"token {wrong[0]} is outside the vocabulary, 0 to {vocabulary - 1}")
    with torch.inference_mode():
        ids = torch.tensor(list(tokens), dtype=torch.int64, device=model.device)
        _, routings = model(ids, model.packed([len(tokens)]))
    layers = []
    for index, routing in enumerate(routings):
        if routing is None:
            continue
        experts = getattr(model.spec.layers[index].feed_forward, "experts", 0)
        experts = max(experts, int(routing.experts.max()) + 1)
        flat = routing.experts.flatten()
        counts = torch.bincount(flat[flat >= 0], minlength=experts).tolist()
        layers.append(
            LayerVisits(
                index,
                experts,
                tuple(map(tuple, routing.experts.tolist())),
                tuple(map(tuple, routing.weights.tolist())),
                tuple(counts),
            )
        )
    if not layers:
        raise DrawingError(
            f"{model.spec.name} has no layer with experts; choose a model with a mixture of experts"
        )
    return RoutingPicture(
        model.spec.name, tuple(tokens), tuple(_pieces(model, tokens)), tuple(layers)
    )


def _pieces(model: Transformer, tokens: Sequence[int]) -> list[str]:
    if model.tokenizer is None:
        return [str(token) for token in tokens]
    named = {token: spelling for spelling, token in model.tokenizer.specials.items()}
    return [named.get(token) or model.tokenizer.decode([token]) or str(token) for token in tokens]


def text(found: RoutingPicture) -> str:
    """A table of visits, layers to the right, and the load of every layer."""
    lines = [
        f"{found.name}: {len(found.tokens)} tokens through {len(found.layers)} layers with experts",
    ]
    widest = max((len(_cell(ids)) for x in found.layers for ids in x.visits), default=1)
    column = max(widest, len(str(found.layers[-1].layer))) + 1
    fit = max((_WIDTH - _LABEL - 4) // column, 1)
    for first in range(0, len(found.layers), fit):
        block = found.layers[first : first + fit]
        lines += ["", f"  {'layer':{_LABEL}}" + "".join(f"{x.layer:>{column}}" for x in block)]
        for row, piece in enumerate(found.pieces):
            cells = "".join(f"{_cell(x.visits[row]):>{column}}" for x in block)
            lines.append(f"  {_label(piece):{_LABEL}}{cells}")
    lines += ["", "tokens per expert"]
    for x in found.layers:
        busiest = max(range(x.experts), key=lambda expert: x.counts[expert])
        share = x.counts[busiest] / max(sum(x.counts), 1)
        idle = x.counts.count(0)
        lines.append(
            f"  layer {x.layer:>2}  {levels(x.counts)}  expert {busiest:>3} has the most, "
            f"{share:4.0%} {bar(share, _BAR)} {idle} of {x.experts} without a token"
        )
    return "\n".join(lines)


def _cell(ids: Sequence[int]) -> str:
    return ",".join(str(expert) for expert in ids if expert >= 0) or "-"


def _label(piece: str) -> str:
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in piece).replace(" ", "␣")
    return shown if len(shown) < _LABEL else shown[: _LABEL - 2] + "…"


def draw(found: RoutingPicture) -> Any:
    """Visits as a map of tokens and layers; loads as stacked shares below it."""
    from matplotlib import colormaps

    experts = max(x.experts for x in found.layers)
    colours: list[Any] = list(COLOURS)
    if experts > len(colours):
        colours = [colormaps["turbo"](i / (experts - 1)) for i in range(experts)]
    figure = blank_figure(
        max(0.42 * len(found.tokens) + 1.8, 5.0), max(0.34 * len(found.layers), 1.2) + 2.9
    )
    above, below = figure.subplots(2, 1, height_ratios=[max(len(found.layers) * 0.34, 1.2), 1.5])
    for y, x in enumerate(found.layers):
        for place, ids in enumerate(x.visits):
            for part, expert in enumerate(ids):
                height = 0.86 / len(ids)
                low = y - 0.43 + part * height
                shade = "#eef1f4" if expert < 0 else colours[expert]
                above.bar(place, height, width=0.86, bottom=low, color=shade)
                if len(found.tokens) <= 48 and expert >= 0:
                    above.text(
                        place, low + height / 2, str(expert), ha="center", va="center",
                        fontsize=8, color="white", fontweight="bold",
                    )  # fmt: skip
        left = 0.0
        for expert, count in enumerate(x.counts):
            share = count / max(sum(x.counts), 1)
            below.barh(y, share, left=left, height=0.8, color=colours[expert])
            left += share
    above.set_xticks(
        range(len(found.pieces)), [_label(p) for p in found.pieces], rotation=60, ha="right",
        rotation_mode="anchor",
    )  # fmt: skip
    above.set_xlim(-0.6, len(found.tokens) - 0.4)
    for axes in (above, below):
        axes.set_yticks(range(len(found.layers)), [f"layer {x.layer}" for x in found.layers])
        axes.set_ylim(len(found.layers) - 0.4, -0.6)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
    above.set_title(f"{found.name}: the expert that each token visits", fontsize=10, loc="left")
    below.set_title("load: share of the visits per expert", fontsize=10, loc="left")
    below.set_xlim(0, 1)
    return figure
