"""How well a model tells what comes next in data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from llama4_train.data.encode import Encoder
from llama4_train.data.packing import pack
from llama4_train.errors import EvaluationError, RecipeError
from llama4_train.evaluation.results import Figure
from llama4_train.evaluation.tasks import Context
from llama4_train.loss.linear_cross_entropy import linear_cross_entropy
from llama4_train.objectives.inputs import head_weight, hidden_states
from llama4_train.protocols import Example
from llama4_train.recipe import SourcePart


@dataclass(frozen=True)
class Perplexity:
    """Perplexity and bits per byte of data sources.

    Every token that would carry loss counts once, whatever its weight; the end of a text is among
    them. With the negative log-likelihood ``nll`` of all of them together, in nats::

        perplexity = exp(nll / tokens),  bits per byte = nll / ln 2 / bytes of UTF-8

    Perplexities of models with different tokenizers cannot be compared, bits per byte can.

    Attributes:
        source: the one component of the socket data_sources; or
        sources: several, as in a recipe; their weights play no part.
        settings: of ``source``.
        records: most documents of each source.
        length: longest document in tokens, which are scored as far as that; 0 for the model's
            longest context.
        tokens: per forward.
        label: in reports; "perplexity" if empty.
    """

    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[SourcePart, ...] = ()
    records: int = 200
    length: int = 0
    tokens: int = 8192
    label: str = ""

    def __post_init__(self) -> None:
        if bool(self.source) == bool(self.sources):
            raise RecipeError(
                f"source is {self.source!r} and sources are {len(self.sources)}; expected one of "
                'them, such as perplexity:source=text,settings.files=["notes.txt"]'
            )
        if self.settings and not self.source:
            raise RecipeError("settings stand beside sources; put them into one of these")
        for name, least in (("records", 1), ("length", 0), ("tokens", 1)):
            if getattr(self, name) < least:
                raise RecipeError(f"{name} is {getattr(self, name)}; expected at least {least}")

    @property
    def called(self) -> str:
        """See :class:`~llama4_train.evaluation.tasks.Task`."""
        return "perplexity"

    def measure(self, model: Any, context: Context) -> tuple[Figure, ...]:
        """See :class:`~llama4_train.evaluation.tasks.Task`.

        Raises:
            EvaluationError: there is nothing to score, or the model has no tokenizer.
            DataError: a record cannot be read.
        """
        if model.tokenizer is None:
            raise EvaluationError(
                f"{model.spec.name} has no tokenizer, so no text can be scored; load a folder with "
                "a tokenizer.json"
            )
        parts = self.sources or (SourcePart(self.source, settings=self.settings),)
        longest = min(self.length or model.spec.max_positions, model.spec.max_positions)
        encoder = Encoder(model.tokenizer, model.modalities, longest)
        sums: dict[str, _Sum] = {}
        total = self.records * len(parts)
        done = 0
        for part in parts:
            built = context.known.find("data_sources", part.name).component.build(**part.settings)
            examples = _examples(built, encoder, self.records, part.label)
            for batch in _batches(examples, max(self.tokens, longest)):
                _score(model, batch, sums)
                done += len(batch)
                context.progress(done, total)
        if not any(one.tokens for one in sums.values()):
            raise EvaluationError("the data sources gave no token to score; check their settings")
        found = [figure for name in sorted(sums) for figure in sums[name].figures(name)]
        if len(sums) > 1:
            whole = _Sum()
            for one in sums.values():
                whole.add(one.nll, one.tokens, one.bytes, one.documents)
            found += whole.figures("all")
        return tuple(found)


@dataclass
class _Sum:
    nll: float = 0.0
    tokens: int = 0
    bytes: int = 0
    documents: int = 0

    def add(self, nll: float, tokens: int, size: int, documents: int = 1) -> None:
        self.nll += nll
        self.tokens += tokens
        self.bytes += size
        self.documents += documents

    def figures(self, name: str) -> list[Figure]:
        facts: dict[str, float | str] = {"documents": self.documents, "bytes": self.bytes}
        mean = self.nll / self.tokens
        try:
            perplexity = math.exp(mean)
        except OverflowError:
            perplexity = math.inf
        found = [Figure(name, "perplexity", perplexity, self.tokens, facts=facts)]
        if self.bytes:
            bits = self.nll / math.log(2) / self.bytes
            found.append(Figure(name, "bits_per_byte", bits, self.tokens, facts=facts))
        return found


def _examples(source: Any, encoder: Encoder, most: int, label: str) -> Iterator[Example]:
    """The first documents of a source, labelled."""
    prepare = getattr(source, "prepare", None)
    if prepare is not None:
        prepare(encoder)
    for _ in range(most):
        try:
            record = next(source)
        except StopIteration:
            return
        example = encoder(record)
        yield replace(example, source=label or example.source or "data")


def _batches(examples: Iterator[Example], tokens: int) -> Iterator[list[Example]]:
    """Examples of together at most so many tokens."""
    found: list[Example] = []
    room = tokens
    for example in examples:
        if found and len(example.tokens) > room:
            yield found
            found, room = [], tokens
        found.append(example)
        room -= len(example.tokens)
    if found:
        yield found


def _score(model: Any, examples: Sequence[Example], sums: dict[str, _Sum]) -> None:
    """Adds the documents of one forward to the sums of their sources."""
    batch = pack(examples)
    batch = replace(
        batch, tokens=batch.tokens.to(model.device), targets=batch.targets.to(model.device)
    )
    with torch.no_grad():
        hidden, _ = hidden_states(model, batch)
        losses = linear_cross_entropy(hidden, head_weight(model), batch.targets)
    # float64: thousands of tokens are added up.
    by_document = losses.nll.double().split(list(batch.lengths))
    for example, nll in zip(examples, by_document, strict=True):
        targets = [at for at in range(1, len(example.tokens)) if example.weights[at] > 0]
        if targets:
            text = _text(model.tokenizer, example, targets)
            value = float(nll[[at - 1 for at in targets]].sum())
            sums.setdefault(example.source, _Sum()).add(value, len(targets), len(text.encode()))


def _text(tokenizer: Any, example: Example, targets: Sequence[int]) -> str:
    """The text of the tokens that count: each stretch of them for itself, specials left out."""
    stretches: list[list[int]] = []
    before = -2
    for at in targets:
        if at != before + 1:
            stretches.append([])
        stretches[-1].append(example.tokens[at])
        before = at
    return "".join(tokenizer.decode(stretch) for stretch in stretches)
