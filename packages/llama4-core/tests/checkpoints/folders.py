"""Folders of a small mixture with eyes, made without building a model; what a folder holds."""

import torch

from llama4_core.checkpoints.keys import native_shapes
from llama4_core.checkpoints.save import write_checkpoint
from llama4_core.specs import (
    DenseSpec,
    ModelSpec,
    MoESpec,
    RopeSpec,
    TemperatureSpec,
    TokenIds,
    VisionSpec,
)
from llama4_core.specs.layers import every, llama4_layers

# 24 of everything that is cut: 1, 2, 3, 4, 6, 8, 12 and 24 shards can share it.
WIDTH = 48


def mixture_spec(vision=True, layers=4, **changes):
    values = {
        "name": "small",
        "vocabulary": 72,
        "width": WIDTH,
        "norm_eps": 1e-5,
        "max_positions": 64,
        "tied": False,
        "dtype": "bfloat16",
        "tokens": TokenIds(bos=1, eos=(2, 3), pad=0, image=5, image_start=6, image_end=7),
        "layers": llama4_layers(
            layers,
            heads=24,
            kv_heads=24,
            head_dim=4,
            rope=RopeSpec(5e5),
            chunk=8,
            qk_norm=True,
            temperature=TemperatureSpec(0.1, 8192.0),
            position_free=every(4, layers),
            moe_layers=every(2, layers),
            moe=MoESpec(5, 1, 48, 48, "sigmoid-top-k"),
            dense=DenseSpec(96),
        ),
        "vision": VisionSpec(48, 2, 24, 192, 28, 14, 3, 0.5, 24, 24, 1e4, 1e-5) if vision else None,
    }
    spec = ModelSpec(**{**values, **changes})
    return spec if vision else spec.text_only()


def weights_of(spec, seed=0):
    """Canonical name -> weight; no two numbers of a weight are likely to be equal."""
    generator = torch.Generator().manual_seed(seed)
    dtype = getattr(torch, spec.dtype)
    return {
        name: torch.randn(shape, generator=generator).to(dtype)
        for name, shape in native_shapes(spec).items()
    }


def make(path, format_name="native", seed=0, **settings):
    """A folder of a small mixture; returns its spec."""
    spec = mixture_spec(**settings)
    write_checkpoint(weights_of(spec, seed), spec, path, format_name)
    return spec


def content(folder):
    """Name -> bytes of every file."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def make_all(root):
    """The same small mixture in all three formats: name of the format -> folder."""
    from llama4_core.checkpoints.convert import convert

    spec = mixture_spec(vision=False, layers=2)
    weights = weights_of(spec)
    for name in ("native", "huggingface"):
        write_checkpoint(weights, spec, root / name, name, shard_bytes=60_000)
    convert(root / "native", root / "meta", "meta", shards=2)
    return {name: root / name for name in ("native", "huggingface", "meta")}
