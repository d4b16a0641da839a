"""The chunked loss is the plain one: values, gradients, and what it never keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from llama4_train.errors import TrainingError
from llama4_train.loss import vocabulary_blocks
from llama4_train.loss.linear_cross_entropy import Teacher, TokenLosses, linear_cross_entropy


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabularies of tens of tokens fall into several blocks, too."""
    monkeypatch.setattr(vocabulary_blocks, "_LEAST_BLOCK", 3)


@dataclass(frozen=True)
class Case:
    """Shapes, and a seed of the numbers; a memory of 0 computes all blocks again."""

    tokens: int
    vocabulary: int
    width: int
    listed: int
    scale: float
    memory: int
    seed: int

    def draw(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Any]:
        generator = torch.Generator().manual_seed(self.seed)
        hidden = self.scale * torch.randn(self.tokens, self.width, generator=generator)
        weight = torch.randn(self.vocabulary, self.width, generator=generator)
        targets = torch.randint(0, self.vocabulary, (self.tokens,), generator=generator)
        targets[torch.rand(self.tokens, generator=generator) < 0.3] = -100
        teacher = None
        if self.listed:
            logits = torch.randn(self.tokens, self.vocabulary, generator=generator)
            teacher = top(3 * logits.double(), self.listed)
        return hidden.to(dtype), weight.to(dtype), targets, teacher


def top(logits: Tensor, count: int) -> Teacher:
    """The ``count`` likeliest tokens."""
    best = logits.log_softmax(-1).topk(count)
    others = logits.scatter(1, best.indices, float("-inf")).logsumexp(1) - logits.logsumexp(1)
    return Teacher(best.indices, best.values, others.exp())


CASES = st.builds(
    Case,
    st.integers(0, 9),
    st.sampled_from((5, 23, 60)),
    st.integers(1, 6),
    st.sampled_from((0, 1, 4)),
    st.sampled_from((0.01, 1.0, 40.0)),
    st.sampled_from((0, 3000, 10**6)),
    st.integers(0, 2**16),
)


def plain(hidden: Tensor, weight: Tensor, targets: Tensor, teacher: Any) -> TokenLosses:
    """The definition, from all logits at once."""
    logits = hidden @ weight.T
    there = targets != -100
    nll = F.cross_entropy(logits, targets, reduction="none", ignore_index=-100)
    divergence = None
    if teacher is not None:
        q = logits.log_softmax(-1)
        others = q.scatter(1, teacher.ids, float("-inf")).logsumexp(1)
        listed = teacher.log_probs.exp() * (teacher.log_probs - q.gather(1, teacher.ids))
        rest = torch.xlogy(teacher.tail, teacher.tail) - teacher.tail * others
        divergence = torch.where(there, listed.sum(1) + rest, 0.0)
    return TokenLosses(nll, torch.where(there, logits.logsumexp(1), 0.0), divergence)


def combined(losses: TokenLosses) -> Tensor:
    """One number that depends on each of the losses, on each token's differently."""
    weights = torch.linspace(0.5, 2.0, len(losses.nll)).to(losses.nll)
    total = (weights * losses.nll).sum() + 0.1 * (weights.flip(0) * losses.lse.square()).sum()
    return total if losses.divergence is None else total + (weights**2 * losses.divergence).sum()


@given(case=CASES)
def test_values_and_gradients_are_those_of_all_logits(case: Case) -> None:
    hidden, weight, targets, teacher = case.draw()
    found, expected = [], []
    for function, settings, into in (
        (linear_cross_entropy, {"teacher": teacher, "memory": case.memory}, found),
        (lambda h, w, t: plain(h, w, t, teacher), {}, expected),
    ):
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        losses = function(h, w, targets, **settings)
        combined(losses).backward()
        into += [*(x.detach() for x in losses if x is not None), h.grad, w.grad]
    for got, true in zip(found, expected, strict=True):
        # Float64 rounds at 1e-16; logits reach some hundreds, sums of squares some 1e5.
        bound = 1e-11 * max(1.0, float(true.abs().max()) if true.numel() else 0.0)
        assert got.shape == true.shape
        assert (got - true).abs().max() <= bound if true.numel() else True


@pytest.mark.parametrize("memory", [0, 3000, 10**6])
@pytest.mark.parametrize("listed", [0, 3])
def test_gradcheck(memory: int, listed: int) -> None:
    hidden, weight, targets, teacher = Case(5, 13, 3, listed, 1.0, memory, 1).draw()

    def call(h: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        losses = linear_cross_entropy(h, w, targets, teacher=teacher, memory=memory)
        return tuple(x for x in losses if x is not None)

    assert torch.autograd.gradcheck(call, (hidden.requires_grad_(), weight.requires_grad_()))


@given(case=CASES)
def test_float32_is_as_near_to_the_truth_as_all_logits_are(case: Case) -> None:
    hidden, weight, targets, _ = case.draw(torch.float32)
    true = plain(hidden.double(), weight.double(), targets, None)
    found = linear_cross_entropy(hidden, weight, targets, memory=case.memory)
    near = plain(hidden, weight, targets, None)
    assert found.nll.dtype == torch.float32
    for got, other, exact in zip(found[:2], near[:2], true[:2], strict=True):
        # Another order of summation: some roundings of the largest logit.
        largest = max(
            1.0, float((hidden.double() @ weight.double().T).abs().max() if len(hidden) else 0)
        )
        allowed = (other - exact).abs() + 4e-7 * largest
        assert ((got - exact).abs() <= allowed).all()


def test_a_sure_prediction_is_not_lost_in_the_size_of_its_logits() -> None:
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[40.0], [28.0], [20.0]])
    nll = linear_cross_entropy(hidden, weight, torch.tensor([0])).nll
    true = torch.tensor([0.0, -12.0, -20.0], dtype=torch.float64).exp().sum().log()
    # The loss is 6.1e-6; the spacing of float32 at 40 alone is 3.8e-6.
    assert float((nll - true).abs()) < 1e-7


@pytest.mark.parametrize("memory", [0, 10**6])
def test_bfloat16_rounds_gradients_once_and_losses_never(memory: int) -> None:
    case = Case(40, 500, 16, 4, 1.0, memory, 3)
    hidden, weight, targets, teacher = case.draw(torch.bfloat16)
    wide = [x.float().requires_grad_() for x in (hidden, weight)]
    narrow = [x.requires_grad_() for x in (hidden, weight)]
    found = linear_cross_entropy(*narrow, targets, teacher=teacher, memory=memory)
    true = linear_cross_entropy(*wide, targets, teacher=teacher, memory=memory)
    for got, expected in zip(found, true, strict=True):
        assert torch.equal(got, expected)
    for losses in (found, true):
        combined(losses).backward()
    for mine, exact in zip(narrow, wide, strict=True):
        assert mine.grad.dtype == torch.bfloat16
        assert torch.equal(mine.grad, exact.grad.bfloat16())


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that was made, parameters aside, and products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.numel, self.products = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.products += func.__name__.startswith(("mm", "addmm"))
        if isinstance(out, Tensor) and not out._is_view():
            self.numel = max(self.numel, out.numel())
        return out


def test_the_logits_are_never_there() -> None:
    hidden, weight, targets, _ = Case(50, 3000, 4, 0, 1.0, 0, 2).draw(torch.float32)
    with Largest() as made:
        h, w = hidden.requires_grad_(), weight.requires_grad_()
        linear_cross_entropy(h, w, targets, memory=100_000).nll.sum().backward()
    # Four bytes, and one block is a quarter of the memory; the head's gradient is 12,000 numbers.
    assert made.numel <= max(100_000 // 4, weight.numel())
    assert made.numel < 50 * 3000 / 4


@pytest.mark.parametrize(("frozen", "products"), [("neither", 3), ("head", 2), ("hidden", 2)])
def test_what_is_frozen_costs_nothing(frozen: str, products: int) -> None:
    hidden, weight, targets, _ = Case(6, 20, 4, 0, 1.0, 0, 2).draw()
    hidden.requires_grad_(frozen != "hidden")
    weight.requires_grad_(frozen != "head")
    with Largest() as made:
        linear_cross_entropy(hidden, weight, targets).nll.sum().backward()
    count = -(-20 // vocabulary_blocks._LARGEST_BLOCK)
    assert made.products == products * count
    assert (hidden.grad is None) == (frozen == "hidden")
    assert (weight.grad is None) == (frozen == "head")


@given(case=CASES)
def test_ignored_tokens_are_as_if_they_were_not_there(case: Case) -> None:
    hidden, weight, targets, _ = case.draw()
    ignored = targets == -100
    hidden[ignored] = float("nan")
    hidden.requires_grad_()
    losses = linear_cross_entropy(hidden, weight, targets, memory=case.memory)
    (losses.nll.sum() + losses.lse.sum()).backward()
    for values in (losses.nll, losses.lse, hidden.grad):
        assert (values[ignored] == 0).all()
        assert values.isfinite().all()


def test_tied_weights_get_both_gradients() -> None:
    _, weight, targets, _ = Case(6, 20, 4, 0, 1.0, 0, 5).draw()
    grads = []
    for function in (linear_cross_entropy, lambda h, w, t: plain(h, w, t, None)):
        w = weight.clone().requires_grad_()
        combined(function(w[: len(targets)] ** 2, w, targets)).backward()
        grads.append(w.grad)
    assert torch.allclose(*grads, rtol=1e-12, atol=1e-12)


@given(case=CASES.filter(lambda case: case.listed and case.tokens))
def test_divergence_is_zero_only_for_a_student_that_agrees(case: Case) -> None:
    hidden, weight, targets, teacher = case.draw()
    targets = targets.clamp(min=0)
    other = linear_cross_entropy(hidden, weight, targets, teacher=teacher).divergence
    assert (other >= -1e-12).all()  # the rounding of a sum of probabilities
    same = top(hidden @ weight.T, case.listed)
    found = linear_cross_entropy(hidden, weight, targets, teacher=same).divergence
    # Logits reach some hundreds, and each log-probability is rounded with them.
    assert (found.abs() <= 1e-11).all()


def test_a_teacher_without_a_tail() -> None:
    hidden, weight, targets, _ = Case(4, 9, 3, 0, 1.0, 0, 7).draw()
    hidden.requires_grad_()
    targets = targets.clamp(min=0)
    sure = Teacher(targets[:, None], torch.zeros(4, 1), torch.zeros(4))
    losses = linear_cross_entropy(hidden, weight, targets, teacher=sure)
    assert torch.allclose(losses.divergence, losses.nll, rtol=1e-12)
    losses.divergence.sum().backward()
    assert hidden.grad.isfinite().all()


def test_backward_twice_and_second_derivatives() -> None:
    hidden, weight, targets, _ = Case(4, 30, 3, 0, 1.0, 10**6, 7).draw()
    hidden.requires_grad_()
    total = linear_cross_entropy(hidden, weight, targets).nll.square().sum()
    (first,) = torch.autograd.grad(total, hidden, retain_graph=True)
    (second,) = torch.autograd.grad(total, hidden, create_graph=True)
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.sum().backward()


def total_and_gradients(call: Any, hidden: Tensor, weight: Tensor) -> list[Tensor]:
    h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    total = call(h, w)
    total.backward()
    return [total.detach(), h.grad, w.grad]


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant: bool) -> None:
    hidden, weight, targets, _ = Case(6, 40, 4, 0, 1.0, 0, 9).draw()

    def call(h: Tensor, w: Tensor) -> Tensor:
        return linear_cross_entropy(h.tanh(), w, targets).nll.sum()

    twice = lambda h, w: checkpoint(call, h, w, use_reentrant=reentrant)  # noqa: E731
    found = total_and_gradients(twice, hidden, weight)
    for got, true in zip(found, total_and_gradients(call, hidden, weight), strict=True):
        assert torch.equal(got, true)


def test_compiled_callers() -> None:
    hidden, weight, targets, _ = Case(6, 40, 4, 0, 1.0, 0, 9).draw()

    def call(h: Tensor, w: Tensor) -> Tensor:
        return linear_cross_entropy(h * 2, w, targets).nll.sum() * 3

    found = total_and_gradients(torch.compile(call, backend="aot_eager"), hidden, weight)
    for got, true in zip(found, total_and_gradients(call, hidden, weight), strict=True):
        assert torch.allclose(got, true, rtol=1e-14)


def test_autocast_rounds_inputs_as_a_linear_layer_does() -> None:
    hidden, weight, targets, _ = Case(6, 40, 4, 0, 1.0, 0, 9).draw(torch.float32)

    def call(h: Tensor, w: Tensor) -> Tensor:
        return linear_cross_entropy(h, w, targets).nll.sum()

    def cast(h: Tensor, w: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            losses = linear_cross_entropy(h, w, targets)
        assert losses.nll.dtype == torch.float32
        return losses.nll.sum()

    rounded = lambda h, w: call(h.bfloat16(), w.bfloat16())  # noqa: E731
    found, true = (total_and_gradients(each, hidden, weight) for each in (cast, rounded))
    for got, expected in zip(found, true, strict=True):
        assert torch.equal(got, expected)


def test_inside_of_autocast_the_backward_is_exact() -> None:
    hidden, weight, targets, _ = Case(6, 40, 4, 0, 1.0, 0, 9).draw(torch.float32)
    h, w = hidden.requires_grad_(), weight.requires_grad_()
    total = linear_cross_entropy(h, w, targets).nll.sum()
    true = torch.autograd.grad(total, (h, w), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(total, (h, w))
    assert all(torch.equal(got, each) for got, each in zip(found, true, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_log_probabilities_without_gradient(mode: Any) -> None:
    hidden, weight, targets, _ = Case(6, 40, 4, 0, 1.0, 0, 9).draw()
    with mode():
        nll = linear_cross_entropy(hidden, weight.requires_grad_(), targets).nll
    assert not nll.requires_grad
    assert torch.allclose(nll, plain(hidden, weight, targets, None).nll, rtol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu(dtype: torch.dtype) -> None:
    hidden, weight, targets, teacher = Case(64, 5000, 64, 4, 0.3, 10**6, 11).draw(dtype)
    true = total_and_gradients(
        lambda h, w: combined(plain(h, w, targets, teacher)), hidden.double(), weight.double()
    )
    there = Teacher(*(part.cuda() for part in teacher))
    found = total_and_gradients(
        lambda h, w: combined(
            linear_cross_entropy(h, w, targets.cuda(), teacher=there, memory=10**6)
        ),
        hidden.cuda(),
        weight.cuda(),
    )
    # bfloat16 keeps 8 bits of the gradient of each logit, and of the gradients.
    bound = 1e-5 if dtype == torch.float32 else 2e-2
    for got, expected in zip(found, true, strict=True):
        assert (got.cpu().double() - expected).norm() <= bound * expected.norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h, w, t: (h[None], w, t, None), r"hidden states have shape \[1, 4, 3\]"),
        (lambda h, w, t: (h, w[:, :2], t, None), r"the head \[9, 2\]; expected \[N, D\]"),
        (lambda h, w, t: (h.long(), w, t, None), "torch.int64 and the head torch.float64"),
        (
            lambda h, w, t: (h, w, t[:3], None),
            r"targets is torch.int64 \[3\]; expected int64 \[4\]",
        ),
        (lambda h, w, t: (h, w, t.int(), None), r"targets is torch.int32 \[4\]"),
        (lambda h, w, t: (h, w, t + 9, None), r"the id (9|1\d); expected 0 to 8 \(or -100"),
        (
            lambda h, w, t: (h, w, t, Teacher(t[:, None] - 99, torch.zeros(4, 1), torch.zeros(4))),
            "teacher.ids holds the id -9",
        ),
        (
            lambda h, w, t: (h, w, t, Teacher(t[:, None], torch.zeros(4, 2), torch.zeros(4))),
            r"teacher.log_probs has shape \[4, 2\]; expected \[4, 1\]",
        ),
        (
            lambda h, w, t: (h, w, t, Teacher(t[:, None], torch.zeros(4, 1), torch.zeros(1))),
            r"teacher.tail has shape \[1\]; expected \[4\]",
        ),
        (
            lambda h, w, t: (h, w, t, top(torch.randn(4, 9), 9)),
            "lists 9 of 9 tokens; expected fewer",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: Any, message: str) -> None:
    hidden, weight, targets, _ = Case(4, 9, 3, 0, 1.0, 0, 7).draw()
    h, w, t, teacher = change(hidden, weight, targets.clamp(min=0))
    with pytest.raises(TrainingError, match=message):
        linear_cross_entropy(h, w, t, teacher=teacher)
