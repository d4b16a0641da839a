"""Another description for the same weights: chunk, temperature and longest context.

Nothing of these is a weight, so a model that was trained with one setting can be measured or
trained on with another. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from llama4_core.errors import SpecError
from llama4_core.specs.model import AttentionSpec, ModelSpec, TemperatureSpec
from llama4_train.errors import RecipeError

_POSITION_FREE = "nope-global"


def respec(
    spec: ModelSpec,
    *,
    chunk: int | None = None,
    temperature: float | None = None,
    floor: float | None = None,
    max_positions: int | None = None,
) -> ModelSpec:
    """The same model with some numbers changed, in the layers that have them.

    Args:
        spec: the model.
        chunk: size of the blocks of the chunked layers, in positions.
        temperature: scale of the attention temperature of the position-free layers; 0 turns it
            off, exactly.
        floor: positions until the temperature first changes. A model without temperature needs
            both, unless the scale is 0.
        max_positions: longest context.

    Returns:
        A description with the same weights. What is None stays as it is.

    Raises:
        RecipeError: no layer has what is to be changed, or a value is none.
    """
    found = spec
    try:
        if chunk is not None:
            found = _changed(found, chunked, "chunked layer", lambda one: replace(one, chunk=chunk))
        if temperature is not None or floor is not None:
            found = _changed(
                found,
                position_free,
                "position-free layer",
                lambda one: replace(one, temperature=_tempered(one, temperature, floor)),
            )
        if max_positions is not None:
            found = replace(found, max_positions=max_positions)
    except RecipeError:
        raise
    except SpecError as error:
        raise RecipeError(f"{spec.name} cannot be changed: {error}") from error
    return found


def chunked(attention: AttentionSpec) -> bool:
    """Whether a layer sees blocks of positions."""
    return attention.chunk is not None


def position_free(attention: AttentionSpec) -> bool:
    """Whether a layer has, or can have, an attention temperature."""
    return attention.temperature is not None or attention.variant == _POSITION_FREE


def _changed(spec: ModelSpec, chosen: Any, what: str, change: Any) -> ModelSpec:
    if not any(chosen(layer.attention) for layer in spec.layers):
        raise RecipeError(
            f"{spec.name} has no {what}, so nothing of it can be changed; leave the setting out"
        )
    layers = tuple(
        replace(layer, attention=change(layer.attention)) if chosen(layer.attention) else layer
        for layer in spec.layers
    )
    return replace(spec, layers=layers)


def _tempered(
    attention: AttentionSpec, scale: float | None, floor: float | None
) -> TemperatureSpec | None:
    before = attention.temperature
    if before is None and scale == 0 and not isinstance(scale, bool):
        return None if floor is None else TemperatureSpec(0.0, floor)
    if before is None and (scale is None or floor is None):
        raise RecipeError(
            f"temperature is {scale} and floor is {floor}, but the model has neither yet; expected "
            "both, such as temperature 0.1 with a floor of the training length"
        )
    if before is None:
        return TemperatureSpec(_given(scale), _given(floor))
    return TemperatureSpec(
        before.scale if scale is None else scale, before.floor if floor is None else floor
    )


def _given(value: float | None) -> float:
    if value is None:
        raise RecipeError("temperature needs a scale and a floor; expected both")
    return value


@contextmanager
def as_spec(model: Any, spec: ModelSpec) -> Iterator[Any]:
    """Lets a model run by another description for a while; weights and all other parts stay.

    Only the attention variants of the layers that differ are built anew, by the components that
    they were built by before.

    Args:
        model: assembled.
        spec: of :func:`respec`.

    Yields:
        The same model.

    Raises:
        RecipeError: the descriptions differ in more than :func:`respec` changes, or a layer's
            variant was handed in as an object.
    """
    before = model.spec
    _check_same(before, spec)
    kept = []
    try:
        for index, (old, new) in enumerate(zip(before.layers, spec.layers, strict=True)):
            if old != new:
                fresh = _variant(model, index, new.attention)
                kept.append((index, model.layers[index].attention.variant))
                model.layers[index].attention.variant = fresh
        model.spec = spec
        model.find_rotations()
        yield model
    finally:
        for index, variant in kept:
            model.layers[index].attention.variant = variant
        model.spec = before
        model.find_rotations()


def _check_same(before: ModelSpec, after: ModelSpec) -> None:
    layers = tuple(
        replace(
            new,
            attention=replace(
                new.attention, chunk=old.attention.chunk, temperature=old.attention.temperature
            ),
        )
        for old, new in zip(before.layers, after.layers, strict=False)
    )
    if (
        len(before.layers) != len(after.layers)
        or replace(after, layers=layers, max_positions=before.max_positions) != before
    ):
        raise RecipeError(
            f"{after.name} differs from the model {before.name} in more than chunk, temperature "
            "and longest context; assemble it as a model of its own"
        )


def _variant(model: Any, index: int, attention: AttentionSpec) -> Any:
    """A new variant of one layer, from whoever made the present one."""
    slot = f"layers.{index}.attention.variant"
    choice = model.report.choices.get(slot)
    provider = choice.rows[0].provider if choice is not None and choice.rows else None
    if provider is None or provider.distribution == "object":
        raise RecipeError(
            f"{slot} is {'unknown' if provider is None else str(provider)}, which cannot be built "
            "again with other numbers; assemble the model with the description that you want"
        )
    name = f"{provider.distribution}/{provider.name}"
    fresh = model.catalogue.find("attention_variants", name).component.build(
        attention, model.spec.norm_eps
    )
    old = model.layers[index].attention.variant
    fresh.load_state_dict(old.state_dict(), assign=True)
    return fresh.train(old.training)
