"""A mixture of experts in your own model: a tiny GPT trained for some steps on a CPU.

    python examples/moe_in_my_model.py

The only line that knows about experts is ``self.mixture = MoE(...)``. The routings come back from
the forward, and the load is balanced by them once per step, after the optimiser.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llama4_moe import MoE, MoEConfig, statistics

WIDTH, HEADS, EXPERTS, LENGTH = 64, 4, 8, 48


class Block(nn.Module):
    """Causal attention, then a mixture where the feed-forward was."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.second_norm = nn.LayerNorm(WIDTH)
        self.mixture = MoE(
            MoEConfig(
                hidden=WIDTH,
                experts=EXPERTS,
                top_k=1,
                width=128,
                shared_width=64,
                router="sigmoid-top-k-balanced",
            )
        )

    def forward(self, x: Tensor):
        batch, length, _ = x.shape
        heads = (
            self.qkv(self.first_norm(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        y, routing = self.mixture(self.second_norm(x), return_routing=True)
        return x + y, routing


class Model(nn.Module):
    """Bytes in, logits of the next byte out, and one routing per block."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, WIDTH)
        self.position = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, 256)

    def forward(self, tokens: Tensor):
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        routings = []
        for block in self.blocks:
            x, routing = block(x)
            routings.append(routing)
        return self.head(x), routings


def main() -> None:
    """Trains and prints the loss and where the tokens went."""
    torch.manual_seed(0)
    text = "to be or not to be, that is the question; whether it is nobler in the mind to suffer. "
    data = torch.tensor(list((text * 40).encode()))
    model = Model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(1, 61):
        starts = torch.randint(len(data) - LENGTH - 1, (8,))
        rows = torch.stack([data[start : start + LENGTH + 1] for start in starts.tolist()])
        logits, routings = model(rows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        for block, routing in zip(model.blocks, routings, strict=True):
            block.mixture.router.after_step(statistics.counts(routing, EXPERTS))
        if step == 1 or step % 20 == 0:
            report = statistics.report(routings[0], EXPERTS)
            print(
                f"step {step:2}: loss {loss.item():.3f}; first block: load per expert "
                f"{report.counts.tolist()}, evenness {report.entropy:.2f}, dead {list(report.dead)}"
            )


if __name__ == "__main__":
    main()
