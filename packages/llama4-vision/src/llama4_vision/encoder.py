"""Encoder and adapter for anybody's model, without a text model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.assembly.assemble import DTYPES, making, usable_device
from llama4_core.checkpoints.assign import assign
from llama4_core.checkpoints.keys import PROJECTOR, vision_rows
from llama4_core.checkpoints.part import vision_part
from llama4_core.errors import CheckpointError, SpecError
from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.choose import Assembler
from llama4_core.plugins.overrides import Overrides
from llama4_core.plugins.report import AssemblyReport
from llama4_core.protocols.encoders import Encoded
from llama4_core.specs.model import VisionSpec
from llama4_vision.encoders.choose import encoder_and_adapter


class VisionEncoder(nn.Module):
    """Tiles in, features out: ``[B, C, S, S] -> [B, T, A]``; no catalogue to know, no text model.

    Weights are drawn as torch's own modules draw theirs; :meth:`load` takes those of a checkpoint.
    Their names are ``encoder.*`` and ``adapter.*``.

    Args:
        spec: the numbers, and the names of encoder and adapter.
        overrides: slot path globs -> component names or objects, for example
            ``{"adapter": "pooled-linear", "encoder.layers.*.attention.backend": "eager"}``.
        dtype: of the weights.
        device: where they are made; "meta" gives shapes without memory.
        run_on: device that the backends are chosen for; None for ``device``, or "cpu" on meta.
        plugins: the user's own plugin files.

    Attributes:
        spec: what it is.
        report: what runs in each slot, and why.
        tokens: T, features per tile.
        width: A, of the features.

    Raises:
        SpecError: an unknown dtype or device, or parts that do not fit the description.
        ComponentError: a part is unknown, refused or ambiguous.
        OverrideError: an override addresses nothing, or two clash.
    """

    def __init__(
        self,
        spec: VisionSpec,
        overrides: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        *,
        run_on: str | None = None,
        plugins: Sequence[str | Path] = (),
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise SpecError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
        target = usable_device(device)
        runs_on = run_on or ("cpu" if target.type == "meta" else target.type)
        parts = Assembler(
            catalogue().with_local(*plugins) if plugins else catalogue(),
            Overrides(overrides),
            dtype=dtype,
            device=runs_on,
            report=AssemblyReport(f"vision encoder {spec.encoder}", dtype, runs_on),
        )
        with making(target, DTYPES[dtype]):
            self.encoder, self.adapter = encoder_and_adapter(spec, parts)
        parts.finish()
        self.spec = spec
        self.report = parts.report
        self.tokens: int = self.adapter.tokens
        self.width: int = self.adapter.width
        self.eval()

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: str = "auto",
        device: str = "cpu",
        overrides: Mapping[str, Any] | None = None,
        *,
        format: str | None = None,  # noqa: A002 - the public name of the argument
        revision: str | None = None,
        max_positions: int | None = None,
        plugins: Sequence[str | Path] = (),
    ) -> VisionEncoder:
        """The encoder of a checkpoint, of which only the vision keys are read.

        The files are mapped: with ``dtype="auto"`` on a CPU no weight is read before it is used,
        and those of the text model never are.

        Args:
            path: a folder with a whole checkpoint, or with what ``llama4 extract CHECKPOINT --part
                vision`` wrote; the name of a model that ships with its weights; or a repository
                ``org/name`` in the local cache.
            dtype: "auto" keeps what is stored; or "float32", "bfloat16", "float16", "float64".
            device: where the weights go.
            overrides: as for the class. A part in the place of another draws its own weights.
            format: of a whole checkpoint; None finds out, except that "meta" has to be asked for.
            revision: branch, tag or commit of a repository.
            max_positions: longest context, for a params.json that does not say it.
            plugins: the user's own plugin files.

        Raises:
            CheckpointError: there is no such checkpoint, it has no encoder, or its weights are
                damaged or do not fit their description.
            SpecError: the description is not understood, or torch cannot use the device here.
            ComponentError: a part is unknown or refused.
            OverrideError: an override addresses nothing, or two clash.
        """
        if dtype != "auto" and dtype not in DTYPES:
            raise CheckpointError(
                f"dtype is {dtype!r}; expected 'auto' or one of {', '.join(DTYPES)}"
            )
        target = usable_device(device)
        spec, width, stored = vision_part(
            path, revision=revision, format=format, max_positions=max_positions
        )
        del stored[PROJECTOR]  # it leads into the text model
        for name, tensor in stored.items():
            if tensor.dtype not in DTYPES.values():
                raise CheckpointError(
                    f"{path}: {name} is stored as {tensor.dtype}, which nothing installed can run; "
                    f"expected one of {', '.join(DTYPES)}"
                )
        chosen = _stored_dtype(stored) if dtype == "auto" else dtype
        encoder = cls(spec, overrides, chosen, "meta", run_on=target.type, plugins=plugins)
        described = {row.ours for row in vision_rows(spec, width)} if overrides else None
        assign(encoder, stored, described, Path(path), cast=dtype != "auto", device=target)
        return encoder

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.parameters()).device

    def forward(self, tiles: Tensor, out_layers: Sequence[int] = ()) -> Encoded:
        """Encodes tiles, each for itself.

        Args:
            tiles: ``[B, C, S, S]`` in [-1, 1], as :class:`~llama4_vision.ImageProcessor` makes
                them; in any floating dtype, and of any number of pictures.
            out_layers: indices of the encoder's blocks whose outputs are wanted too.

        Returns:
            The adapter's features ``[B, T, A]``, and for each of ``out_layers`` the output
            ``[B, P, W]`` of that block.

        Raises:
            ModalityError: no tile or another shape, whole numbers, or a layer that does not exist.
        """
        if tiles.is_floating_point():
            tiles = tiles.to(self.dtype)
        features, hidden = self.encoder(tiles, out_layers)
        return Encoded(self.adapter(features), hidden)


def _stored_dtype(stored: Mapping[str, Tensor]) -> str:
    """The dtype that most numbers of the encoder are stored in."""
    counts: dict[torch.dtype, int] = {}
    for tensor in stored.values():
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.numel()
    return str(max(counts, key=lambda dtype: counts[dtype])).removeprefix("torch.")
