"""Bugs planted by machine: each comparison, number, sign, and/or, min/max, one at a time.

A site is changed in the syntax tree, the module is compiled again in memory, and the code of the
one function is exchanged while the checks run. No file is touched.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType, ModuleType
from typing import Any

from llama4_core.testing.check import FAILED, Check, Subject, run

_SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
}
_NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Site:
    """One place of a module, and what is written there instead.

    Attributes:
        module: whose code is changed.
        function: qualified name of the function.
        index: number of the node in the function's syntax tree.
        line: in the file.
        change: for people.
        text: the line itself.
    """

    module: ModuleType
    function: str
    index: int
    line: int
    change: str
    text: str = ""

    @property
    def address(self) -> str:
        """What names this site as long as its line stays the same: ``text | change``."""
        return f"{self.text} | {self.change}"


@dataclass(frozen=True)
class Target:
    """A module, and who has to find the bugs in it.

    Attributes:
        module: whose code is changed.
        hunts: checks and what they are run on, the likeliest finder first.
        leave: functions whose sites are left out, with the reason.
        survivors: address of a site that nobody can or has to find -> the reason.
        examples: cases per check.
    """

    module: ModuleType
    hunts: Callable[[], Sequence[tuple[Check, Subject]]]
    leave: Mapping[str, str] = field(default_factory=dict)
    survivors: Mapping[str, str] = field(default_factory=dict)
    examples: int = 25


@dataclass(frozen=True)
class Score:
    """What came of a target: how many sites there are, and those that nobody found."""

    target: Target
    sites: int
    survivors: tuple[Site, ...]

    @property
    def share(self) -> float:
        """Sites found of all sites, the equivalent ones included."""
        return (self.sites - len(self.survivors)) / self.sites

    @property
    def unexplained(self) -> list[Site]:
        """Survivors without a reason."""
        return [site for site in self.survivors if site.address not in self.target.survivors]

    @property
    def outdated(self) -> list[str]:
        """Reasons for sites that are found, or gone."""
        alive = {site.address for site in self.survivors}
        return [address for address in self.target.survivors if address not in alive]

    def explain(self) -> str:
        """The score and every survivor."""
        found = self.sites - len(self.survivors)
        lines = [f"{self.target.module.__name__}: {found} of {self.sites} found"]
        for site in self.survivors:
            reason = self.target.survivors.get(site.address, "NO REASON")
            lines.append(f"  {site.function} line {site.line}: {site.address}: {reason}")
        lines += [f"  reason for nothing: {address}" for address in self.outdated]
        return "\n".join(lines)


def score(target: Target) -> Score:
    """Plants every bug of a target in turn. The check that found the last bug is asked first.

    Raises:
        AssertionError: a check fails without any bug, so it would find everything.
    """
    hunts, examples = list(target.hunts()), target.examples
    for check, subject in hunts:
        sound = run(check, subject, examples=examples, seed=0, shrink=False)
        if sound.status == FAILED:
            raise AssertionError(f"fails without a bug: {sound.explain()}")
    places = sites(target.module, leave=tuple(target.leave))
    survivors = []
    for site in places:
        finder = caught(site, hunts, examples=examples)
        if finder is None:
            survivors.append(site)
        else:
            hunts.remove(finder)
            hunts.insert(0, finder)
    return Score(target, len(places), tuple(survivors))


def sites(module: ModuleType, *, leave: Sequence[str] = ()) -> list[Site]:
    """Every site of a module, but those of the functions named in ``leave``."""
    found = []
    source = inspect.getsource(module)
    lines = source.splitlines()
    for name, function in _functions(ast.parse(source)):
        if name in leave or _live(module, name) is None:
            continue
        for index, node in enumerate(ast.walk(function)):
            change = _changed(copy.deepcopy(node))
            if change is not None:
                line = getattr(node, "lineno", 0)
                text = lines[line - 1].strip()
                found.append(Site(module, name, index, line, change[1], text))
    return found


@contextlib.contextmanager
def planted(site: Site) -> Iterator[None]:
    """A context in which the module has the bug."""
    tree = ast.parse(inspect.getsource(site.module))
    function = dict(_functions(tree))[site.function]
    changed = _changed(list(ast.walk(function))[site.index])
    live = _live(site.module, site.function)
    if changed is None or live is None:
        raise LookupError(f"{site.function} has changed since its sites were listed")
    code = compile(tree, site.module.__file__ or "", "exec")
    before = live.__code__
    live.__code__ = next(c for c in _codes(code) if c.co_qualname == site.function)
    try:
        yield
    finally:
        live.__code__ = before


def caught(
    site: Site, hunts: Sequence[tuple[Check, Subject]], *, examples: int
) -> tuple[Check, Subject] | None:
    """The first of the hunts that fails while the bug is there, if any; nothing is shrunk."""
    with planted(site):
        for check, subject in hunts:
            if run(check, subject, examples=examples, seed=0, shrink=False).status == FAILED:
                return check, subject
    return None


def _changed(node: ast.AST) -> tuple[ast.AST, str] | None:
    """Changes a node in place; None where there is nothing to change."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
        before = type(node.ops[0])
        node.ops[0] = _SWAPS[before]()
        return node, f"{before.__name__} -> {_SWAPS[before].__name__}"
    if isinstance(node, ast.BinOp) and type(node.op) in _SWAPS:
        sign = type(node.op)
        node.op = _SWAPS[sign]()
        return node, f"{sign.__name__} -> {_SWAPS[sign].__name__}"
    if isinstance(node, ast.BoolOp):
        word = type(node.op)
        node.op = _SWAPS[word]()
        return node, f"{word.__name__} -> {_SWAPS[word].__name__}"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _NAMES:
        name = node.func.id
        node.func.id = _NAMES[name]
        return node, f"{name} -> {_NAMES[name]}"
    if isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
        return node, f"{node.value - 1} -> {node.value}"
    return None


def _functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef]]:
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name, node))
        elif isinstance(node, ast.ClassDef):
            inner = [part for part in node.body if isinstance(part, ast.FunctionDef)]
            found += [(f"{node.name}.{part.name}", part) for part in inner]
    return found


def _live(module: ModuleType, name: str) -> FunctionType | None:
    owner: Any = module
    for part in name.split("."):
        owner = vars(owner).get(part)
        if owner is None:
            return None
    owner = owner.fget if isinstance(owner, property) else owner
    owner = inspect.unwrap(owner) if callable(owner) else None
    return owner if isinstance(owner, FunctionType) and not owner.__closure__ else None


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)
