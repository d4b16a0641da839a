"""Next-token prediction: pre-training, mid-training and supervised fine-tuning."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from llama4_train.errors import RecipeError, TrainingError
from llama4_train.loss.linear_cross_entropy import MEMORY, TokenLosses, linear_cross_entropy
from llama4_train.objectives.inputs import head_weight, hidden_states
from llama4_train.objectives.routing import load_balance, mixtures, router_z
from llama4_train.protocols import Batch, Loss, StepFacts


class NextToken:
    """Weighted cross-entropy of the next token, with what keeps the numbers and the load in shape.

    For weights ``w_n`` of the targets and their sum W over all batches of the step::

        sum_n w_n / W * (nll_n + z_loss * lse_n ** 2)
        + (tokens of the batch / tokens of the step) * sum over layers with experts of
          (balance * load_balance + router_z_loss * router_z + losses of the router itself)

    so that the gradients of k batches add up to those of one batch with all their documents;
    exactly so, but for ``balance``, which is a product of two means.

    The parts of its loss, which add up over the batches of a step: ``nll``, ``z_loss``,
    ``balance``, ``router_z_loss`` and ``router.NAME`` are the summands as they enter the total;
    ``nll.SOURCE`` is the share of a data source in ``nll``, ``weight.SOURCE`` in W: their quotient
    is the mean loss on that source.

    Other objectives (distillation, preferences) are components beside this one.

    Args:
        z_loss: weight of the squared log-sum-exp of the head's logits, which keeps them small; 1e-4
            in PaLM (Chowdhery et al., 2022, section 5).
        balance: weight of each layer's load-balancing loss; 0.01 in Switch Transformers. Not needed
            beside a router that balances itself.
        router_z_loss: weight of each layer's squared log-sum-exp of router logits.
        memory: bytes for blocks of logits, see :func:`linear_cross_entropy`.

    Raises:
        RecipeError: a weight is negative or not a number.
    """

    def __init__(
        self,
        *,
        z_loss: float = 0.0,
        balance: float = 0.0,
        router_z_loss: float = 0.0,
        memory: int = MEMORY,
    ) -> None:
        settings = {"z_loss": z_loss, "balance": balance, "router_z_loss": router_z_loss}
        for name, value in {**settings, "memory": memory}.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf:
                raise RecipeError(
                    f"objective next-token: {name} is {value!r}; expected a number of at least 0"
                )
        self.z_loss = z_loss
        self.balance = balance
        self.router_z_loss = router_z_loss
        self.memory = memory

    def __call__(self, model: nn.Module, batch: Batch, step: StepFacts) -> Loss:
        """One forward over the batch.

        Raises:
            TrainingError: the step has no target, or the batch does not fit the model.
        """
        if not step.weight > 0:
            raise TrainingError(
                f"the targets of step {step.number} weigh {step.weight}; expected more than 0: no "
                "document of the step has anything to learn from"
            )
        hidden, routings = hidden_states(model, batch)
        losses = linear_cross_entropy(hidden, head_weight(model), batch.targets, memory=self.memory)
        weights = batch.weights.to(losses.nll) / step.weight
        summands = {"nll": (weights * losses.nll).sum()}
        if self.z_loss:
            summands["z_loss"] = self.z_loss * (weights * losses.lse.square()).sum()
        for name, value in self._of_routers(routings).items():
            summands[name] = value * (len(batch.tokens) / step.tokens)
        total = torch.stack([value.to(losses.nll) for value in summands.values()]).sum()
        parts = {name: value.detach() for name, value in summands.items()}
        return Loss(total, parts | _by_source(batch, weights, losses), routings)

    def _of_routers(self, routings: Any) -> dict[str, Tensor]:
        """Sums over the layers with experts of what their routings cost."""
        found: dict[str, Tensor] = {}
        for routing in mixtures(routings):
            costs = {f"router.{name}": value for name, value in routing.losses.items()}
            if self.balance:
                costs["balance"] = self.balance * load_balance(routing)
            if self.router_z_loss:
                costs["router_z_loss"] = self.router_z_loss * router_z(routing)
            for name, value in costs.items():
                found[name] = found[name] + value if name in found else value
        return found


def _by_source(batch: Batch, weights: Tensor, losses: TokenLosses) -> dict[str, Tensor]:
    """Loss and weight of each data source; nothing where documents have no sources."""
    if not batch.sources:
        return {}
    names = sorted(set(batch.sources))
    numbers = torch.tensor([names.index(source) for source in batch.sources])
    rows = numbers.repeat_interleave(torch.tensor(batch.lengths)).to(weights.device)
    found = {}
    for part, values in (("nll", weights * losses.nll.detach()), ("weight", weights)):
        sums = values.new_zeros(len(names)).index_add(0, rows, values)
        found.update({f"{part}.{name}": sums[i] for i, name in enumerate(names)})
    return found
