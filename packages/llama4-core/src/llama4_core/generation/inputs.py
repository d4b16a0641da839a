"""Pictures, films and their like in prompts: read by the model's modalities, fed as features.

Nothing here knows what a picture is. A part of a prompt goes to the modality that reads its kind;
what comes back are token ids for the prompt, and rows that the modality turns into features.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llama4_core.chat.messages import Image, Input
from llama4_core.errors import ModalityError
from llama4_core.model.features import FeatureCache
from llama4_core.model.fusion import input_dtype
from llama4_core.protocols.modalities import Modality, Reading


class ReadInput(NamedTuple):
    """One input of a prompt, with the modality that read it and will encode it."""

    modality: Modality
    reading: Reading


def modality_of(model: Any, part: Input) -> Modality:
    """The modality of ``model`` that reads ``part``.

    Raises:
        ModalityError: none does; it says why.
    """
    kind = type(part).__name__.lower()
    modalities: tuple[Modality, ...] = getattr(model, "modalities", ())
    for modality in modalities:
        if kind in modality.kinds:
            return modality
    for modality in modalities:
        if not modality.kinds:
            # Stands for one that is missing, and says which.
            modality.read([part], model.tokenizer)
    known = [f"{kind}s" for modality in modalities for kind in modality.kinds]
    raise ModalityError(
        f"got an input of kind '{kind}', but {model.spec.name} reads {' and '.join(known)} only; "
        "leave it out"
        if known
        else f"got an input of kind '{kind}', but {model.spec.name} is a text model; leave it out, "
        "or load a multimodal checkpoint"
    )


def read_inputs(model: Any, parts: Sequence[Input]) -> tuple[ReadInput, ...]:
    """Reads all inputs of one prompt, in one call per modality.

    Args:
        model: with ``modalities``.
        parts: in the order of the prompt.

    Raises:
        ModalityError: no modality reads a part, it cannot be read, or a modality breaks its
            contract.
    """
    owners = [modality_of(model, part) for part in parts]
    found: list[ReadInput | None] = [None] * len(parts)
    for modality in dict.fromkeys(owners):
        mine = [index for index, owner in enumerate(owners) if owner is modality]
        readings = modality.read([parts[index] for index in mine], model.tokenizer)
        if len(readings) != len(mine):
            raise ModalityError(
                f"{type(modality).__name__} gave {len(readings)} readings of {len(mine)} inputs; "
                "expected one for each"
            )
        for index, reading in zip(mine, readings, strict=True):
            if reading.tokens.count(modality.placeholder) != reading.places:
                raise ModalityError(
                    f"{type(modality).__name__} gave tokens with "
                    f"{reading.tokens.count(modality.placeholder)} placeholders for "
                    f"{reading.places} features; expected as many"
                )
            found[index] = ReadInput(modality, reading)
    return tuple(one for one in found if one is not None)


def read_pixels(
    model: Any, pixel_values: Any, prompts: Sequence[Sequence[int]]
) -> list[tuple[ReadInput, ...]]:
    """Shares ready-made tiles out among the placeholder tokens of prompts of ids.

    Args:
        model: with a modality that reads images.
        pixel_values: ``[tiles, ...]``, those of all prompts in order.
        prompts: ids of each.

    Returns:
        For each prompt its inputs: one for all of its tiles, or none.

    Raises:
        ModalityError: the model reads no images, this is no batch of tiles, or tiles and
            placeholder tokens do not fit.
    """
    modality = modality_of(model, Image())
    try:
        tiles = torch.as_tensor(pixel_values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModalityError(
            f"pixel_values are a {type(pixel_values).__name__} ({error}); expected a tensor "
            "[tiles, channels, height, width]"
        ) from error
    if tiles.dim() < 2 or not len(tiles):
        raise ModalityError(
            f"pixel_values have shape {list(tiles.shape)}; expected [tiles, channels, height, "
            "width], at least one tile"
        )
    counts = [tuple(prompt).count(modality.placeholder) for prompt in prompts]
    each, rest = divmod(sum(counts), len(tiles))
    if rest or not each:
        raise ModalityError(
            f"got {len(tiles)} tiles for {sum(counts)} placeholder tokens (id "
            f"{modality.placeholder}); expected the same number of tokens for each tile"
        )
    found: list[tuple[ReadInput, ...]] = []
    start = 0
    for row, count in enumerate(counts):
        if count % each:
            raise ModalityError(
                f"prompt {row} holds {count} placeholder tokens (id {modality.placeholder}), with "
                f"{each} of them to a tile; expected whole tiles"
            )
        mine = tiles[start : start + count // each]
        start += len(mine)
        reading = Reading(_key(mine), (), count, mine)
        found.append((ReadInput(modality, reading),) if count else ())
    return found


def check_inputs(model: Any, tokens: Sequence[int], inputs: Sequence[ReadInput], row: int) -> None:
    """Raises unless the placeholder tokens of a prompt are those of its inputs.

    Raises:
        ModalityError: with both numbers.
    """
    for modality in getattr(model, "modalities", ()):
        places = sum(one.reading.places for one in inputs if one.modality is modality)
        count = tokens.count(modality.placeholder)
        if count != places:
            raise ModalityError(
                f"prompt {row} holds {count} placeholder tokens (id {modality.placeholder}) for "
                f"{places} features of its inputs; expected one for each: let the model write them "
                "(images=, or Image(...) in the prompt), or pass pixel_values= for the ids as they "
                "are"
            )


class Features:
    """The features of a batch of prompts, handed out as the prompts are fed.

    Args:
        model: whose modalities encode, and whose cache is asked first.
        rows: the inputs of each prompt, in order.
    """

    def __init__(self, model: Any, rows: Iterable[Sequence[ReadInput]]) -> None:
        listed = [list(row) for row in rows]
        self._waiting: list[dict[int, deque[Tensor]]] = [{} for _ in listed]
        cache = getattr(model, "features", None)
        if not isinstance(cache, FeatureCache):
            cache = FeatureCache(0)
        modalities = {id(one.modality): one.modality for row in listed for one in row}
        for modality in modalities.values():
            places = [
                (row, one.reading)
                for row, inputs in enumerate(listed)
                for one in inputs
                if one.modality is modality
            ]
            encoded = cache.encode(
                modality,
                [reading for _, reading in places],
                device=model.device,
                dtype=input_dtype(modality, getattr(model, "dtype", None)),
            )
            for (row, _), features in zip(places, encoded, strict=True):
                waiting = self._waiting[row].setdefault(modality.placeholder, deque())
                waiting.append(features)

    def take(self, pieces: Sequence[Sequence[int]]) -> dict[int, Tensor]:
        """The features of the next tokens of each row.

        Args:
            pieces: the next ids of each row; an input may be cut in the middle.

        Returns:
            Placeholder -> ``[M, D]``, in the order of the flat stream; nothing for a placeholder
            without a feature here.
        """
        found: dict[int, list[Tensor]] = {}
        for waiting, piece in zip(self._waiting, pieces, strict=True):
            for placeholder, queue in waiting.items():
                count = piece.count(placeholder)
                while count:
                    features = queue.popleft()
                    found.setdefault(placeholder, []).append(features[:count])
                    if len(features) > count:
                        queue.appendleft(features[count:])
                    count = max(0, count - len(features))
        with torch.inference_mode():
            return {placeholder: torch.cat(parts) for placeholder, parts in found.items()}


def _key(tiles: Tensor) -> str:
    """Equal for equal tiles."""
    plain = tiles.contiguous().cpu()
    digest = hashlib.blake2b(plain.flatten().view(torch.uint8).numpy().tobytes(), digest_size=16)
    return f"tiles {tiles.dtype} {list(tiles.shape)} {digest.hexdigest()}"
