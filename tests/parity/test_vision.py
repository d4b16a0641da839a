"""What models with eyes see and say equals transformers', in float32."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.parity.conftest import Pair
from tests.parity.oracle import (
    END,
    PATCH,
    START,
    VISION_BASE,
    VISION_CASES,
    RouteGaps,
    eyes,
    features_per_tile,
    random_tiles,
    random_tokens,
    saved,
    seeing_oracle,
    tolerance,
)
from torch import Tensor

import llama4_core as l4
from llama4_core.errors import ModalityError

pytest.importorskip("llama4_vision")

TEXT = {"num_hidden_layers": 4}
# Smaller models of other kinds of text: dense layers between, and without experts, as Guard's.
TEXTS: dict[str, dict[str, Any]] = {
    "scout-like": TEXT,
    "maverick-like": {**TEXT, "interleave_moe_layer_step": 2, "use_qk_norm": False},
    "dense": {**TEXT, "moe_layers": []},
}


@pytest.fixture(scope="session")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``seeing(vision, text)``: both models of a named case."""

    @cache
    def build(vision: str, text: str = "scout-like") -> Pair:
        theirs = seeing_oracle(TEXTS[text], VISION_CASES[vision])
        path = saved(theirs, tmp_path_factory.mktemp("seeing") / vision)
        return Pair(theirs, l4.load(path))

    return build


def close_features(found: Tensor, expected: Tensor) -> bool:
    """5e-6 of the largest: two references that share no code agree within 8.3e-7 of about 1."""
    limit = 5e-6 * float(expected.abs().max())
    return found.shape == expected.shape and float((found - expected).abs().max()) <= limit


@pytest.mark.parametrize("tiles", [1, 2, 5])
@pytest.mark.parametrize("name", VISION_CASES)
def test_features(seeing: Any, name: str, tiles: int) -> None:
    """After the adapter, and after the projection into the text model."""
    theirs, ours = seeing(name)
    pixels = random_tiles(tiles, VISION_CASES[name], seed=tiles)
    expected = theirs.vision_model(pixels).last_hidden_state
    assert expected.shape[1] == features_per_tile(VISION_CASES[name])
    assert close_features(ours.vision.adapter(ours.vision.encoder(pixels).features), expected)
    assert close_features(ours.vision(pixels), theirs.multi_modal_projector(expected))


def test_features_of_every_block(seeing: Any) -> None:
    """``out_layers`` gives transformers' hidden states without their class token."""
    theirs, ours = seeing("base")
    pixels = random_tiles(3, VISION_BASE, seed=1)
    states = theirs.vision_model(pixels, output_hidden_states=True).hidden_states
    assert len(states) == 4  # before the first block, and behind each of the three
    found = ours.vision.encoder(pixels, out_layers=(2, 0)).hidden
    assert close_features(found[0], states[3][:, :-1])
    assert close_features(found[1], states[1][:, :-1])


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_every_attention_backend_sees_the_same(seeing: Any, tmp_path: Path, backend: str) -> None:
    """The encoder attends through the same backends as the text model."""
    theirs, _ = seeing("base")
    overrides = {"vision.encoder.layers.*.attention.backend": backend}
    ours = l4.load(saved(theirs, tmp_path), overrides=overrides)
    pixels = random_tiles(2, VISION_BASE, seed=2)
    expected = theirs.vision_model(pixels).last_hidden_state
    assert close_features(ours.vision.adapter(ours.vision.encoder(pixels).features), expected)


# Rows of a prompt: a number is that many words of text, a tuple the tiles of one picture.
PROMPTS: dict[str, list[list[Any]]] = {
    "picture alone": [[(1,)]],
    "text before": [[7, (1,)]],
    "text behind": [[(1,), 7]],
    "text around": [[3, (1,), 9]],
    "many tiles": [[2, (5,), 4]],
    "two pictures": [[2, (1,), (2,), 6]],
    "text between": [[1, (1,), 3, (3,), 2, (1,), 1]],
    "two rows": [[3, (2,), 9], [3, (2,), 9]],
    "rows of other pictures": [[3, (3,), 2], [1, (1,), 2, (2,), 0]],
    "a row without": [[20], [6, (2,), 4]],
}


def prompt(rows: list[list[Any]], vision: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Token ids ``[B, T]``, shorter rows filled up with text, and all tiles in order."""
    each = features_per_tile(vision)
    built: list[list[int]] = []
    tiles = 0
    for index, row in enumerate(rows):
        ids: list[int] = []
        for part in row:
            if isinstance(part, int):
                ids += random_tokens(1, part, PATCH, seed + index + len(ids))[0].tolist()
            else:
                tiles += part[0]
                ids += [START, *[PATCH] * (part[0] * each), END]
        built.append(ids)
    length = max(map(len, built))
    filled = [row + random_tokens(1, length - len(row), PATCH, seed)[0].tolist() for row in built]
    return torch.tensor(filled), random_tiles(tiles, vision, seed)


def check_logits(
    theirs: Any, ours: Any, rows: list[list[Any]], vision: dict[str, Any], seeds: range
) -> None:
    """Compares the first draw whose routers decide clearly."""
    for seed in seeds:
        gaps = RouteGaps(theirs.language_model)
        tokens, pixels = prompt(rows, vision, seed)
        expected = theirs(input_ids=tokens, pixel_values=pixels).logits
        if gaps.smallest > 1e-4:
            assert (ours.logits(tokens, pixels) - expected).abs().max() <= tolerance(expected)
            return
    pytest.fail(f"no draw of {seeds} has a router gap above 1e-4")


@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
def test_prompts(seeing: Any, rows: list[list[Any]]) -> None:
    """Pictures and text in any order."""
    theirs, ours = seeing("base")
    check_logits(theirs, ours, rows, VISION_BASE, range(40, 60))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("vision", VISION_CASES)
def test_pairs_of_eyes_and_text(seeing: Any, vision: str, text: str) -> None:
    """Every encoder beside every kind of text model."""
    theirs, ours = seeing(vision, text)
    check_logits(theirs, ours, [[4, (2,), 3, (1,), 5]], VISION_CASES[vision], range(60, 80))


@st.composite
def encoders(draw: st.DrawFn) -> dict[str, Any]:
    """Shapes that transformers can run."""
    heads = draw(st.sampled_from([1, 2, 3]))
    block = draw(st.sampled_from([1, 2, 4]))
    patch = draw(st.integers(1, 8))
    return eyes(
        hidden_size=4 * heads * draw(st.integers(2, 5)),
        num_hidden_layers=draw(st.integers(1, 3)),
        num_attention_heads=heads,
        num_channels=draw(st.sampled_from([1, 3])),
        patch_size=patch,
        image_size=patch * block * draw(st.integers(1, 3)),
        pixel_shuffle_ratio=1 / block,
        adapter=draw(st.integers(8, 40)),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": draw(st.sampled_from([3.0, 10000.0])),
        },
    )


rows_of_prompts = st.lists(
    st.lists(st.integers(0, 9) | st.tuples(st.integers(1, 3)), min_size=1, max_size=5),
    min_size=1,
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(vision=encoders(), rows=rows_of_prompts, seed=st.integers(0, 2**16))
def test_random_encoders_and_prompts(
    tmp_path_factory: pytest.TempPathFactory,
    vision: dict[str, Any],
    rows: list[list[Any]],
    seed: int,
) -> None:
    """Random encoders, each loaded from the checkpoint that transformers writes."""
    tokens, pixels = prompt(rows, vision, seed)
    assume(tokens.numel() > 0 and pixels.shape[0] > 0)
    theirs = seeing_oracle({"num_hidden_layers": 1}, vision, seed)
    seen = theirs.multi_modal_projector(theirs.vision_model(pixels).last_hidden_state)
    # A feature of next to nothing is blown up by the text model's first norm, and its rounding with
    # it; embeddings have a root mean square of 1.
    assume(seen.square().mean(-1).sqrt().min() > 0.1)
    gaps = RouteGaps(theirs.language_model)
    expected = theirs(input_ids=tokens, pixel_values=pixels).logits
    assume(gaps.smallest > 1e-4)
    ours = l4.load(saved(theirs, tmp_path_factory.mktemp("random")))
    assert close_features(ours.vision(pixels), seen)
    assert (ours.logits(tokens, pixels) - expected).abs().max() <= tolerance(expected)


def greedy(model: Any, tokens: Tensor, pixels: Tensor, count: int) -> list[int]:
    """Prefill with features, then one token after the other."""
    cached = model.cached(1)
    seen = {model.vision.placeholder: model.vision(pixels).flatten(0, 1)}
    hidden, _ = model(tokens, cached.extend([len(tokens)]), seen)
    cached.commit()
    found = [int(model.project(hidden[-1:]).argmax())]
    while len(found) < count:
        hidden, _ = model(torch.tensor(found[-1:]), cached.extend([1]))
        cached.commit()
        found.append(int(model.project(hidden).argmax()))
    return found


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["picture alone", "text around", "text between"])
def test_greedy_continuations(seeing: Any, text: str, name: str) -> None:
    """Twelve words after pictures, past a chunk of 8, from the cache and without one."""
    theirs, ours = seeing("base", text)
    tokens, pixels = prompt(PROMPTS[name], VISION_BASE, seed=5)
    whole = theirs.generate(
        input_ids=tokens,
        pixel_values=pixels,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        max_new_tokens=12,
        min_new_tokens=12,
        eos_token_id=None,
        pad_token_id=0,
    )
    expected = whole[0, tokens.shape[1] :].tolist()
    assert len(expected) == 12
    assert greedy(ours, tokens[0], pixels, 12) == expected
    # And by the public way, with the prompt whole and cut in the middle of a picture.
    for chunk in (None, 5):
        said = ours.generate(
            tokens[0].tolist(),
            pixel_values=pixels,
            max_tokens=12,
            ignore_eos=True,
            prefill_chunk=chunk,
        )
        assert list(said.tokens) == expected
    # Teacher-forced and uncached: every word of theirs is the likeliest to us too.
    logits = ours.logits(whole[0, :-1], pixels)
    assert logits[tokens.shape[1] - 1 :].argmax(-1).tolist() == expected


@pytest.mark.parametrize("more", [-1, 1])
def test_a_count_that_does_not_fit_is_refused_by_both(seeing: Any, more: int) -> None:
    """transformers raises as well: no model runs on with features left over."""
    theirs, ours = seeing("base")
    tokens, _ = prompt([[2, (2,), 2]], VISION_BASE, seed=1)
    pixels = random_tiles(2 + more, VISION_BASE, seed=1)
    with pytest.raises(ValueError, match="do not match"):
        theirs(input_ids=tokens, pixel_values=pixels)
    with pytest.raises(ModalityError, match=rf"got {4 * (2 + more)} features for 8 placeholder"):
        ours.logits(tokens, pixels)


def test_text_alone(seeing: Any) -> None:
    """Without pictures the model with eyes is the text model in it."""
    theirs, ours = seeing("base")
    for seed in range(10):
        gaps = RouteGaps(theirs.language_model)
        tokens = random_tokens(2, 27, PATCH, seed)
        expected = theirs(input_ids=tokens).logits
        if gaps.smallest > 1e-4:
            assert (ours.logits(tokens) - expected).abs().max() <= tolerance(expected)
            return
    pytest.fail("no draw has a router gap above 1e-4")
