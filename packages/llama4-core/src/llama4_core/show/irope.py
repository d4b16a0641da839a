"""How a model knows where a token stands: layer pattern, rotation per pair, temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llama4_core.show.drawing import COLOURS, bar, blank_figure, plain
from llama4_core.specs.model import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    RopeSpec,
    TemperatureSpec,
)

#: The longest position that the temperature is drawn for: 10M tokens.
LAST = 10 * 1024 * 1024
_BAR = 40
_KINDS = {
    "C": "rotary, within chunks",
    "R": "rotary, everything before",
    "W": "rotary, a sliding window",
    "G": "no positions, everything before",
    "L": "another mixer",
}


@dataclass(frozen=True)
class Rotation:
    """The rotary encoding of some layers.

    Attributes:
        rope: base and scaling.
        head_dim: K.
        chunk: of the layers, or None.
        plain: tokens per turn of each of the ``K / 2`` pairs, without scaling.
        scaled: the same as the model uses it.
    """

    rope: RopeSpec
    head_dim: int
    chunk: int | None
    plain: tuple[float, ...]
    scaled: tuple[float, ...]


@dataclass(frozen=True)
class Temperature:
    """The factor on the queries of position-free layers, at positions that grow by powers of two.

    Attributes:
        spec: scale and floor.
        positions, factors: one factor for each position.
    """

    spec: TemperatureSpec
    positions: tuple[int, ...]
    factors: tuple[float, ...]


@dataclass(frozen=True)
class IRope:
    """What :func:`irope` finds.

    Attributes:
        name: of the model.
        attention: one letter per layer: C rotary within chunks, R rotary, W rotary in a window, G
            without positions, L another mixer.
        feed_forward: one letter per layer: M mixture of experts, D dense.
        rotations, temperatures: each different one once.
    """

    name: str
    attention: str
    feed_forward: str
    rotations: tuple[Rotation, ...]
    temperatures: tuple[Temperature, ...]

    def plain(self) -> dict[str, Any]:
        """The numbers, for JSON."""
        return {
            "name": self.name,
            "attention": self.attention,
            "feed_forward": self.feed_forward,
            "rotations": [
                {
                    "theta": x.rope.theta,
                    "head_dim": x.head_dim,
                    "chunk": x.chunk,
                    "wavelengths_unscaled": list(x.plain),
                    "wavelengths": list(x.scaled),
                }
                for x in self.rotations
            ],
            "temperatures": [
                {
                    "scale": x.spec.scale,
                    "floor": x.spec.floor,
                    "positions": list(x.positions),
                    "factors": list(x.factors),
                }
                for x in self.temperatures
            ],
        }


def irope(spec: ModelSpec) -> IRope:
    """Reads a description, with the functions that the model itself computes by."""
    rotations: dict[tuple[RopeSpec, int, int | None], Rotation] = {}
    temperatures: dict[TemperatureSpec, Temperature] = {}
    for layer in spec.layers:
        attention = layer.attention
        if attention.rope is not None:
            key = (attention.rope, attention.head_dim, attention.chunk)
            rotations[key] = _rotation(*key)
        if attention.temperature is not None:
            temperatures[attention.temperature] = _temperature(attention.temperature)
    return IRope(
        spec.name,
        "".join(_letter(layer.attention) for layer in spec.layers),
        "".join(_feed_forward(layer) for layer in spec.layers),
        tuple(rotations.values()),
        tuple(temperatures.values()),
    )


def _letter(attention: AttentionSpec) -> str:
    if attention.mixer != "softmax":
        return "L"
    if attention.rope is None:
        return "G"
    return "C" if attention.chunk is not None else "W" if attention.window is not None else "R"


def _feed_forward(layer: LayerSpec) -> str:
    return "D" if isinstance(layer.feed_forward, DenseSpec) else "M"


def _rotation(rope: RopeSpec, head_dim: int, chunk: int | None) -> Rotation:
    from llama4_core.model.rotary import frequencies

    def turns(spec: RopeSpec) -> tuple[float, ...]:
        return tuple(2 * math.pi / frequency for frequency in frequencies(spec, head_dim))

    return Rotation(rope, head_dim, chunk, turns(RopeSpec(rope.theta)), turns(rope))


def _temperature(spec: TemperatureSpec) -> Temperature:
    import torch

    from llama4_core.model.variants import temperature

    first = max(int(math.log2(spec.floor)) - 1, 0)
    positions = tuple(2**power - 1 for power in range(first, int(math.log2(LAST)) + 1))
    positions += (LAST - 1,)
    factors = temperature(torch.tensor(positions), spec).tolist()
    return Temperature(spec, positions, tuple(factors))


def text(found: IRope) -> str:
    """The findings as text."""
    lines = [f"{found.name}: {len(found.attention)} layers", ""]
    lines += [f"  attention     {_grouped(found.attention)}"]
    lines += [f"  feed-forward  {_grouped(found.feed_forward)}", ""]
    lines += [
        f"  {letter}  {words} ({found.attention.count(letter)} layers)"
        for letter, words in _KINDS.items()
        if letter in found.attention
    ]
    lines += [
        f"  {letter}  {words} ({found.feed_forward.count(letter)} layers)"
        for letter, words in (("M", "mixture of experts"), ("D", "dense"))
        if letter in found.feed_forward
    ]
    for rotation in found.rotations:
        lines += ["", *_rotation_lines(rotation)]
    for temperature in found.temperatures:
        lines += ["", *_temperature_lines(temperature)]
    return "\n".join(lines)


def _grouped(letters: str) -> str:
    return " ".join(letters[i : i + 4] for i in range(0, len(letters), 4))


def _rotation_lines(rotation: Rotation) -> list[str]:
    where = "" if rotation.chunk is None else f", chunks of {rotation.chunk}"
    pairs = len(rotation.scaled)
    title = f"tokens per turn of the {pairs} pairs, theta {rotation.rope.theta:g}{where}"
    lines = [title + " (log scale)"]
    most = math.log10(max(rotation.scaled))
    step = max(pairs // 16, 1)
    for pair in range(0, pairs, step):
        length, plain_length = rotation.scaled[pair], rotation.plain[pair]
        note = "" if length == plain_length else f"x {length / plain_length:.3g} by scaling"
        if rotation.chunk is not None and length > rotation.chunk:
            note = f"{note}, " if note else ""
            note += "no full turn within a chunk"
        share = math.log10(length) / most
        lines.append(f"  pair {pair:>3}  {length:>14,.1f}  {bar(share, _BAR)}  {note}".rstrip())
    return lines


def _temperature_lines(temperature: Temperature) -> list[str]:
    scale, floor = temperature.spec.scale, temperature.spec.floor
    formula = f"1 + {scale:g} ln(floor((position + 1) / {floor:g}) + 1)"
    lines = [f"factor on the queries of layers without positions, {formula}"]
    most = max(temperature.factors)
    lines += [
        f"  position {position:>10,}  {factor:.4f}  {bar(factor / most, _BAR)}".rstrip()
        for position, factor in zip(temperature.positions, temperature.factors, strict=True)
    ]
    return lines


def draw(found: IRope) -> Any:
    """Pattern above; wavelengths and temperature below."""
    figure = blank_figure(10, 5.2)
    panels: list[Rotation | Temperature] = [*found.rotations[:1], *found.temperatures[:1]]
    rows = figure.subfigures(2, 1, height_ratios=[1, 3.2]) if panels else [figure]
    _draw_pattern(rows[0].subplots(), found)
    if panels:
        grid = rows[1].subplots(1, len(panels), squeeze=False)[0]
        for axes, panel in zip(grid, panels, strict=True):
            if isinstance(panel, Rotation):
                _draw_rotation(axes, panel)
            else:
                _draw_temperature(axes, panel)
    return figure


def _draw_pattern(axes: Any, found: IRope) -> None:
    colour = {"C": COLOURS[4], "R": COLOURS[0], "W": COLOURS[3], "G": COLOURS[5], "L": COLOURS[6]}
    below = {"M": COLOURS[2], "D": "#c8ced4"}
    words = {**_KINDS, "M": "mixture of experts", "D": "dense"}
    seen: set[str] = set()
    for y, letters, colours in ((1, found.attention, colour), (0, found.feed_forward, below)):
        for index, letter in enumerate(letters):
            label = None if letter in seen else words[letter]
            seen.add(letter)
            axes.bar(index, 0.86, width=0.86, bottom=y - 0.43, color=colours[letter], label=label)
    axes.set_yticks([0, 1], ["feed-forward", "attention"])
    axes.set_xlim(-0.6, len(found.attention) - 0.4)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{found.name}: layer by layer", fontsize=11, loc="left")
    axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, -0.22), frameon=False, fontsize=9)


def _draw_rotation(axes: Any, rotation: Rotation) -> None:
    pairs = range(len(rotation.scaled))
    if rotation.plain != rotation.scaled:
        axes.plot(pairs, rotation.plain, color="#9aa4ae", linestyle="--", label="without scaling")
    axes.plot(
        pairs, rotation.scaled, color=COLOURS[0], marker=".", linestyle="none", label="as used"
    )
    if rotation.rope.scaling is not None:
        length = rotation.rope.scaling.original_length
        axes.axhline(length, color="#f3cf8a", linewidth=3, label=f"original length {length}")
    if rotation.chunk is not None:
        axes.axhline(
            rotation.chunk, color=COLOURS[5], linewidth=1, linestyle=":",
            label=f"chunk {rotation.chunk}",
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_title("rotation of each pair", fontsize=11, loc="left")
    axes.set_xlabel("pair")
    axes.set_ylabel("tokens per turn")
    axes.legend(frameon=False, fontsize=9)
    plain(axes)


def _draw_temperature(axes: Any, temperature: Temperature) -> None:
    axes.plot(
        [position + 1 for position in temperature.positions],
        temperature.factors,
        color=COLOURS[5],
        marker=".",
    )
    axes.set_xscale("log", base=2)
    marks = [2**power for power in range(12, 24, 2)] + [LAST]
    axes.set_xticks(marks, [_short(mark) for mark in marks])
    axes.set_title("factor on queries without positions", fontsize=11, loc="left")
    axes.set_xlabel("tokens before and with this one")
    axes.grid(axis="y", color="#e3e7eb")
    plain(axes)


def _short(number: int) -> str:
    return f"{number >> 20}M" if number >= 1 << 20 else f"{number >> 10}K"
