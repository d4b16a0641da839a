"""Bugs of whole shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from llama4_core.specs.model import LayerSpec, ModelSpec
from llama4_core.specs.presets import preset
from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant


def _wrong_phase() -> ModelSpec:
    spec = preset("scout")
    return replace(spec, layers=(*spec.layers[1:], spec.layers[0]))


def _warm_everywhere() -> ModelSpec:
    spec = preset("scout")
    warm = spec.layers[3].attention.temperature

    def warmed(layer: LayerSpec) -> LayerSpec:
        return replace(layer, attention=replace(layer.attention, temperature=warm))

    return replace(spec, layers=tuple(warmed(layer) for layer in spec.layers))


def _unknown_variant() -> ModelSpec:
    spec = preset("guard")  # dense: core alone can assemble the rest
    first = spec.layers[0]
    broken = replace(first, attention=replace(first.attention, variant="no-such"))
    return replace(spec, layers=(broken, *spec.layers[1:]))


def _mutant(bug: str, check: str, build: Callable[[], ModelSpec]) -> Mutant:
    return Mutant(bug, check, Subject("models", bug, build))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("wrong phase of position-free layers", "layer-pattern", _wrong_phase),
    _mutant("temperature on every layer", "layer-pattern", _warm_everywhere),
    _mutant("a variant that does not exist", "assembles", _unknown_variant),
)
