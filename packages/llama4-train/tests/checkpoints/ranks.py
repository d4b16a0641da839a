"""One of two processes that store and read sharded tensors; run as a program."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from llama4_core.errors import CheckpointError
from llama4_train.checkpoints.keeper import Keeper
from llama4_train.checkpoints.whole import read, write


def tensors() -> dict[str, torch.Tensor]:
    """Whole tensors, as one process has them; five rows do not divide by two."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "rows": (5, 4),
        "columns": (3, 6),
        "copied": (4,),
        "plain": (2, 2),
        "experts": (4, 2, 3),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def main(rank: int, place: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{place / 'meeting'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=60),
    )
    mesh = init_device_mesh("cpu", (2,))
    placements = {
        "rows": [Shard(0)],
        "columns": [Shard(1)],
        "copied": [Replicate()],
        "experts": [Shard(0)],
    }
    state = {
        name: distribute_tensor(one, mesh, placements[name]) if name in placements else one
        for name, one in tensors().items()
    }
    write({**state, "step": 3}, place / "two")
    kept = Keeper(place / "run", 1)
    kept.save(1, {**state, "step": 1})
    kept.save(2, {**state, "step": 2})
    kept.wait()

    # What one process wrote, read by two, cut otherwise.
    others = {
        "rows": [Shard(1)],
        "columns": [Shard(0)],
        "copied": [Shard(0)],
        "experts": [Shard(2)],
    }
    found = {
        name: distribute_tensor(torch.zeros_like(one), mesh, others[name])
        if name in others
        else torch.zeros_like(one)
        for name, one in tensors().items()
    }
    for name in ("one", "two"):
        back = {**found, "step": None}
        read(back, place / name)
        assert back["step"] == 3
        for key, one in tensors().items():
            whole = back[key].full_tensor() if key in others else back[key]
            assert torch.equal(whole, one), (name, key)

    # An error of one process is an error of all, in our words.
    try:
        write({"notes": 1, **({"mine": object()} if rank else {})}, place / "never")
    except CheckpointError as error:
        (place / f"said-{rank}").write_text(str(error))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
    # Meshes that torch keeps in its caches hold the group's threads until the interpreter is taken
    # down, which now and then aborts there ("terminate called without an active exception").
    os._exit(0)
