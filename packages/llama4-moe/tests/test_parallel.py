"""Data-parallel training over two processes, in one spawn."""

import torch

from llama4_moe import MoE, MoEConfig
from llama4_moe.testing.parallel_checks import check_data_parallel


def make():
    torch.manual_seed(0)
    return MoE(MoEConfig(hidden=16, experts=6, top_k=1, width=24, shared_width=16))


def test_data_parallel():
    check_data_parallel(make, 16)
