"""From a picture's file to tiles: reading, resizing, cutting, beside two other ways.

    python benchmarks/images.py [--width 4000] [--height 3000] [--quality 90] [--pairs 15]
                                [--json results.json]

open      the bytes of a JPEG to an upright RGB picture: decoding
key       the hash by which features are cached, alone
resize    to the grid of tiles and to the global tile, in 8 bits, in one pass over the picture
cut       tiles in float32, padded and scaled to [-1, 1]
tiles     resize and cut: all that follows the decoding
whole     the bytes to tiles, without the key, and with it (hashed while rows are resized)

The picture is made here: gradients, waves, edges and grain, as large a file as a camera's. Peers
for ``tiles`` are what is at hand without torchvision: Pillow's resize with numpy's arithmetic, and
torch's resize in float32. Times are CPU time of the process on one thread; ours and each peer run
in turn, and ratios are medians over neighbouring runs. Tiles of the peers are compared, too: no
pixel may differ by more than one level.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torch.nn.functional as F
from _measure import paired, probes, write
from PIL import Image, features

from llama4_vision.images.key import image_key
from llama4_vision.images.open import open_image
from llama4_vision.images.pixels import cut, resize
from llama4_vision.images.processor import ImageProcessor
from llama4_vision.images.tiling import TilePlan

LIMITS = {"whole": 0.180, "tiles": 0.060}
"""CPU seconds that the phases may take for 12 megapixels, by the aims of the project."""


def seconds(call: Callable[[], object]) -> float:
    """CPU time of one call on all threads of the process."""
    start = time.process_time()
    call()
    return time.process_time() - start


def photograph(width: int, height: int, quality: int) -> bytes:
    """A JPEG file with smooth parts, edges and grain."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    planes = [
        x / width * 170 + 40 * np.sin(y / 90),
        y / height * 150 + 50 * np.cos(x / 130),
        (x + y) / (width + height) * 190 + 30 * np.sin((x - y) / 60),
    ]
    edges = 60 * ((x // 400 + y // 300) % 2) - 30
    # Grain as of a sensor: coarser than a pixel, and partly common to the colours.
    coarse = draw.normal(0, 1, (height // 2, width // 2)).astype(np.float32)
    grain = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    fine = draw.normal(0, 4, (height, width)).astype(np.float32)
    picture = np.stack([plane + edges + 12 * grain + fine for plane in planes], -1)
    buffer = io.BytesIO()
    whole = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
    whole.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def by_pillow(image: Image.Image, plan: TilePlan) -> torch.Tensor:
    """Pillow resizes, numpy pads and scales."""
    size = plan.tile
    canvas = np.zeros((plan.rows * size, plan.columns * size, 3), np.uint8)
    fitted = image.resize((plan.resized_width, plan.resized_height), Image.Resampling.BILINEAR)
    canvas[: plan.resized_height, : plan.resized_width] = np.asarray(fitted)
    pieces = canvas.reshape(plan.rows, size, plan.columns, size, 3).transpose(0, 2, 4, 1, 3)
    pieces = pieces.reshape(-1, 3, size, size)
    if plan.has_global:
        squashed = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
        pieces = np.concatenate([pieces, squashed.transpose(2, 0, 1)[None]])
    return torch.from_numpy((pieces.astype(np.float32) / 255 - 0.5) / 0.5)


def by_float(image: Image.Image, plan: TilePlan) -> torch.Tensor:
    """Torch resizes in float32, and rounds."""
    size = plan.tile
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()

    def to(height: int, width: int) -> torch.Tensor:
        fitted = F.interpolate(values, size=(height, width), mode="bilinear", antialias=True)
        return fitted.round_().clamp_(0, 255)

    fitted = to(plan.resized_height, plan.resized_width)
    padding = (0, plan.columns * size - plan.resized_width,
               0, plan.rows * size - plan.resized_height)  # fmt: skip
    canvas = F.pad(fitted, padding)[0].view(3, plan.rows, size, plan.columns, size)
    pieces = canvas.permute(1, 3, 0, 2, 4).reshape(-1, 3, size, size)
    if plan.has_global:
        pieces = torch.cat([pieces, to(size, size)])
    return pieces.div_(255).sub_(0.5).div_(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=4000)
    parser.add_argument("--height", type=int, default=3000)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    data = photograph(settings.width, settings.height, settings.quality)
    megapixels = settings.width * settings.height / 1e6
    print(
        f"torch {torch.__version__}, Pillow {PIL.__version__} with libjpeg-turbo "
        f"{features.version_feature('libjpeg_turbo')}; {megapixels:.1f} megapixels in "
        f"{len(data) / 1e6:.2f} MB"
    )
    processor = ImageProcessor()
    image = open_image(data)
    plan = processor.plan(*image.size)
    sizes = [(plan.resized_width, plan.resized_height)]
    if plan.has_global:
        sizes.append((plan.tile, plan.tile))
    fitted, *squashed = resize(image, sizes)
    whole = squashed[0] if squashed else None

    phases: dict[str, Callable[[], Any]] = {
        "open": lambda: open_image(data),
        "key": lambda: image_key(image),
        "resize": lambda: resize(image, sizes),
        "cut": lambda: cut(plan, fitted, whole),
        "tiles": lambda: processor.process(image, "known"),
        "whole": lambda: processor.process(open_image(data), "known"),
        "whole with key": lambda: processor(data),
    }
    peers = {"Pillow and numpy": by_pillow, "torch in float32": by_float}
    runs: dict[str, list[float]] = {name: [] for name in [*phases, *peers]}
    # One run of everything after the other, so that a busy minute of the machine meets all alike.
    for turn in range(settings.pairs + 1):
        for name, call in phases.items():
            spent = seconds(call)
            runs[name] += [spent] if turn else []
        for name, peer in peers.items():
            spent = seconds(lambda peer=peer: peer(image, plan))
            runs[name] += [spent] if turn else []

    rows: list[dict[str, Any]] = []
    for name in phases:
        best, median = min(runs[name]), statistics.median(runs[name])
        row: dict[str, Any] = {"case": name, "best s": best, "median s": median}
        note = ""
        if name in LIMITS:
            row["aim s"] = LIMITS[name] * megapixels / 12
            note = f", aim {row['aim s'] * 1e3:.0f} ms"
        rows.append(row)
        print(f"{name:15} best {best * 1e3:6.1f} ms, median {median * 1e3:6.1f} ms{note}")
    ours = processor.process(image, "known").pixel_values
    for name, peer in peers.items():
        row = {"case": f"tiles beside {name}", **paired(runs["tiles"], runs[name])}
        levels = float((ours - peer(image, plan)).abs().max() * 127.5)
        row["levels apart"] = round(levels, 3)
        rows.append(row)
        print(
            f"tiles           {row['ratio']:.2f}x as fast as {name} ({row['peer s'] * 1e3:.0f} ms; "
            f"{row['lowest']:.2f} to {row['highest']:.2f}), {levels:.0f} level apart at most"
        )
        if levels > 1.01:
            print(f"our tiles differ from those of {name}", file=sys.stderr)
            return 1
    shown = {**vars(settings), "bytes": len(data), "tiles": plan.tiles}
    write(settings.json, shown, probes() if settings.json else {}, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
