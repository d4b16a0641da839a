"""Choosing the part of every slot while a model is assembled.

An explicit name either runs or is an error with its reason. "auto" takes, per regime, the highest
ranked candidate that does not refuse, and freezes the answer in a :class:`RegimeTable`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from llama4_core.errors import ComponentError
from llama4_core.plugins.catalogue import Catalogue, Entry
from llama4_core.plugins.given import from_object, with_settings
from llama4_core.plugins.hookspecs import SOCKETS
from llama4_core.plugins.overrides import Override, Overrides
from llama4_core.plugins.regimes import Regime, RegimeTable
from llama4_core.plugins.report import AssemblyReport, Choice, Provider, Refusal, Row

AUTO = "auto"
# Regimes by number of tokens: the bound of the row, and the number that candidates are asked about.
TOKENS: tuple[tuple[int | None, int], ...] = ((8, 8), (256, 256), (None, 4096))


class Unavailable:
    """Stands in a row that nothing can run; using it is the error."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def plan(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raises the reason."""
        raise ComponentError(self.reason)

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Raises the reason."""
        raise ComponentError(self.reason)


@dataclass(frozen=True)
class _Question:
    """One row that has to be decided: who can take all of these problems?"""

    max_tokens: int | None
    grad: bool
    problems: tuple[Any, ...]

    @property
    def label(self) -> str:
        return _label(self.max_tokens, self.grad, by_tokens=hasattr(self.problems[0], "tokens"))


@dataclass
class _Shared:
    """What all paths of one assembly share."""

    catalogue: Catalogue
    overrides: Overrides
    report: AssemblyReport
    instances: dict[Any, Any] = dataclasses.field(default_factory=dict)
    decided: dict[Any, tuple[RegimeTable, Choice]] = dataclasses.field(default_factory=dict)


class Assembler:
    """Builds parts and records each choice; implements :class:`llama4_core.protocols.parts.Parts`.

    Args:
        catalogue: where names are looked up.
        overrides: what replaces the names that a spec gives.
        dtype, device: what the model will run in and on.
        report: where choices are written; a new one if None.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        overrides: Overrides | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        report: AssemblyReport | None = None,
    ) -> None:
        self.path = ""
        self.dtype = dtype
        self.device = device
        self._shared = _Shared(
            catalogue,
            Overrides() if overrides is None else overrides,
            AssemblyReport(dtype=dtype, device=device) if report is None else report,
        )

    @property
    def report(self) -> AssemblyReport:
        """The report that choices are written to."""
        return self._shared.report

    @property
    def slots(self) -> tuple[str, ...]:
        """Every slot that was asked for, in order."""
        return tuple(self.report.choices)

    def finish(self) -> AssemblyReport:
        """Ends the assembly.

        Raises:
            OverrideError: an override addressed no slot.
        """
        self._shared.overrides.check_all_used(self.slots)
        return self.report

    def child(self, name: str) -> Assembler:
        """The same assembler at ``path + "." + name``."""
        below = copy.copy(self)
        below.path = self._slot(name)
        return below

    def build(
        self, socket: str, slot: str, name: str, *args: Any, problem: Any = None, **kwargs: Any
    ) -> Any:
        """Builds the part of slot ``path.slot``; see :class:`~llama4_core.protocols.parts.Parts`.

        Raises:
            ComponentError: the name is unknown, ambiguous, cannot run here, or fails to import.
            OverrideError: an override's class or function does not take the arguments.
        """
        return self.factory(socket, slot, name, problem=problem)(*args, **kwargs)

    def factory(
        self, socket: str, slot: str, name: str, *, problem: Any = None
    ) -> Callable[..., Any]:
        """What builds the part of slot ``path.slot``; see :meth:`build`."""
        path = self._slot(slot)
        override = self._shared.overrides.take(path)
        value = name if override is None else override.part
        glob = "" if override is None else override.glob
        if override is not None and not isinstance(value, str):
            self._record(path, Choice(socket, name, glob, (Row("always", _object(value)),)))
            return functools.partial(from_object, override)
        if value == AUTO:
            entry, refused = self._best(socket, path, problem)
        else:
            entry, refused = self._find(socket, path, value, override), []
            undecided = problem is None and entry.component.supports
            reason = None if undecided else entry.component.refusal(problem)
            if reason:
                raise ComponentError(f"{path}: {SOCKETS[socket].one} {value!r} {reason}")
        row = Row("always", _provider(entry))
        self._record(path, Choice(socket, value, glob, (row,), tuple(refused)))
        return entry.component.build

    def regimes(self, socket: str, slot: str, name: str, problem: Any) -> RegimeTable:
        """Freezes who runs in which regime of ``problem`` in slot ``path.slot``.

        Raises:
            ComponentError: nothing can run without gradients, or the explicit name cannot.
        """
        path = self._slot(slot)
        override = self._shared.overrides.take(path)
        value = name if override is None else override.part
        glob = "" if override is None else override.glob
        if override is not None and not isinstance(value, str):
            call = self._instance(("object", id(value)), functools.partial(from_object, override))
            row = Row("always", _object(value))
            self._record(path, Choice(socket, name, glob, (row,)))
            return RegimeTable.always(call, _object(value).name)
        key = (socket, value, problem, glob)
        if key not in self._shared.decided:
            if value == AUTO:
                self._shared.decided[key] = self._automatic(socket, path, problem, glob)
            else:
                entry = self._find(socket, path, value, override)
                self._shared.decided[key] = self._explicit(entry, path, value, problem, glob)
        table, choice = self._shared.decided[key]
        self._record(path, choice)
        return table

    # --- deciding -------------------------------------------------------------------------------

    def _explicit(
        self, entry: Entry, path: str, name: str, problem: Any, glob: str
    ) -> tuple[RegimeTable, Choice]:
        one = SOCKETS[entry.socket].one
        rows: list[tuple[_Question, Entry | str]] = []
        for question in _questions(problem):
            reason = _refusal(entry, question)
            if reason is None:
                rows.append((question, entry))
            elif not question.grad:
                raise ComponentError(
                    f"{path}: {one} {name!r} of {entry.distribution} cannot run here: {reason}; "
                    "name another, or 'auto'"
                )
            else:
                rows.append((question, f"{one} {name!r} cannot run with gradients: {reason}"))
        return self._table(entry.socket, name, glob, rows, ())

    def _automatic(
        self, socket: str, path: str, problem: Any, glob: str
    ) -> tuple[RegimeTable, Choice]:
        one = SOCKETS[socket].one
        rows: list[tuple[_Question, Entry | str]] = []
        reasons: dict[tuple[str, str], list[_Question]] = {}
        for question in _questions(problem):
            entry, refused = self._ranked(socket, question)
            for name, reason in refused:
                reasons.setdefault((name, reason), []).append(question)
            if entry is not None:
                rows.append((question, entry))
                continue
            listed = "; ".join(f"{name}: {reason}" for name, reason in refused) or (
                f"none is installed: pip install {SOCKETS[socket].owner}"
            )
            if not question.grad:
                raise ComponentError(f"{path}: no {one} can run {question.label}: {listed}")
            rows.append((question, f"no {one} can run with gradients: {listed}"))
        asked = [question for question, _ in rows]
        refusals = tuple(
            Refusal(name, _where(questions, asked), reason)
            for (name, reason), questions in sorted(reasons.items(), key=lambda item: item[0])
        )
        return self._table(socket, AUTO, glob, rows, refusals)

    def _ranked(
        self, socket: str, question: _Question
    ) -> tuple[Entry | None, list[tuple[str, str]]]:
        """The best candidate of one row, and why each other one is not it."""
        able: list[tuple[int, str, Entry]] = []
        refused: list[tuple[str, str]] = []
        for entry in self._shared.catalogue.components(socket):
            reason = _refusal(entry, question)
            rank = 0
            if reason is None and not entry.allowed:
                reason = "installed by a third party: name it, or list it in LLAMA4_PLUGINS"
            if reason is None:
                rank, reason = _rank(entry, question)
            if reason is None:
                able.append((-rank, entry.full_name, entry))
            else:
                refused.append((self._shown(entry), reason))
        able.sort(key=lambda item: (item[0], item[2].name, item[1]))
        if not able:
            return None, refused
        best = able[0][2]
        refused += [(self._shown(e), f"can run; ranked below {best.name}") for *_, e in able[1:]]
        return best, refused

    def _best(self, socket: str, path: str, problem: Any) -> tuple[Entry, list[Refusal]]:
        entry, refused = self._ranked(socket, _Question(None, False, (problem,)))
        if entry is None:
            listed = "; ".join(f"{name}: {reason}" for name, reason in refused)
            raise ComponentError(
                f"{path}: no {SOCKETS[socket].one} can be chosen automatically: "
                + (listed or f"none is installed: pip install {SOCKETS[socket].owner}")
            )
        return entry, [Refusal(name, (), reason) for name, reason in refused]

    def _table(
        self,
        socket: str,
        asked: str,
        glob: str,
        rows: Sequence[tuple[_Question, Entry | str]],
        refused: tuple[Refusal, ...],
    ) -> tuple[RegimeTable, Choice]:
        regimes: list[Regime] = []
        shown: list[Row] = []
        merged = _merged(rows)
        by_tokens = any(max_tokens is not None for max_tokens, _, _ in merged)
        for max_tokens, grad, chosen in merged:
            label = _label(max_tokens, grad, by_tokens=by_tokens)
            if isinstance(chosen, str):
                regimes.append(Regime(max_tokens, grad, "unavailable", Unavailable(chosen)))
                shown.append(Row(label, None, chosen))
                continue
            settings = repr(chosen.component.settings)
            call = self._instance((socket, chosen.full_name, settings), chosen.component.build)
            regimes.append(Regime(max_tokens, grad, self._shown(chosen), call))
            shown.append(Row(label, _provider(chosen)))
        return RegimeTable(tuple(regimes)), Choice(socket, asked, glob, tuple(shown), refused)

    # --- small things ---------------------------------------------------------------------------

    def _find(self, socket: str, path: str, name: str, override: Override | None) -> Entry:
        try:
            entry = self._shared.catalogue.find(
                socket, name, needed_by="" if override else self.report.model or path
            )
        except ComponentError as error:
            if override is None:
                raise
            raise type(error)(f"override {override.glob!r} ({path}): {error}") from error
        return entry if override is None else with_settings(entry, override)

    def _instance(self, key: Any, build: Callable[[], Any]) -> Any:
        if key not in self._shared.instances:
            self._shared.instances[key] = build()
        return self._shared.instances[key]

    def _record(self, path: str, choice: Choice) -> None:
        self.report.record(path, choice)

    def _slot(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _shown(self, entry: Entry) -> str:
        clashes = self._shared.catalogue.clashes().get(entry.socket, {})
        return entry.full_name if entry.name in clashes else entry.name


def _questions(problem: Any) -> list[_Question]:
    """The rows of a problem: by tokens where it has any, without and with gradients."""
    names = {field.name for field in dataclasses.fields(problem)}
    asked: tuple[tuple[int | None, int | None], ...] = ((None, None),)
    if "tokens" in names and problem.tokens is None:
        asked = TOKENS
    questions = []
    for grad in (False, True):
        for bound, tokens in asked:
            changes: dict[str, Any] = {"grad": grad}
            if tokens is not None:
                changes["tokens"] = tokens
            one = dataclasses.replace(problem, **changes)
            problems = (one,)
            if "key_layout" in names and not grad:
                # Without gradients the same backend serves packed streams and caches.
                layouts = dict.fromkeys((problem.key_layout, "flat", "head_major"))
                problems = tuple(dataclasses.replace(one, key_layout=name) for name in layouts)
            questions.append(_Question(bound, grad, problems))
    return questions


def _merged(
    rows: Sequence[tuple[_Question, Entry | str]],
) -> list[tuple[int | None, bool | None, Entry | str]]:
    """Joins consecutive rows with the same answer, and both halves when they agree."""
    merged: list[tuple[int | None, bool | None, Entry | str]] = []
    for question, chosen in rows:
        if merged and merged[-1][1] == question.grad and merged[-1][2] == chosen:
            merged.pop()
        merged.append((question.max_tokens, question.grad, chosen))
    without = [(bound, chosen) for bound, grad, chosen in merged if not grad]
    with_grad = [(bound, chosen) for bound, grad, chosen in merged if grad]
    if without == with_grad:
        return [(bound, None, chosen) for bound, chosen in without]
    return merged


def _where(questions: list[_Question], asked: list[_Question]) -> tuple[str, ...]:
    """Short names of the regimes in ``questions``: () for all that were asked."""
    if len(questions) == len(asked):
        return ()
    labels: list[str] = []
    for grad in (False, True):
        half = [question for question in questions if question.grad == grad]
        if len(half) == sum(question.grad == grad for question in asked):
            labels.append(_label(None, grad, by_tokens=False))
        else:
            labels += [question.label for question in half]
    return tuple(labels)


def _label(max_tokens: int | None, grad: bool | None, *, by_tokens: bool) -> str:
    parts = []
    if by_tokens:
        parts.append("more tokens" if max_tokens is None else f"up to {max_tokens} tokens")
    if grad is not None:
        parts.append("with gradients" if grad else "without gradients")
    return ", ".join(parts) or "always"


def _refusal(entry: Entry, question: _Question) -> str | None:
    for problem in question.problems:
        if (reason := entry.component.refusal(problem)) is not None:
            return reason
    return None


def _rank(entry: Entry, question: _Question) -> tuple[int, str | None]:
    """The rank, and why it keeps the entry out (or None)."""
    try:
        rank = entry.component.rank(question.problems[0])
    except Exception as error:  # noqa: BLE001 - foreign code
        return 0, f"its priority raised {type(error).__name__}: {error}"
    if not isinstance(rank, int):
        return 0, f"its priority is {rank!r}; expected a whole number"
    return rank, None if rank > 0 else "never chosen unless named"


def _provider(entry: Entry) -> Provider:
    return Provider(entry.name, entry.distribution, entry.version)


def _object(value: Any) -> Provider:
    name = getattr(value, "__qualname__", type(value).__qualname__)
    text = " ".join(repr(value).split())
    return Provider(name, "object", text if len(text) <= 120 else text[:117] + "...")
