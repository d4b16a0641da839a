"""Data-parallel checks: DDP and FSDP2 over two processes on a CPU, in one spawn."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from llama4_moe.testing.moe_checks import Factory, tokens

WORLD = 2


def check_data_parallel(make: Factory, width: int) -> None:
    """DDP and FSDP2 give the gradients of one process on the whole batch.

    Rank 1 has a single token, so most of its experts get none. ``make`` must be picklable (a
    function of a module).

    Raises:
        Exception: a rank failed; the message carries its traceback.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_rank, args=(make, width, port), nprocs=WORLD, join=True)


def _rank(rank: int, make: Factory, width: int, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=WORLD,
        timeout=timedelta(seconds=60),
    )
    try:
        x = tokens(width, 9)
        share = x[:8] if rank == 0 else x[8:]
        alone = make()
        alone(x).square().sum().backward()
        wanted = [parameter.grad for parameter in alone.parameters()]
        # Both wrappers average over the ranks, hence the factor.
        _compare("DDP", DistributedDataParallel(make()), share, wanted)
        _compare("FSDP2", cast(nn.Module, fully_shard(make())), share, wanted)
        inner = make()
        for child in inner.children():
            fully_shard(child)
        _compare("FSDP2 of each part", cast(nn.Module, fully_shard(inner)), share, wanted)
    finally:
        dist.destroy_process_group()
    # Meshes in torch's caches hold the group's threads until the interpreter is taken down, which
    # now and then aborts there ("terminate called without an active exception").
    os._exit(0)


def _compare(name: str, module: nn.Module, share: Tensor, wanted: list[Tensor | None]) -> None:
    for _ in range(2):  # DDP notices a parameter without a gradient in the second forward
        module.zero_grad()
        y = module(share)
        (WORLD * y.square().sum()).backward()
    for (label, parameter), want in zip(module.named_parameters(), wanted, strict=True):
        got = parameter.grad
        if isinstance(got, DTensor):
            got = got.full_tensor()
        assert got is not None, f"{name}: {label} has no gradient"
        assert want is not None, f"{label} has no gradient in one process"
        # Sums over tokens in another order, float32.
        torch.testing.assert_close(
            got,
            want,
            rtol=1e-4,
            atol=1e-5 * float(want.abs().max()) + 1e-7,
            msg=f"{name}: the gradient of {label} differs from that of one process",
        )
