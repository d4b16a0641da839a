"""Bisection names the slot of eleven planted bugs, and is silent about fifty equal pairs.

The bugs are those that one published implementation or another is known to have had; each is
planted in our model of a checkpoint that transformers wrote.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.oracle import CASES, oracle, random_tokens, saved

import llama4_core as l4
from llama4_core.cli.main import main
from llama4_core.inspection.bisect import BisectReport, bisect
from llama4_core.inspection.peer import record_transformers
from llama4_core.inspection.recording import Recording, record
from llama4_core.model import variants
from llama4_core.specs.model import LayerSpec, ModelSpec, RopeScaling

LENGTH = 27  # three chunks of 8 and a bit; seven temperature steps

# ---------------------------------------------------------------------------- planted bugs


@dataclass(frozen=True)
class Bug:
    """A planted bug: the checkpoint it is planted in, how, and where it has to be found."""

    name: str
    case: str
    slot: str
    hint: str
    change: Callable[[ModelSpec], ModelSpec] = lambda spec: spec
    planted: Callable[[], AbstractContextManager[None]] = nullcontext


def _attention(spec: ModelSpec, change: Callable[[Any], Any]) -> ModelSpec:
    layers = tuple(replace(layer, attention=change(layer.attention)) for layer in spec.layers)
    return replace(spec, layers=layers)


def _rope(scaling: RopeScaling | None) -> Callable[[ModelSpec], ModelSpec]:
    def change(attention: Any) -> Any:
        if attention.rope is None:
            return attention
        return replace(attention, rope=replace(attention.rope, scaling=scaling))

    return lambda spec: _attention(spec, change)


def _only_where(field: str, **values: Any) -> Callable[[ModelSpec], ModelSpec]:
    def change(attention: Any) -> Any:
        return replace(attention, **values) if getattr(attention, field) else attention

    return lambda spec: _attention(spec, change)


def _feed_forward(**values: Any) -> Callable[[ModelSpec], ModelSpec]:
    def change(layer: LayerSpec) -> LayerSpec:
        return replace(layer, feed_forward=replace(layer.feed_forward, **values))

    return lambda spec: replace(spec, layers=tuple(change(layer) for layer in spec.layers))


def _shifted_phase(spec: ModelSpec) -> ModelSpec:
    kinds = [layer.attention for layer in spec.layers]
    kinds = kinds[1:] + kinds[:1]  # layers 2 and 6 see everything instead of 3 and 7
    layers = zip(spec.layers, kinds, strict=True)
    return replace(spec, layers=tuple(replace(layer, attention=kind) for layer, kind in layers))


@contextmanager
def _swapped(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _half_split(x: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    left, right = x.float().chunk(2, -1)
    turned = torch.complex(left, right) * rotations[:, None]
    return torch.cat([turned.real, turned.imag], -1).to(x.dtype)


def _late_temperature(positions: torch.Tensor, spec: Any) -> torch.Tensor:
    steps = torch.floor(positions.double() / spec.floor)
    return (1 + spec.scale * torch.log1p(steps)).float()


BUGS = (
    Bug("rope unscaled", "scout-like", "layers.0.attention.variant.q", "RoPE scaling", _rope(None)),
    Bug(
        "eps 1e-6",
        "scout-like",
        "layers.0.attention_norm",
        "eps",
        lambda spec: replace(spec, norm_eps=1e-6),
    ),
    Bug(
        "temperature off by one",
        "scout-like",
        "layers.3.attention.variant.q",
        "first at position 3",
        planted=lambda: _swapped(variants, "temperature", _late_temperature),
    ),
    Bug(
        "temperature off",
        "scout-like",
        "layers.3.attention.variant.q",
        "temperature",
        _only_where("temperature", temperature=None),
    ),
    Bug(
        "score on the output",
        "scout-like",
        "layers.0.feed_forward.experts",
        "applied to their output",
        _feed_forward(weight_on="output"),
    ),
    Bug(
        "softmax router",
        "scout-like",
        "layers.0.feed_forward.router.weights",
        "the second a softmax",
        _feed_forward(router="softmax-top-k"),
    ),
    Bug(
        "no QK norm",
        "scout-like",
        "layers.0.attention.variant.q",
        "QK norm",
        _only_where("qk_norm", qk_norm=False),
    ),
    Bug(
        "half-split rope",
        "scout-like",
        "layers.0.attention.variant.q",
        "half-split",
        planted=lambda: _swapped(variants, "rotate", _half_split),
    ),
    Bug(
        "chunk 9 instead of 8",
        "scout-like",
        "layers.0.attention.mixed",
        "before position 8",
        _only_where("chunk", chunk=9),
    ),
    Bug(
        "wrong NoPE phase",
        "scout-like",
        "layers.2.attention.variant.q",
        "NoPE phase",
        _shifted_phase,
    ),
    Bug(
        "scaling with original length 16",
        "scout-like",
        "layers.0.attention.variant.q",
        "RoPE scaling",
        _rope(RopeScaling(16.0, 1.0, 1.0, 16)),
    ),
)


@cache
def _folder(case: str, root: Path) -> tuple[Any, Path]:
    theirs = oracle(CASES[case])
    return theirs, saved(theirs, root / case)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    root = tmp_path_factory.mktemp("bisect")
    return lambda case: _folder(case, root)


def _broken(bug: Bug, path: Path) -> Any:
    """Our model of the checkpoint, assembled from the wrong description."""
    right = l4.load(path)
    model = l4.assemble(bug.change(right.spec), device="cpu", dtype="float32")
    model.load_state_dict(right.state_dict())
    return model


def _found(bug: Bug, theirs: Any, path: Path, seed: int) -> BisectReport:
    tokens = random_tokens(2, LENGTH, 512, seed)
    reference = record_transformers(theirs, tokens)
    with bug.planted():
        return bisect(reference, _broken(bug, path), tokens)


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_slot_of_a_planted_bug_is_named(bug: Bug, folder: Any) -> None:
    report = _found(bug, *folder(bug.case), seed=3)
    assert report.first is not None
    assert report.first.slot == bug.slot
    assert bug.hint in report.hint


# ---------------------------------------------------------------------------- equal pairs

EQUAL: list[tuple[str, dict[str, Any]]] = []
for _case in CASES:  # another implementation, both of our backends
    EQUAL += [(_case, {"peer": True, "attention": backend}) for backend in ("eager", "sdpa")]
for _index, _case in enumerate(CASES):
    EQUAL += [
        (_case, {"attention": "sdpa", "against": {"layers.*.attention.backend": "eager"}}),
        (_case, {"dtype": "bfloat16"}),
    ]
for _experts in ("loop", "dense", "grouped", "padded-bmm"):
    _other = {"layers.*.feed_forward.backend": "dense"}
    EQUAL += [
        ("top-2", {"experts": _experts, "against": _other, "dtype": dtype})
        for dtype in ("float32", "bfloat16")
    ]
EQUAL += [("scout-like", {"packed": True}), ("chunk-5", {"packed": True, "dtype": "bfloat16"})]
assert len(EQUAL) == 50


def _equal(case: str, setting: dict[str, Any], theirs: Any, path: Path, seed: int) -> BisectReport:
    overrides = {}
    if "attention" in setting:
        overrides["layers.*.attention.backend"] = setting["attention"]
    if "experts" in setting:
        overrides["layers.*.feed_forward.backend"] = setting["experts"]
    dtype = setting.get("dtype", "auto")
    subject = l4.load(path, overrides=overrides, dtype=dtype)
    tokens = random_tokens(2, LENGTH, 512, seed)
    if "peer" in setting:
        return bisect(record_transformers(theirs, tokens), subject, tokens)
    if "packed" in setting:  # rows packed into one stream, and each row alone
        rows = [record(subject, row) for row in tokens]
        slots = {slot: torch.cat([r.values[slot] for r in rows]) for slot in rows[0].values}
        return bisect(Recording("rows", rows[0].dtype, tokens, slots), subject, tokens)
    against = l4.load(path, overrides=setting.get("against", {}))  # float32, as it is stored
    return bisect(against, subject, tokens)


@pytest.mark.parametrize("number", range(len(EQUAL)))
def test_no_alarm_about_an_equal_pair(number: int, folder: Any) -> None:
    case, setting = EQUAL[number]
    report = _equal(case, setting, *folder(case), seed=100 + number)
    assert report.first is None, f"{case} {setting}: {report.first} {report.hint}"
    assert not report.missing
    if setting.get("dtype", "auto") == "auto":
        assert report.free_argmax == 1.0


# ---------------------------------------------------------------------------- routes


@pytest.fixture
def tiny() -> str:
    return str(Path(__file__).parent / "data" / "tiny-hf")


def test_flips_are_counted_apart_and_do_not_cascade(folder: Any) -> None:
    """bfloat16 flips experts; on equal inputs only near ties flip, and no slot parts for it."""
    _, path = folder("scout-like")
    tokens = random_tokens(4, 40, 512, seed=1)
    report = bisect(l4.load(path), l4.load(path, dtype="bfloat16"), tokens)
    assert report.first is None
    assert sum(report.flips.values()) < sum(report.free_flips.values())
    assert report.free_logits > 0.1


def test_a_wrong_selection_is_no_near_tie(folder: Any) -> None:
    _, path = folder("top-2")
    broken = l4.load(path)
    router = broken.layers[5].feed_forward.router
    router.select = lambda logits: (-logits).topk(2).indices
    report = bisect(l4.load(path), broken, random_tokens(2, LENGTH, 512, seed=1))
    assert report.first is not None
    assert report.first.slot == "layers.5.feed_forward.router.experts"
    assert "selection" in report.hint
    assert report.flips["layers.5.feed_forward.router.experts"] > LENGTH


def test_experts_in_another_order_are_no_flip(folder: Any) -> None:
    _, path = folder("top-2")
    turned = l4.load(path)
    for layer in turned.layers:
        select = layer.feed_forward.router.select
        layer.feed_forward.router.select = lambda logits, select=select: select(logits).flip(-1)
    report = bisect(l4.load(path), turned, random_tokens(2, LENGTH, 512, seed=1))
    assert report.first is None
    assert sum(report.flips.values()) == 0


def test_forced_experts_reach_the_logits(folder: Any) -> None:
    _, path = folder("scout-like")
    model = l4.load(path)
    tokens = random_tokens(1, 12, 512, seed=2)[0]
    routers = "layers.*.feed_forward.router.experts"
    plain, seen = model.logits(tokens, capture=[routers])
    own = [seen[routers.replace("*", str(layer))] for layer in range(8)]
    assert torch.equal(model.logits(tokens, forced=own), plain)
    other = [(ids + 1) % 4 for ids in own]
    assert not torch.allclose(model.logits(tokens, forced=other), plain, atol=0.1)


# ---------------------------------------------------------------------------- the command


def test_equal_models_exit_with_zero(tiny: str, capsys: Any) -> None:
    options = ["--set-b", "layers.*.attention.backend=eager", "--length", "20"]
    assert main(["bisect", tiny, *options]) == 0
    assert "equal: nothing differs" in capsys.readouterr().out


def test_models_that_part_exit_with_one(tiny: str, capsys: Any) -> None:
    options = ["--set-b", "layers.[1].feed_forward.router=softmax-top-k", "--length", "20"]
    assert main(["bisect", tiny, tiny, *options]) == 1
    out = capsys.readouterr().out
    assert "they part at layers.1.feed_forward.router.weights" in out
    assert "the first takes a sigmoid, the second a softmax" in out
    assert main(["bisect", tiny, "--json", *options]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["equal"] is False
    assert found["first"]["slot"] == "layers.1.feed_forward.router.weights"
    assert found["tokens"] == [1, 20]


def test_transformers_as_the_peer(tiny: str, capsys: Any) -> None:
    assert main(["bisect", tiny, "--peer", "transformers", "--text", "The sun is"]) == 0
    assert "transformers" in capsys.readouterr().out


def test_yesterday_and_today(tiny: str, tmp_path: Path, capsys: Any) -> None:
    file = str(tmp_path / "yesterday.safetensors")
    assert main(["bisect", tiny, "--save", file, "--tokens", "5,6,7,8,9,10,11,12,13"]) == 0
    assert main(["bisect", file, tiny]) == 0
    assert main(["bisect", file, tiny, "--dtype-b", "bfloat16"]) == 0
    router = ["--set-b", "layers.*.feed_forward.router=softmax-top-k"]
    assert main(["bisect", file, tiny, *router]) == 1
    capsys.readouterr()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "neither a folder"),
        (["TINY", "--tokens", "1,x"], "whole numbers"),
        (["TINY", "--tokens", "1", "--text", "a"], "one of them"),
        (["TINY", "--length", "0"], "at least 1"),
        (["TINY", "--peer", "transformers", "--set", "layers.*.attention.backend=eager"], "--set"),
        (["FILE"], "expected a model B"),
        (["FILE", "TINY", "--tokens", "1"], "its own tokens"),
    ],
)
def test_bad_input_is_one_line(
    tiny: str, tmp_path: Path, capsys: Any, words: list[str], says: str
) -> None:
    file = str(tmp_path / "run.safetensors")
    if "FILE" in words:
        record(l4.load(tiny), [1, 2, 3]).save(file)
    words = [{"TINY": tiny, "FILE": file}.get(word, word) for word in words]
    assert main(["bisect", *words]) == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1
