"""The adapter to lm_eval, with modules of the same interface in its place."""

from __future__ import annotations

import abc
import math
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.plugins.catalogue import catalogue
from llama4_train.errors import EvaluationError
from llama4_train.evaluation.harness import HarnessTask, adapter
from llama4_train.evaluation.scoring import score, windows
from llama4_train.evaluation.tasks import Context


class CacheHook:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        self.kept.append((kind, request, answer))


class LM(abc.ABC):
    """What the library's class asks of those that derive from it."""

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.cache_hook = CacheHook()

    @abc.abstractmethod
    def loglikelihood(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def loglikelihood_rolling(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until(self, requests: Any) -> Any: ...


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found, api, model = (ModuleType(f"lm_eval{name}") for name in ("", ".api", ".api.model"))
    found.api, api.model, model.LM = api, model, LM  # type: ignore[attr-defined]
    for module in (found, api, model):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


def ask(*arguments: Any) -> list[Any]:
    return [SimpleNamespace(args=one) for one in arguments]


def one_by_one(model: Any, context: list[int], follows: list[int]) -> tuple[float, bool]:
    whole = [*context, *follows]
    total, greedy = 0.0, True
    for at in range(len(context), len(whole)):
        before = whole[:at][-model.spec.max_positions :]
        logs = model.logits(torch.tensor(before))[-1].detach().double().log_softmax(-1)
        total += float(logs[whole[at]])
        greedy &= int(logs.argmax()) == whole[at]
    return total, greedy


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 280), min_size=1, max_size=9),
            st.lists(st.integers(0, 280), min_size=1, max_size=5),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 30),
)
def test_scores_are_those_of_each_token_alone(
    model: Any, pairs: list[tuple[list[int], list[int]]], tokens: int
) -> None:
    # One continuation is what greedy decoding gives.
    context = pairs[0][0]
    told = list(model.generate(context, max_tokens=3, ignore_eos=True).tokens)
    pairs = [*pairs, (context, told)]
    found = score(model, pairs, tokens)
    for (total, greedy), (context, follows) in zip(found, pairs, strict=True):
        expected = one_by_one(model, context, follows)
        # Other kernels for other lengths, in float32, over at most 5 tokens of about 8 nats.
        assert total == pytest.approx(expected[0], abs=2e-3)
        assert greedy == expected[1]
    assert found[-1][1]


@given(st.integers(1, 40), st.integers(1, 9))
def test_windows_predict_every_token_once_with_all_that_fits(count: int, longest: int) -> None:
    tokens = list(range(count))
    found = windows(tokens, -1, longest)
    assert [token for _, follows in found for token in follows] == tokens
    for context, follows in found:
        read = [*context, *follows][:-1]
        assert 1 <= len(read) <= longest
        assert read == list(range(read[0], read[0] + len(read)))
        assert len(follows) <= len(read)
    last = [*found[-1][0], *found[-1][1]][:-1]
    assert len(last) == min(longest, count)


def test_requests_are_answered(model: Any, library: ModuleType) -> None:
    lm = adapter(model, tokens=64)
    tokenizer, bos = model.tokenizer, model.tokenizer.bos
    asked = ask(("the ring", " and"), ("the ring ", "and"), ("", "the"), ("12", "3"))
    found = lm.loglikelihood(asked)
    # A space at the end of a context belongs to what follows.
    assert found[0] == found[1]
    encode = tokenizer.encode
    expected = one_by_one(model, encode("the ring"), encode(" and", bos=False))
    assert found[0][0] == pytest.approx(expected[0], abs=1e-3)
    assert found[2][0] == pytest.approx(
        one_by_one(model, [bos], encode("the", bos=False))[0], abs=1e-3
    )
    # "12" and "3" are one token together, so that the whole has no token behind the context's.
    assert found[3][0] == pytest.approx(
        one_by_one(model, [bos, *encode("12", bos=False)], encode("3", bos=False))[0], abs=1e-3
    )
    assert lm.cache_hook.kept == [
        ("loglikelihood", one.args, answer) for one, answer in zip(asked, found, strict=True)
    ]

    text = "a ring in the house, " * 12
    (rolled,) = lm.loglikelihood_rolling(ask((text,)))
    ids = encode(text, bos=False)
    assert len(ids) > model.spec.max_positions
    pairs = windows(ids, bos, model.spec.max_positions)
    one = sum(total for total, _ in score(model, pairs))
    assert rolled == pytest.approx(one, rel=1e-6)  # sums in another order
    assert math.isfinite(rolled)


def test_texts_are_generated_up_to_their_stops(model: Any, library: ModuleType) -> None:
    lm = adapter(model, batch=2)
    plain = [
        model.generate(text, max_tokens=5).text for text in ("the ring", "and", "in the house")
    ]
    given = {"until": [], "max_gen_toks": 5}
    found = lm.generate_until(ask(("the ring", given), ("and", given), ("in the house", given)))
    assert found == plain
    stop = plain[0][1:3]
    (cut,) = lm.generate_until(ask(("the ring", {"until": stop, "max_gen_toks": 5})))
    assert cut == plain[0].partition(stop)[0]
    hot = {"until": [], "max_gen_toks": 5, "temperature": 2.0}
    (greedy,) = lm.generate_until(ask(("the ring", {**hot, "do_sample": False})))
    assert greedy == plain[0]
    (drawn,) = lm.generate_until(ask(("the ring", {**hot, "do_sample": True})))
    assert drawn == model.generate("the ring", max_tokens=5, temperature=2.0).text
    (long,) = lm.generate_until(ask(("and " * 300, given)))
    ids = model.tokenizer.encode("and " * 300)
    kept = [ids[0], *ids[-(model.spec.max_positions - 5 - 1) :]]
    assert long == model.generate(kept, max_tokens=5).text


def test_what_cannot_be_answered(model: Any, library: ModuleType) -> None:
    lm = adapter(model)
    with pytest.raises(EvaluationError, match="'beams'"):
        lm.generate_until(ask(("a", {"beams": 3})))
    with pytest.raises(EvaluationError, match="lower max_gen_toks"):
        lm.generate_until(ask(("a", {"max_gen_toks": 96})))
    with pytest.raises(EvaluationError, match="pictures of the harness"):
        lm.generate_until(ask(("a", {}, {"visual": []})))
    with pytest.raises(EvaluationError, match="longest context"):
        lm.loglikelihood(ask(("a", "b" * 97)))
    bare = SimpleNamespace(spec=SimpleNamespace(name="bare"), tokenizer=None)
    with pytest.raises(EvaluationError, match="no tokenizer"):
        adapter(bare)


def test_the_task_reports_every_number(model: Any, library: ModuleType) -> None:
    seen: dict[str, Any] = {}

    def simple_evaluate(model: Any, **settings: Any) -> Any:
        seen.update(settings)
        assert isinstance(model, LM)
        total, _ = model.loglikelihood(ask(("the", " ring")))[0]
        metrics = {
            "alias": "arc",
            "acc,none": 0.25,
            "acc_stderr,none": 0.05,
            "exact,flexible": total,
            "exact_stderr,flexible": "N/A",
        }
        return {"results": {"arc": metrics}, "n-samples": {"arc": {"original": 9, "effective": 4}}}

    library.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    task = HarnessTask(("arc",), fewshot=2, limit=4, seed=7)
    one, other = task.measure(model, Context(catalogue()))
    assert (one.name, one.metric, one.value, one.count) == ("arc", "acc", 0.25, 4)
    assert one.facts == {"standard_error": 0.05}
    assert (other.metric, other.facts) == ("exact.flexible", {})
    assert seen["tasks"] == ["arc"]
    assert (seen["num_fewshot"], seen["limit"]) == (2, 4)
    assert {
        seen[f"{name}_seed"]
        for name in ("random", "numpy_random", "torch_random", "fewshot_random")
    } == {7}


def test_without_the_library_there_is_one_line(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(EvaluationError, match="pip install lm_eval"):
        HarnessTask(("arc",)).measure(model, Context(catalogue()))
