"""Meta's folders: ``params.json`` and one ``consolidated.NN.pth`` for each shard.

These files are pickle. They are read without running anything (``torch_file``), and still only
when asked for: ``load(folder, format="meta")``, ``llama4 convert --from meta``.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llama4_core.checkpoints.formats import SHARD_BYTES
from llama4_core.checkpoints.joined import gathered, join
from llama4_core.checkpoints.keys import check_keys, native_shapes
from llama4_core.checkpoints.legacy import NEW_POSITIONS, OLD_POSITIONS, new_positions
from llama4_core.checkpoints.meta_keys import JUNK, MetaRow, meta_rows
from llama4_core.checkpoints.plan import Plan, TorchPlan
from llama4_core.checkpoints.shards import Progress, read_json
from llama4_core.checkpoints.stream import Journal, fill
from llama4_core.checkpoints.torch_file import read_tensors
from llama4_core.errors import CheckpointError
from llama4_core.specs import ModelSpec, TokenIds, VisionSpec
from llama4_core.specs.find import folder_name
from llama4_core.specs.meta import meta_from_spec, spec_from_meta

if TYPE_CHECKING:
    from llama4_core.checkpoints.joined import Weight

log = logging.getLogger(__name__)

PARAMS = "params.json"
TOKENS = "token_ids.json"
_SHARD = re.compile(r"consolidated\.(\d{2,})\.pth")

# Of Meta's published tokenizer, which all checkpoints with its vocabulary share. Source: the list
# of special tokens in llama-models, models/llama4/tokenizer.py.
_PUBLISHED_VOCABULARY = 202_048
_PUBLISHED_TOKENS = TokenIds(
    bos=200_000,
    eos=(200_001, 200_007, 200_008),
    pad=200_018,
    image=200_092,
    image_start=200_080,
    image_end=200_081,
)


class MetaFormat:
    """Reads and writes what Meta's reference code loads, in any number of shards.

    params.json has no place for token ids. A small ``token_ids.json`` beside it holds them; without
    it, a model with the published vocabulary gets the published ids, another none.
    """

    # Why detection does not take this format by itself.
    on_request = "its weights are pickle files"
    takes_max_positions = True
    tokenizer_file = "tokenizer.model"

    def detect(self, folder: Path) -> bool:
        """A params.json and at least one shard."""
        return (folder / PARAMS).is_file() and bool(shard_paths(folder))

    def read_spec(self, folder: Path, max_positions: int | None = None) -> ModelSpec:
        """Reads ``params.json``; ``max_positions`` is the longest context where it is silent."""
        path = folder / PARAMS
        params = read_json(path)
        name = folder_name(folder)
        spec = spec_from_meta(params, str(path), max_positions=max_positions, name=name)
        tokens = _read_tokens(folder, spec)
        if spec.vision is None:
            tokens = replace(tokens, image=None, image_start=None, image_end=None)
        return replace(spec, tokens=tokens)

    def weights(self, folder: Path, spec: ModelSpec) -> Mapping[str, Weight]:
        """Canonical name -> weight, joined over the shards on paper only.

        Raises:
            CheckpointError: a shard is missing or damaged, or its keys do not fit the spec.
        """
        paths = shard_paths(folder)
        expected = [f"consolidated.{number:02d}.pth" for number in range(len(paths))]
        if not paths or [path.name for path in paths] != expected:
            raise CheckpointError(
                f"{folder}: holds {', '.join(path.name for path in paths) or 'no shards'}; "
                f"expected consolidated.00.pth and on, without gaps; fetch what is missing"
            )
        rows = meta_rows(spec, len(paths))
        shards = [_read_shard(path, rows, spec) for path in paths]
        shapes = native_shapes(spec)
        # Ranges of our weights: name -> start -> (axis, weight).
        ranges: dict[str, dict[int, tuple[int, Weight]]] = {name: {} for name in shapes}
        for row in rows:
            held = [shard[row.theirs] for shard in shards]
            dtypes = {tensor.dtype for tensor in held}
            if len(dtypes) > 1:
                raise CheckpointError(
                    f"{folder}: {row.theirs} is {' and '.join(map(str, sorted(dtypes, key=str)))} "
                    "in different shards; the shards are not of one checkpoint"
                )
            if row.shared and not all(torch.equal(held[0], other) for other in held[1:]):
                log.warning(
                    "%s: %s differs between shards, where all should agree; the first is taken",
                    folder, row.theirs,
                )  # fmt: skip
            _collect(row, held, ranges)
        return {
            name: join([weight for _, (_, weight) in sorted(found.items())],
                       next(iter(found.values()))[0])
            for name, found in ranges.items()
        }  # fmt: skip

    def tensors(self, folder: Path, spec: ModelSpec) -> Mapping[str, Tensor]:
        """Canonical name -> tensor; what several files hold is joined in memory."""
        return {name: gathered(weight) for name, weight in self.weights(folder, spec).items()}

    def plan(
        self,
        weights: Mapping[str, Weight],
        spec: ModelSpec,
        *,
        shard_bytes: int = SHARD_BYTES,
        shards: int | None = None,
    ) -> Plan:
        """The files that :meth:`write` writes; the number of shards, not their size, is chosen.

        Raises:
            CheckpointError, SpecError: the format cannot hold the model, or not in so many shards.
        """
        count = 1 if shards is None else shards
        params = meta_from_spec(spec)
        rows = meta_rows(spec, count)
        check_keys(
            {name: tuple(weight.shape) for name, weight in weights.items()},
            native_shapes(spec),
            f"{PARAMS}: Meta's format",
        )
        files = tuple(
            TorchPlan(
                f"consolidated.{number:02d}.pth",
                {row.theirs: _cut(row, weights, number, count) for row in rows},
                {row.theirs: row.shape for row in rows},
            )
            for number in range(count)
        )
        texts = {PARAMS: json.dumps(params, indent=2) + "\n"}
        if spec.tokens != TokenIds():
            texts[TOKENS] = json.dumps(asdict(spec.tokens), indent=2) + "\n"
        return Plan(files, texts)

    def write(
        self,
        tensors: Mapping[str, Tensor],
        spec: ModelSpec,
        folder: Path,
        *,
        shard_bytes: int = SHARD_BYTES,
        progress: Progress | None = None,
    ) -> None:
        """Writes one shard and the description."""
        fill(self.plan(tensors, spec), folder, Journal(), progress)


def shard_paths(folder: Path) -> list[Path]:
    """The shards in ``folder``, by number."""
    found = [path for path in folder.iterdir() if _SHARD.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.split(".")[1]))


def _read_tokens(folder: Path, spec: ModelSpec) -> TokenIds:
    path = folder / TOKENS
    if not path.is_file():
        return _PUBLISHED_TOKENS if spec.vocabulary == _PUBLISHED_VOCABULARY else TokenIds()
    content = read_json(path)
    names = {field.name for field in fields(TokenIds)}

    def is_id(value: object) -> bool:
        return type(value) is int and 0 <= value < spec.vocabulary

    for name, value in content.items():
        if name not in names:
            raise CheckpointError(f"{path}: {name!r} is not one of {', '.join(sorted(names))}")
        many = name == "eos"
        sound = isinstance(value, list) and all(map(is_id, value)) if many else (
            value is None or is_id(value)
        )  # fmt: skip
        if not sound:
            raise CheckpointError(
                f"{path}: {name} is {value!r}; expected {'a list of ids' if many else 'an id'} "
                f"below {spec.vocabulary}"
            )
    return TokenIds(**{**content, "eos": tuple(content.get("eos", ()))})


def _read_shard(path: Path, rows: list[MetaRow], spec: ModelSpec) -> dict[str, Tensor]:
    """The tensors that ``rows`` name, under their first names."""
    stored = read_tensors(path)
    if spec.vision is not None and OLD_POSITIONS in stored:
        _renew_positions(stored, spec.vision, path)
    junk = [name for name in stored if JUNK.search(name)]
    for name in junk:
        del stored[name]
    if junk:
        log.info("%s: %d buffers of training are left out: %s, ...", path, len(junk), junk[0])
    for row in rows:
        there = [name for name in (row.theirs, *row.aliases) if name in stored]
        if len(there) > 1:
            raise CheckpointError(f"{path}: holds both {there[0]} and {there[1]}; expected one")
        if there:
            stored[row.theirs] = stored.pop(there[0])
    check_keys(
        {name: tuple(tensor.shape) for name, tensor in stored.items()},
        {row.theirs: row.shape for row in rows},
        str(path),
    )
    return stored


def _renew_positions(stored: dict[str, Tensor], vision: VisionSpec, path: Path) -> None:
    """Puts the older positions of the encoder into today's form."""
    if NEW_POSITIONS in stored:
        raise CheckpointError(
            f"{path}: holds both {OLD_POSITIONS} and {NEW_POSITIONS}; expected one"
        )
    side = vision.image_size // vision.patch_size
    try:
        stored[NEW_POSITIONS] = new_positions(stored.pop(OLD_POSITIONS), side, side)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    log.info("%s: the older positions of the image encoder are resampled", path)


def _collect(
    row: MetaRow, held: list[Tensor], ranges: dict[str, dict[int, tuple[int, Weight]]]
) -> None:
    """Takes one of Meta's keys apart into ranges of our weights."""
    if row.shared:
        held = held[:1]
    laid = []
    for tensor in held:
        if row.stacked:
            tensor = tensor.unflatten(0, (row.stacked, -1))
        laid.append(tensor.transpose(-2, -1) if row.swapped else tensor)
    begin = 0
    for source in row.sources:
        length = source.length // len(held)
        if len(row.sources) > 1:
            parts = [tensor.narrow(0, begin, length) for tensor in laid]
            begin += length
        else:
            parts = laid
        ranges[source.ours][source.start] = (source.axis, join(parts, source.axis))


def _cut(row: MetaRow, weights: Mapping[str, Weight], number: int, count: int) -> Weight:
    """What shard ``number`` of ``count`` holds of a row."""
    if row.shared:
        number, count = 0, 1
    parts = []
    for source in row.sources:
        length = source.length // count
        weight = weights[source.ours]
        parts.append(weight.narrow(source.axis, source.start + number * length, length))
    whole = join(parts, 0)
    return whole.transpose(-2, -1) if row.swapped else whole
