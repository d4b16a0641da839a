"""The image encoder beside transformers' ``Llama4VisionModel``: one thread, CPU time, one run.

    python benchmarks/encoder.py [--dtypes bfloat16 float32] [--tiles 8] [--layers 4] [--rounds 3]
                                 [--json results.json]

Random weights at full width (1,408 wide, 16 heads, MLP 5,632, tiles of 336 with patches of 14, so
577 places; pixel shuffle and an adapter to 4,096), but ``--layers`` blocks instead of 34: all
blocks are alike, and 34 of them take minutes. Both sides have equal weights and get the same
tiles, ours and theirs in turn after a pass of each that is not timed; ratios are medians over
neighbouring runs of ``time.thread_time``. The features of both are compared.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
from pathlib import Path
from typing import Any

import torch
from _measure import paired, probes, seconds, write
from torch import Tensor, nn

from llama4_core.checkpoints.keys import vision_rows
from llama4_core.specs.model import VisionSpec
from llama4_vision import VisionEncoder

TARGETS = {"bfloat16": 1.0, "float32": 1.0}


def spec_of(layers: int) -> VisionSpec:
    """The published encoder with this many blocks."""
    return VisionSpec(
        width=1408, layers=layers, heads=16, mlp_width=5632, image_size=336, patch_size=14,
        channels=3, shuffle_ratio=0.5, adapter_width=4096, adapter_output=4096, theta=1e4,
        norm_eps=1e-5,
    )  # fmt: skip


def theirs_of(spec: VisionSpec, dtype: str) -> nn.Module:
    """transformers' encoder and adapter, random, made in the dtype as ``from_pretrained`` does.

    Converted afterwards it would lose the imaginary half of its rotations.
    """
    from transformers import Llama4VisionConfig, Llama4VisionModel

    torch.manual_seed(0)
    config = Llama4VisionConfig(
        hidden_size=spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.mlp_width,
        image_size=spec.image_size,
        patch_size=spec.patch_size,
        pixel_shuffle_ratio=spec.shuffle_ratio,
        projector_input_dim=spec.adapter_width,
        projector_output_dim=spec.adapter_output,
        vision_output_dim=spec.adapter_output,
    )
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        return Llama4VisionModel(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def ours_of(spec: VisionSpec, theirs: nn.Module, dtype: str) -> VisionEncoder:
    """Ours with the same weights."""
    stored = theirs.state_dict()
    ours = VisionEncoder(spec, dtype=dtype)
    ours.load_state_dict(
        {
            row.ours: stored[row.theirs.removeprefix("vision_model.")]
            for row in vision_rows(spec, 1)
            if row.theirs.startswith("vision_model.")
        }
    )
    return ours


def measure(dtype: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both sides in turn."""
    spec = spec_of(arguments.layers)
    theirs = theirs_of(spec, dtype)
    ours = ours_of(spec, theirs, dtype)
    size = spec.image_size
    source = torch.Generator().manual_seed(1)
    tiles = torch.rand(arguments.tiles, 3, size, size, generator=source) * 2 - 1
    tiles = tiles.to(getattr(torch, dtype))
    found: dict[str, Tensor] = {}

    def mine() -> None:
        found["ours"] = ours(tiles).features

    def peer() -> None:
        found["theirs"] = theirs(tiles).last_hidden_state

    mine()
    peer()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(arguments.rounds):
        times["ours"].append(seconds(mine))
        times["theirs"].append(seconds(peer))
    error = (found["ours"].float() - found["theirs"].float()).abs().max()
    row = {"dtype": dtype, **paired(times["ours"], times["theirs"]), "runs": arguments.rounds}
    row["largest difference"] = float(error)
    row["largest feature"] = float(found["theirs"].float().abs().max())
    return {**row, "target": TARGETS[dtype]}


def main() -> None:
    """Runs the dtypes and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtypes", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--tiles", type=int, default=8)
    parser.add_argument("--layers", type=int, default=4, help="blocks; the published encoder: 34")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        roof = probes()
        print("probes:", {name: round(value, 1) for name, value in roof.items()}, flush=True)
        rows = []
        for dtype in arguments.dtypes:
            row = measure(dtype, arguments)
            rows.append(row)
            print(
                f"{dtype:8} {arguments.tiles} tiles, {arguments.layers} blocks: ours "
                f"{row['ours s']:6.2f} s, transformers {row['peer s']:6.2f} s: "
                f"{row['ratio']:5.2f}x ({row['lowest']:.2f} to {row['highest']:.2f}; "
                f"target {row['target']})",
                flush=True,
            )
    write(arguments.json, vars(arguments), roof, rows)


if __name__ == "__main__":
    main()
