"""Appended, committed, rolled back in any order: as if only what is kept was ever seen."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import llama4_core as l4
from llama4_core.contexts import ledger
from llama4_core.errors import ContextError
from llama4_core.model.initialise import initialise
from llama4_core.model.transformer import Transformer
from llama4_core.specs import AttentionSpec, DenseSpec, LayerSpec, ModelSpec, RopeSpec

ROPE = RopeSpec(1e4)
LAYERS = {
    "chunked": AttentionSpec("irope-chunked", 2, 1, 8, rope=ROPE, chunk=4, qk_norm=True),
    "window": AttentionSpec("sliding-window", 2, 2, 8, rope=ROPE, window=3),
    "global": AttentionSpec("nope-global", 2, 1, 8),
    "linear": AttentionSpec("none", 2, 2, 8, mixer="gated-linear"),
}


@cache
def model_of(*kinds: str) -> Transformer:
    layers = tuple(LayerSpec(LAYERS[kind], DenseSpec(24)) for kind in kinds)
    spec = ModelSpec("tiny", 32, 16, 1e-5, 512, False, layers, dtype="float32")
    model = l4.assemble(spec, device="cpu")
    initialise(model, 1)
    return model


operations = st.lists(
    st.one_of(
        st.tuples(st.just("extend"), st.integers(0, 7), st.integers(0, 7)),
        st.tuples(st.just("commit"), st.integers(0, 9), st.integers(0, 9)),
        st.tuples(st.just("all"), st.just(0), st.just(0)),
        st.tuples(st.just("rollback"), st.just(0), st.just(0)),
    ),
    min_size=4,
    max_size=14,
)


@pytest.mark.parametrize("slack", [0, 2])
@settings(deadline=None)
@given(steps=operations, seed=st.integers(0, 2**16))
# rows of different lengths that then grow by equal steps
@example(steps=[("extend", 3, 1), ("all", 0, 0), ("extend", 2, 2), ("extend", 1, 1)], seed=1)
# the rejected end of a draft leaves room, so entries are dropped only when others are provisional
@example(steps=[("extend", 8, 8), ("commit", 5, 5), ("extend", 2, 2), ("extend", 2, 2)], seed=2)
def test_any_order_of_steps_commits_and_rollbacks(
    slack: int, steps: list[tuple[str, int, int]], seed: int
) -> None:
    """Two rows, all kinds of layers; every step's logits equal the full forward's of that row."""
    model = model_of("chunked", "window", "global", "linear")
    generator = torch.Generator().manual_seed(seed)
    kept: list[list[int]] = [[], []]
    pending: list[list[int]] = [[], []]
    before = ledger.SLACK
    ledger.SLACK = slack  # so that entries are dropped after a few tokens already
    try:
        with torch.inference_mode():
            cached = model.cached(2)
            for name, first, second in steps:
                if name == "extend" and first + second:
                    new = [
                        torch.randint(0, 32, (n,), generator=generator).tolist()
                        for n in (first, second)
                    ]
                    step = cached.extend([first, second])
                    hidden, _ = model(torch.tensor(new[0] + new[1]), step)
                    for row, found in enumerate(model.project(hidden).split([first, second])):
                        pending[row] += new[row]
                        if new[row]:
                            whole = model.logits(kept[row] + pending[row])[-len(new[row]) :]
                            # float32: other shapes sum in another order
                            torch.testing.assert_close(found, whole, rtol=0, atol=2e-5)
                elif name in ("commit", "all", "rollback"):
                    count = [min(n, len(p)) for n, p in zip((first, second), pending, strict=True)]
                    if name == "all":
                        count = [len(p) for p in pending]
                        cached.commit()
                    elif name == "rollback":
                        count = [0, 0]
                        cached.rollback()
                    else:
                        cached.commit(count)
                    for row, n in enumerate(count):
                        kept[row] += pending[row][:n]
                        pending[row] = []
                assert cached.lengths == (len(kept[0]), len(kept[1]))
    finally:
        ledger.SLACK = before


def test_bounded_layers_stay_bounded() -> None:
    """A chunked layer of 4 positions holds no more after 200 tokens than after 20."""
    model = model_of("chunked", "window")
    with torch.inference_mode():
        cached = model.cached(1)
        sizes = []
        for _ in range(10):
            model(torch.zeros(20, dtype=torch.long), cached.extend([20]))
            cached.commit()
            sizes.append(cached.nbytes)
    assert len(set(sizes[1:])) == 1
    slots = 2 * (4 + ledger.SLACK)
    assert sizes[-1] <= slots * 2 * 8 * 4 * (1 + 2)  # k and v of 8 float32, 1 and 2 kv heads


def test_a_long_step_gives_its_memory_back() -> None:
    """After a prefill of 400 tokens at once, the next commit keeps at most twice the bound."""
    model = model_of("chunked")
    with torch.inference_mode():
        cached = model.cached(1)
        model(torch.zeros(400, dtype=torch.long), cached.extend([400]))
        before = cached.nbytes
        cached.commit()
    assert cached.nbytes <= before / 4


@pytest.mark.parametrize("lengths", [[], [1], [1, 2, 3], [0, 0], [-1, 2], [True, 1], [1.0, 1]])
def test_wrong_lengths_are_refused(lengths: list[int]) -> None:
    """One whole number per row, not all zero; nothing is changed by the attempt."""
    cached = model_of("global").cached(2)
    with pytest.raises(ContextError, match=r"length|lengths"):
        cached.extend(lengths)
    assert cached.pending == (0, 0)


@pytest.mark.parametrize("lengths", [[3], [4, 0], [0, -1]])
def test_wrong_commits_are_refused(lengths: list[int]) -> None:
    """No more than was provided, and one number per row; the provisional tokens stay."""
    model = model_of("global")
    cached = model.cached(2)
    model(torch.zeros(4, dtype=torch.long), cached.extend([3, 1]))
    with pytest.raises(ContextError):
        cached.commit(lengths)
    assert cached.pending == (3, 1)


def test_wrong_number_of_tokens_is_refused() -> None:
    """The tokens have to be those that the context was made for."""
    model = model_of("global")
    with pytest.raises(ContextError, match=r"\[4\].*\[3\]"):
        model(torch.zeros(4, dtype=torch.long), model.packed([3]))


def test_a_step_is_run_once_and_in_its_turn() -> None:
    """Steps that were skipped, repeated or overtaken would leave holes or doubles unnoticed."""
    model = model_of("chunked", "linear")
    tokens = torch.arange(2)
    with torch.inference_mode():
        cached = model.cached(1)
        skipped = cached.extend([2])
        for go_on in (lambda: cached.extend([2]), cached.commit):
            with pytest.raises(ContextError, match=r"lengths \[2\] was never run.*rollback"):
                go_on()
        cached.rollback()
        with pytest.raises(ContextError, match="call extend"):
            model(tokens, skipped)
        step = cached.extend([2])
        with pytest.raises(ContextError, match=r"\[3\].*\[2\]"):
            model(torch.arange(3), step)
        found, _ = model(tokens, step)  # refused tokens spoil nothing
        with pytest.raises(ContextError, match="run before"):
            model(tokens, step)
        cached.commit()
        whole, _ = model(tokens, model.packed([2]))
    # float32: other shapes sum in another order
    torch.testing.assert_close(found, whole, rtol=0, atol=2e-5)
    assert cached.lengths == (2,)
