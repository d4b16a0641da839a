"""Checks of the socket modalities: other kinds of input in the stream of tokens."""

from __future__ import annotations

import copy
import functools
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st

from llama4_core.assembly.assemble import assemble
from llama4_core.chat.messages import Text
from llama4_core.errors import ModalityError
from llama4_core.model.transformer import Transformer
from llama4_core.testing.check import Check, Subject, check
from llama4_core.testing.compare import close, holds, same
from llama4_core.testing.modality_cases import (
    Case,
    Input,
    build,
    cases,
    content_of,
    fill,
    joined,
    kinds_of,
    part_of,
    picture,
    refusal,
    specs,
    tokenizer,
)
from llama4_core.testing.strategies import DTYPES

# What no modality can read: neither parts of a message nor sources of one.
_NOTHING: tuple[Any, ...] = (None, 3.5, object(), "no part", b"", [], Text("words"))
# Sources that are no picture, film or recording.
_NONSENSE: tuple[Any, ...] = (
    None,
    -1,
    object(),
    "no/such/file.bin",
    b"",
    b"\x00\xff" * 40,
    ["no/such.bin"],
    {},
)
# Inputs of one prompt; far beyond what a prompt of pictures is good for.
_MANY = 1024


@functools.lru_cache(maxsize=8)
def _model(model: int) -> Transformer:
    """The text model, without a modality."""
    text = assemble(specs()[model].text_only(), device="cpu", dtype="float32")
    fill(text, 2)
    return text


def _with(modality: Any, case: Case) -> Transformer:
    """The same text model with the modality."""
    overrides = {"vision": lambda spec, parts: modality}
    whole = assemble(case.spec, overrides, device="cpu", dtype="float32")
    whole.load_state_dict(_model(case.model).state_dict(), strict=False)
    return whole


@check(
    properties=(32,),
    why="a feature too many or too few moves every later picture to the wrong place",
    cases=cases(),
)
def as_many_places_as_features(subject: Subject, case: Case) -> None:
    """An input's tokens hold ``places`` placeholders, and its features are so many rows."""
    modality = build(subject, case.spec)
    with torch.no_grad():
        for part, reading in zip(case.parts(modality), _read(modality, case), strict=True):
            count = list(reading.tokens).count(modality.placeholder)
            what = f"{part!r:.60}"
            holds(count == reading.places, f"{what}: {count} placeholders, {reading.places} places")
            holds(count > 0, f"{what}: no placeholder at all")
            rows = modality(reading.inputs.to(subject.device)).flatten(0, 1).shape[0]
            holds(rows == count, f"{what}: {rows} features for {count} placeholders")
            vocabulary = case.spec.vocabulary
            inside = all(isinstance(t, int) and 0 <= t < vocabulary for t in reading.tokens)
            holds(inside, f"{what}: a token is no id below {vocabulary}")
            holds(isinstance(reading.key, str) and bool(reading.key), f"{what}: no key")


@check(
    why="features of another width or type do not fit the stream; NaN makes every answer nonsense",
    cases=cases(),
)
def features_fit_the_model(subject: Subject, case: Case) -> None:
    """Features are ``[B, T, D]``, finite, in the dtype of the weights."""
    for name in ("float32", "bfloat16"):
        modality = build(subject, case.spec, name)
        inputs = joined(_read(modality, case)).to(subject.device, DTYPES[name])
        with torch.no_grad():
            got = modality(inputs)
        holds(got.dim() == 3, f"features have shape {list(got.shape)}; expected [B, T, D]")
        holds(len(got) == len(inputs), f"{len(got)} rows of features for {len(inputs)} inputs")
        width = case.spec.width
        holds(got.shape[-1] == width, f"features are {got.shape[-1]} wide; expected {width}")
        holds(got.dtype == DTYPES[name], f"features are {got.dtype}; expected {name}")
        holds(bool(got.isfinite().all()), f"features in {name} are not finite")


@check(
    why="a cache gives one picture's features for another, or never finds the same one again",
    cases=cases(2, 5),
)
def keys_tell_inputs_apart(subject: Subject, case: Case) -> None:
    """Keys are equal exactly for equal inputs that were processed alike."""
    found: list[tuple[Any, Any, int]] = []
    for model, spec in enumerate(specs()):
        modality = build(subject, spec)
        parts = case.parts(modality)
        if "image" in modality.kinds:
            # The same bytes in rows of another length.
            seed = 1 + case.inputs[0].seed
            source = type(part_of(modality, Input("image", 1)))
            parts += [source(picture(seed)), source(picture(seed, turned=True))]
        for part in parts:
            (reading,) = modality.read([part], tokenizer())
            found.append((content_of(part), reading, model))
    for here, (content, reading, model) in enumerate(found):
        for other, earlier, place in found[:here]:
            equal = reading.key == earlier.key
            if model == place and content == other:
                holds(equal, "equal inputs have different keys")
            elif equal:
                alike = reading.inputs.shape == earlier.inputs.shape
                holds(alike, "the key does not say what was read, or how it was processed")
                same(reading.inputs, earlier.inputs, "different inputs with equal keys")


@check(
    properties=(34,),
    why="the model is asked about the second picture and sees the first",
    cases=cases(0, 5),
)
def parts_in_order(subject: Subject, case: Case) -> None:
    """Reading a prompt gives one reading per part, in order: what each part alone gives."""
    modality = build(subject, case.spec)
    together = _read(modality, case)
    holds(len(together) == len(case.inputs), f"{len(together)} readings, {len(case.inputs)} parts")
    for index, (part, reading) in enumerate(zip(case.parts(modality), together, strict=True)):
        (alone,) = modality.read([part], tokenizer())
        holds(reading.key == alone.key, f"part {index}: another key than alone")
        holds(reading.tokens == alone.tokens, f"part {index}: other tokens than alone")
        same(reading.inputs, alone.inputs, f"part {index}: inputs")


@check(
    properties=(34,),
    why="what a model sees in a picture must not depend on the pictures beside it",
    cases=cases(2, 4),
)
def together_as_alone(subject: Subject, case: Case) -> None:
    """Features of inputs that are joined along the first axis are those of each, in order."""
    modality = build(subject, case.spec)
    readings = _read(modality, case)
    with torch.no_grad():
        got = modality(joined(readings).to(subject.device))
        expected = [modality(reading.inputs.to(subject.device)) for reading in readings]
    close(got, torch.cat(expected), subject.tolerance("float32"), "inputs together")


@check(
    why="answers differ from one day to the next, or a user's own picture is changed",
    cases=cases(),
)
def reading_changes_nothing(subject: Subject, case: Case) -> None:
    """Reading and encoding again give the same bits; neither input nor module is changed."""
    modality = build(subject, case.spec)
    parts = case.parts(modality)
    before = [copy.deepcopy(content_of(part)) for part in parts]
    state = {name: value.clone() for name, value in modality.state_dict().items()}
    first = modality.read(parts, tokenizer())
    inputs = joined(first).to(subject.device)
    kept = inputs.clone()
    with torch.no_grad():
        features = modality(inputs)
        holds(torch.equal(inputs, kept), "encoding changes the inputs in place")
        again = modality.read(parts, tokenizer())
        for index, (now, then) in enumerate(zip(again, first, strict=True)):
            holds(now.tokens == then.tokens, f"part {index}: other tokens when read again")
            same(now.inputs, then.inputs, f"part {index}: inputs when read again")
        same(modality(kept), features, "features of the same inputs again")
    holds([content_of(part) for part in parts] == before, "reading changes the source")
    for name, value in modality.state_dict().items():
        same(value, state[name], f"the module's {name}")


@check(
    why="a part without gradients is never trained, and nothing says so",
    cases=cases(1, 2),
)
def gradients_reach_the_weights(subject: Subject, case: Case) -> None:
    """Every weight has a finite gradient, and that of the features' sum is its true slope."""
    modality = build(subject, case.spec).double()
    inputs = joined(_read(modality, case)).to(subject.device, torch.float64)
    named = dict(modality.named_parameters())
    generator = torch.Generator().manual_seed(3)
    features = modality(inputs)
    weights = torch.randn(features.shape, generator=generator, dtype=torch.float64)
    weights = weights.to(subject.device)
    (features * weights).sum().backward()
    slope = 0.0
    steps = {}
    for name, parameter in named.items():
        holds(parameter.grad is not None, f"{name} has no gradient")
        gradient = parameter.grad
        holds(bool(gradient.isfinite().all()), f"the gradient of {name} is not finite")
        step = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        steps[name] = step.to(subject.device)
        slope += float((gradient * steps[name]).sum())
    small = 1e-6
    values = []
    with torch.no_grad():
        for sign in (1, -2):
            for name, parameter in named.items():
                parameter.add_(steps[name], alpha=sign * small)
            values.append(float((modality(inputs) * weights).sum()))
    measured = (values[0] - values[1]) / (2 * small)
    # Central differences in float64: curvature gives 1e-12 of the third derivative, rounding
    # 1e-16 / 1e-6 of the sum; both far below a thousandth of a slope over all weights.
    holds(
        abs(measured - slope) <= 1e-3 * max(1.0, abs(slope)),
        f"the slope along all weights is {measured:.6g}; the gradients say {slope:.6g}",
    )


@check(
    properties=(32,),
    why="a picture that changes other tokens, or lies at the wrong ones, is not what was shown",
    cases=cases(1, 3),
)
def features_take_their_places_only(subject: Subject, case: Case) -> None:
    """In the model, features replace embeddings at placeholders, in order, and nothing else."""
    modality = build(subject, case.spec)
    whole = _with(modality, case)
    readings = _read(modality, case)
    stream = [1, 2]
    for number, reading in enumerate(readings):
        stream += [*reading.tokens, 3 + number]
    tokens = torch.tensor(stream)
    seen: list[torch.Tensor] = []
    handle = whole.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        features = modality(joined(readings)).flatten(0, 1)
        whole(tokens, whole.packed([len(stream)]), {modality.placeholder: features})
        embedded = whole.embedding(tokens)
    handle.remove()
    places = tokens == modality.placeholder
    same(seen[0][~places], embedded[~places], "tokens beside the inputs")
    same(seen[0][places], features, "features at the placeholders")


@check(
    properties=(33,),
    why="whoever installs a package for pictures must not get other answers to texts",
    cases=cases(1, 2),
)
def text_alone_is_unchanged(subject: Subject, case: Case) -> None:
    """Before and after inputs were read, texts give the bits that they give without it."""
    expected = _model(case.model).logits([1, 2, 3, 4, 5])
    generator, default = torch.random.get_rng_state(), torch.get_default_dtype()
    try:
        modality = build(subject, case.spec)
        whole = _with(modality, case)
        same(whole.logits([1, 2, 3, 4, 5]), expected, "logits of a text")
        generator = torch.random.get_rng_state()
        modality(joined(_read(modality, case)).to(subject.device))
        now = torch.random.get_rng_state()
        holds(torch.equal(now, generator), "reading draws from torch's random numbers, or seeds")
        holds(torch.get_default_dtype() == default, "reading leaves another default dtype")
        holds(torch.is_grad_enabled(), "reading leaves gradients switched off")
        same(whole.logits([1, 2, 3, 4, 5]), expected, "logits of a text after an input was read")
    finally:
        torch.set_default_dtype(default)
        torch.set_grad_enabled(True)


@check(
    why="a wrong file ends a server with a traceback, or is answered as if it had been seen",
    cases=lambda subject: st.sampled_from(_NOTHING),
)
def nonsense_is_refused(subject: Subject, case: Any) -> None:
    """What is no part of a kind that it reads, or has a senseless source, is a ModalityError."""
    modality = build(subject, specs()[0])
    refusal(lambda: modality.read([case], tokenizer()), f"reading {case!r:.40}")
    for kind in {"image", "video"}.intersection(modality.kinds or ("image",)):
        build_part = type(part_of(modality, Input(kind, 1))) if modality.kinds else _image
        for source in _NONSENSE:
            part = build_part(source)
            refusal(functools.partial(modality.read, [part], tokenizer()), f"{kind} {source!r:.40}")
    inputs = torch.zeros(2)
    if modality.kinds:
        first = part_of(modality, Input(kinds_of(subject)[0], 1))
        inputs = modality.read([first], tokenizer())[0].inputs[0]
    refusal(lambda: modality(inputs), f"encoding inputs of shape {list(inputs.shape)}")


def _image(source: Any) -> Any:
    from llama4_core.chat.messages import Image

    return Image(source)


@check(
    why="one prompt with ten thousand pictures takes a machine's memory from everybody else",
    cases=lambda subject: st.sampled_from(kinds_of(subject)),
    examples=3,
)
def too_many_are_refused(subject: Subject, case: str) -> None:
    """Some number of inputs up to 1,024 is refused, naming what was got and what is allowed."""
    modality = build(subject, specs()[0])
    part = part_of(modality, Input(case, 1))
    count = 1
    while count <= _MANY:
        try:
            modality.read([part] * count, tokenizer())
        except ModalityError as error:
            numbers = [int(found) for found in re.findall(r"\d+", str(error))]
            fits = [allowed for allowed in numbers if allowed < max(numbers)]
            holds(bool(fits), f"{count} inputs: {str(error)!r}; expected both numbers")
            holds(max(numbers) >= count, f"{count} inputs: {str(error)!r} does not say how many")
            holds("\n" not in str(error), f"the error has several lines: {str(error)!r}")
            return
        count *= 2
    raise AssertionError(f"{_MANY} inputs of kind {case!r} are read; expected a ModalityError")


@check(
    why="a program that draws what a model found cannot go on with half a picture",
    cases=cases(1, 1),
)
def drawing_is_whole_or_nothing(subject: Subject, case: Case) -> None:
    """``annotate`` writes its file and returns plain values, or raises and writes nothing."""
    modality = build(subject, case.spec)
    (part,) = case.parts(modality)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "out.png")
        try:
            found = modality.annotate(part, "a text without a place in it", path)
        except ModalityError:
            holds(not list(Path(folder).iterdir()), "annotate raises, and leaves a file")
        else:
            holds(path.is_file(), "annotate returns, and there is no file")
            holds(isinstance(found, list), f"annotate returns {found!r:.60}; expected a list")
            json.dumps(found)
        missing = Path(folder, "no", "such", "folder", "out.png")
        refusal(lambda: modality.annotate(part, "words", missing), "drawing into no folder")


def _read(modality: Any, case: Case) -> list[Any]:
    found: list[Any] = modality.read(case.parts(modality), tokenizer())
    return found


CHECKS: tuple[Check, ...] = (
    as_many_places_as_features,
    features_fit_the_model,
    keys_tell_inputs_apart,
    parts_in_order,
    together_as_alone,
    reading_changes_nothing,
    gradients_reach_the_weights,
    features_take_their_places_only,
    text_alone_is_unchanged,
    nonsense_is_refused,
    too_many_are_refused,
    drawing_is_whole_or_nothing,
)
