"""Features of inputs, encoded once and kept: the second question about a picture costs no encoder.

Reading an input gives a key; encoding is a function of that key and of the modality's weights. So
features are kept by key, and forgotten as soon as the modality is not what it was.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.errors import ModalityError
from llama4_core.protocols.modalities import Modality, Reading

DEFAULT_LIMIT = 256 * 2**20
"""Bytes that a new cache may keep: about ten of Scout's largest pictures (17 tiles of 144 features
of 5,120 numbers in bfloat16 are 25 MB each)."""

PIECES_AT_ONCE = 16
"""Most rows of ``inputs`` (tiles) in one forward of a modality.

With Scout's encoder a tile is 577 places, and the widest activation of a block 5,632 numbers for
each: 104 MB for 16 tiles in bfloat16, whatever the number of pictures. The products have 9,232 rows
by then, which keeps any kernel busy: measured on one thread of a CPU in float32, two of its layers
took 0.79 s a tile one by one, 0.72 s in sixteens (640 MB) and 0.82 s in batches of 32 (1,280 MB).
"""


class FeatureCache:
    """Encoded features by the key of their input: the least recently used go first.

    It serves forwards without gradients only: ``generate``, ``stream`` and ``chat``. Features are
    never older than the modality: any change of its modules, parameters and buffers that torch
    counts (an optimizer step, ``load_state_dict``, ``to``, a part put in another's place) empties
    it. An edit through ``parameter.data`` is hidden from torch and asks for :meth:`clear`. A
    modality is never served from it in training mode, in which it may drop out at random, nor
    while it has forward hooks, which want to see each forward. Safe to use from several threads.

    Args:
        limit: most bytes to keep; 0 keeps nothing.

    Attributes:
        nbytes: of the features that are kept.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.nbytes = 0
        self._kept: OrderedDict[tuple[int, str], Tensor] = OrderedDict()
        self._states: dict[int, _State] = {}
        self._lock = threading.Lock()
        self.limit = limit

    @property
    def limit(self) -> int:
        """Most bytes to keep; a smaller one takes effect at once.

        Raises:
            ModalityError: set to something else than a whole number of at least 0.
        """
        return self._limit

    @limit.setter
    def limit(self, value: int) -> None:
        if type(value) is not int or value < 0:
            raise ModalityError(
                f"the limit of kept features is {value!r:.80}; expected a whole number of bytes, 0 "
                "to keep none"
            )
        with self._lock:
            self._limit = value
            self._shrink()

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> tuple[Any, ...]:
        # Copies and files of a model carry no features: they could be had again at any time.
        return FeatureCache, (self.limit,)

    def clear(self) -> None:
        """Forgets all features."""
        with self._lock:
            self._kept.clear()
            self.nbytes = 0

    def encode(
        self,
        modality: Modality,
        readings: Sequence[Reading],
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> list[Tensor]:
        """The features of readings, encoding only what is not kept, and nothing twice.

        Args:
            modality: that made the readings.
            readings: in any order, equal ones among them.
            device: where the modality is; None leaves inputs where they are.
            dtype: of the modality's weights; None leaves inputs as they are.

        Returns:
            ``[places, D]`` for each reading, in order, without gradients.

        Raises:
            ModalityError: the modality gives another number of features than ``places``.
        """
        place = modality.placeholder
        state = _State.of(modality, device, dtype)
        with self._lock:
            if self._states.get(place) != state:
                self._forget(place)
                if state is None:
                    self._states.pop(place, None)
                else:
                    self._states[place] = state
            found: dict[str, Tensor] = {}
            for reading in readings:
                if (place, reading.key) in self._kept:
                    self._kept.move_to_end((place, reading.key))
                    found[reading.key] = self._kept[place, reading.key]
        missing = {one.key: one for one in readings if one.key not in found}
        new = encode(modality, list(missing.values()), device=device, dtype=dtype)
        found.update(zip(missing, new, strict=True))
        # The weights may have changed while they were used; what came out is then nobody's.
        if state is not None and state == _State.of(modality, device, dtype):
            with self._lock:
                if self._states.get(place) == state:
                    for key in missing:
                        self._keep((place, key), found[key])
        return [found[reading.key] for reading in readings]

    def _keep(self, key: tuple[int, str], features: Tensor) -> None:
        if key not in self._kept and features.nbytes <= self._limit:
            self._kept[key] = features
            self.nbytes += features.nbytes
            self._shrink()

    def _shrink(self) -> None:
        while self.nbytes > self._limit:
            _, features = self._kept.popitem(last=False)
            self.nbytes -= features.nbytes

    def _forget(self, place: int) -> None:
        for key in [key for key in self._kept if key[0] == place]:
            self.nbytes -= self._kept.pop(key).nbytes


def encode(
    modality: Modality,
    readings: Sequence[Reading],
    *,
    device: Any = None,
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """Features of readings, at most :data:`PIECES_AT_ONCE` pieces of input in a forward.

    Args:
        modality: that made the readings.
        readings: whose ``inputs [B, ...]`` have equal shapes but for B.
        device: where the modality is; None leaves inputs where they are.
        dtype: of the modality's weights; None leaves inputs as they are.

    Returns:
        ``[places, D]`` for each reading, each in memory of its own, without gradients.

    Raises:
        ModalityError: the modality gives another number of features than ``places``.
    """
    found: list[list[Tensor]] = [[] for _ in readings]
    for pieces in _batches([reading.inputs for reading in readings]):
        inputs = torch.cat([readings[index].inputs[rows] for index, rows in pieces])
        with torch.inference_mode():
            # Whole numbers (of an encoder that looks up a table) stay what they are.
            kind = dtype if inputs.is_floating_point() else None
            features = modality(inputs.to(device=device, dtype=kind))
        if features.dim() != 3 or len(features) != len(inputs):
            raise ModalityError(
                f"{type(modality).__name__} gave features of shape {list(features.shape)} for "
                f"{len(inputs)} inputs; expected [{len(inputs)}, T, D]"
            )
        counts = [rows.stop - rows.start for _, rows in pieces]
        for (index, _), part in zip(pieces, features.split(counts), strict=True):
            found[index].append(part.flatten(0, 1))
    done = []
    for reading, parts in zip(readings, found, strict=True):
        got = sum(len(part) for part in parts)
        if got != reading.places or not parts:
            raise ModalityError(
                f"{type(modality).__name__} gave {got} features for an input of {reading.places} "
                "placeholder tokens; expected one for each"
            )
        with torch.inference_mode():
            # A copy even of a single part: a view would keep those of the whole batch.
            done.append(torch.cat(parts) if len(parts) > 1 else parts[0].clone())
    return done


def _batches(inputs: Sequence[Tensor]) -> Iterable[list[tuple[int, slice]]]:
    """Which rows of which inputs go into each forward, in order."""
    batch: list[tuple[int, slice]] = []
    room = PIECES_AT_ONCE
    for index, one in enumerate(inputs):
        start = 0
        while start < len(one):
            stop = min(len(one), start + room)
            batch.append((index, slice(start, stop)))
            room -= stop - start
            start = stop
            if room == 0:
                yield batch
                batch, room = [], PIECES_AT_ONCE
    if batch:
        yield batch


class _State:
    """All of a modality that torch lets one see a change of.

    Tensors and modules are held weakly and compared by identity, so that an object made later at
    the same address is another one.
    """

    def __init__(
        self,
        facts: tuple[Any, ...],
        objects: list[weakref.ref[Any]],
        versions: list[tuple[int, int, torch.dtype]],
    ) -> None:
        self.facts = facts
        self.objects = objects
        self.versions = versions

    @classmethod
    def of(cls, modality: Modality, device: Any, dtype: torch.dtype | None) -> _State | None:
        """The state now; None where changes cannot be seen, or each forward is wanted."""
        if not isinstance(modality, nn.Module):
            return None
        objects: list[weakref.ref[Any]] = []
        versions: list[tuple[int, int, torch.dtype]] = []
        for module in modality.modules():
            if module.training or module._forward_hooks or module._forward_pre_hooks:
                return None
            objects.append(weakref.ref(module))
            for tensors in (module._parameters, module._buffers):
                for tensor in tensors.values():
                    if tensor is None:
                        continue
                    if tensor.is_inference():
                        return None  # torch counts no versions of these
                    objects.append(weakref.ref(tensor))
                    # `to` puts other data under the same parameter and counts no version.
                    versions.append((tensor._version, tensor.data_ptr(), tensor.dtype))
        kind = torch.device("cpu" if device is None else device).type
        cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        return cls((str(device), dtype, cast), objects, versions)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _State)
            and self.facts == other.facts
            and self.versions == other.versions
            and len(self.objects) == len(other.objects)
            and all(
                mine() is theirs() and mine() is not None
                for mine, theirs in zip(self.objects, other.objects, strict=True)
            )
        )

    __hash__ = None  # type: ignore[assignment]
