"""Tasks of EleutherAI's evaluation harness (``lm_eval``), where it is installed.

Its interface of a model is three methods over requests, ``loglikelihood``,
``loglikelihood_rolling`` and ``generate_until`` (docs/model_guide.md of its repository). The class
has to derive from the library's own and so can only be made where that is: :func:`adapter` does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama4_train.errors import EvaluationError, RecipeError
from llama4_train.evaluation.results import Figure
from llama4_train.evaluation.scoring import score, windows
from llama4_train.evaluation.tasks import Context

MAX_TOKENS = 256
"""Longest reply where a request says nothing, as in the harness's own models."""

_GENERATION = (
    "until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "min_p",
)  # fmt: skip


@dataclass(frozen=True)
class HarnessTask:
    """Tasks of ``lm_eval``; every number that it reports becomes a figure.

    Attributes:
        tasks: as the harness names them.
        fewshot: examples in front of each question; -1 for what each task says.
        limit: questions of each task; 0 for all.
        tokens: per forward.
        batch: texts generated at once.
        seed: of everything that the harness draws.
        label: in reports; "lm-eval" if empty.
    """

    tasks: tuple[str, ...]
    fewshot: int = -1
    limit: int = 0
    tokens: int = 8192
    batch: int = 8
    seed: int = 0
    label: str = ""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise RecipeError('tasks are empty; expected some, such as lm-eval:tasks=["arc_easy"]')
        least = {"fewshot": -1, "limit": 0, "tokens": 1, "batch": 1, "seed": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise RecipeError(f"{name} is {getattr(self, name)}; expected at least {low}")

    @property
    def called(self) -> str:
        """See :class:`~llama4_train.evaluation.tasks.Task`."""
        return "lm-eval"

    def measure(self, model: Any, context: Context) -> tuple[Figure, ...]:
        """See :class:`~llama4_train.evaluation.tasks.Task`.

        Raises:
            EvaluationError: the library is not installed, or a request cannot be answered.
        """
        library = _library()
        found = library.simple_evaluate(
            model=adapter(model, self.tokens, self.batch, context.progress),
            tasks=list(self.tasks),
            num_fewshot=None if self.fewshot < 0 else self.fewshot,
            limit=self.limit or None,
            log_samples=False,
            random_seed=self.seed,
            numpy_random_seed=self.seed,
            torch_random_seed=self.seed,
            fewshot_random_seed=self.seed,
        )
        counts = found.get("n-samples", {})
        return tuple(
            _figure(name, metric, value, metrics, counts.get(name, {}))
            for name, metrics in found["results"].items()
            for metric, value in metrics.items()
            if isinstance(value, int | float) and "_stderr" not in metric
        )


def _figure(
    name: str, metric: str, value: float, metrics: Mapping[str, Any], counts: Mapping[str, Any]
) -> Figure:
    """One metric, with the standard error that the harness gives it. ``none`` is its no filter."""
    plain, _, filtered = metric.partition(",")
    error = metrics.get(f"{plain}_stderr,{filtered}")
    called = plain if filtered in ("", "none") else f"{plain}.{filtered}"
    facts = {"standard_error": float(error)} if isinstance(error, int | float) else {}
    return Figure(name, called, float(value), int(counts.get("effective", 0)), facts=facts)


def _library() -> Any:
    try:
        library = importlib.import_module("lm_eval")
        importlib.import_module("lm_eval.api.model")
    except ImportError as error:
        raise EvaluationError(
            "the task lm-eval needs EleutherAI's evaluation harness, which cannot be imported here "
            f"({error}); pip install lm_eval"
        ) from error
    return library


def adapter(
    model: Any,
    tokens: int = 8192,
    batch: int = 8,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Any:
    """A model of ours as one of the harness's; for ``lm_eval.simple_evaluate(model=...)``.

    Args:
        model: with a tokenizer.
        tokens: per forward.
        batch: texts generated at once.
        progress: called with how many requests of a kind are answered.

    Raises:
        EvaluationError: the library is not installed, or the model has no tokenizer.
    """
    base: Any = _library().api.model.LM
    answers = Answers(model, tokens, batch, progress)

    class Llama4LM(base):
        """Passes requests on; the library has its own ideas of threads, caches and devices."""

        def __init__(self) -> None:
            super().__init__()
            self.answers = answers

        def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._kept("loglikelihood", requests)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._kept("loglikelihood_rolling", requests)

        def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
            return self._kept("generate_until", requests)

        def _kept(self, kind: str, requests: Any) -> Any:
            asked = [request.args for request in requests]
            found = getattr(self.answers, kind)(asked)
            for one, answer in zip(asked, found, strict=True):
                self.cache_hook.add_partial(kind, one, answer)
            return found

    return Llama4LM()


class Answers:
    """Answers to the three kinds of requests, without the library.

    Args:
        model, tokens, batch, progress: as :func:`adapter`.

    Raises:
        EvaluationError: the model has no tokenizer.
    """

    def __init__(
        self, model: Any, tokens: int, batch: int, progress: Callable[[int, int], None]
    ) -> None:
        if model.tokenizer is None:
            raise EvaluationError(
                f"{model.spec.name} has no tokenizer, which the harness needs; load a folder with "
                "a tokenizer.json"
            )
        self.model = model
        self.tokens = tokens
        self.batch = batch
        self.progress = progress

    def loglikelihood(self, asked: Sequence[tuple[str, str]]) -> list[tuple[float, bool]]:
        """(context, continuation) -> log-likelihood, and whether it is what greedy decoding gives.

        White space at the end of a context belongs to the continuation, whose tokens begin with
        it.
        """
        pairs = [self._pair(context, follows) for context, follows in asked]
        found = score(self.model, pairs, self.tokens)
        self.progress(len(asked), len(asked))
        return found

    def loglikelihood_rolling(self, asked: Sequence[tuple[str]]) -> list[float]:
        """(text,) -> log-likelihood of all of it, each token once, behind the first token."""
        found = []
        for done, (text,) in enumerate(asked):
            tokens = self._encode(text)
            pairs = windows(tokens, self._first(), self.model.spec.max_positions)
            found.append(sum(one for one, _ in score(self.model, pairs, self.tokens)))
            self.progress(done + 1, len(asked))
        return found

    def generate_until(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
        """(context, settings) -> the text that follows, up to one of the stops.

        Raises:
            EvaluationError: a setting is not known, or a request has more than text.
        """
        found: list[str | None] = [None] * len(asked)
        groups: dict[str, list[int]] = {}
        for at, request in enumerate(asked):
            if len(request) != 2:
                raise EvaluationError(
                    f"a request has {len(request)} parts; expected a text and its settings: "
                    "pictures of the harness are not supported"
                )
            groups.setdefault(repr(sorted(dict(request[1]).items())), []).append(at)
        done = 0
        for places in groups.values():
            settings = _settings(asked[places[0]][1])
            room = self.model.spec.max_positions - settings["max_tokens"]
            if room < 1:
                raise EvaluationError(
                    f"a request asks for {settings['max_tokens']} tokens; the model's context "
                    f"holds {self.model.spec.max_positions}, prompt included: lower max_gen_toks"
                )
            for start in range(0, len(places), self.batch):
                some = places[start : start + self.batch]
                prompts = [self._prompt(asked[at][0], room) for at in some]
                generations = self.model.generate(prompts, **settings)
                for at, one in zip(some, generations, strict=True):
                    found[at] = one.text
                done += len(some)
                self.progress(done, len(asked))
        return [text for text in found if text is not None]

    def _prompt(self, text: str, room: int) -> list[int]:
        """The last tokens of a context that leave room for the reply, the first one kept."""
        tokens = [self._first(), *self._encode(text)]
        return tokens if len(tokens) <= room else [tokens[0], *tokens[1:][len(tokens) - room :]]

    def _pair(self, context: str, follows: str) -> tuple[list[int], list[int]]:
        bare = context.rstrip()
        if bare:
            follows = context[len(bare) :] + follows
            context = bare
        before = self._encode(context)
        after = self._encode(context + follows)[len(before) :] or self._encode(follows)
        if not after:
            raise EvaluationError(
                f"a request asks how likely {follows!r} is, which has no tokens; expected some text"
            )
        return [self._first(), *before], after

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self.model.tokenizer.encode(text, bos=False)
        return tokens

    def _first(self) -> int:
        """What stands in front of every text."""
        first = self.model.tokenizer.bos
        if first is None:
            ends = self.model.spec.tokens.eos
            if not ends:
                raise EvaluationError(
                    f"{self.model.spec.name} names neither a beginning-of-text nor an end-of-text "
                    "token, behind which a text could be scored"
                )
            first = ends[0]
        return int(first)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The harness's settings of a generation as ours.

    Raises:
        EvaluationError: one is not known.
    """
    for name in given:
        if name not in _GENERATION:
            raise EvaluationError(
                f"a request sets {name!r}, which is not known; expected some of "
                f"{', '.join(_GENERATION)}"
            )
    until = given.get("until") or []
    temperature = float(given.get("temperature") or 0.0)
    if given.get("do_sample") is False:
        temperature = 0.0
    elif given.get("do_sample") and not temperature:
        temperature = 1.0
    found: dict[str, Any] = {
        "stop": [until] if isinstance(until, str) else list(until),
        "max_tokens": int(given.get("max_gen_toks", MAX_TOKENS)),
        "temperature": temperature,
    }
    if temperature:
        found |= {name: given[name] for name in ("top_k", "top_p", "min_p") if name in given}
    return found
