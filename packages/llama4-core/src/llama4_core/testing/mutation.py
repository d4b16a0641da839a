"""Bugs planted by machine: every comparison, whole number and sign of a module, one at a time.

A site is changed in the syntax tree, the module is compiled again in memory, and the code of the
one function is exchanged while the checks run. No file is touched.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
}


@dataclass(frozen=True)
class Site:
    """One place of a module, and what is written there instead.

    Attributes:
        module: whose code is changed.
        function: qualified name of the function.
        index: number of the node in the function's syntax tree.
        line: in the file.
        change: for people.
    """

    module: ModuleType
    function: str
    index: int
    line: int
    change: str


def sites(module: ModuleType, *, leave: Sequence[str] = ()) -> list[Site]:
    """Every site of a module, but those of the functions named in ``leave``."""
    found = []
    for name, function in _functions(ast.parse(inspect.getsource(module))):
        if name in leave or _live(module, name) is None:
            continue
        for index, node in enumerate(ast.walk(function)):
            change = _changed(copy.deepcopy(node))
            if change is not None:
                found.append(Site(module, name, index, getattr(node, "lineno", 0), change[1]))
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


def caught(site: Site, hunts: Sequence[tuple[Check, Subject]], *, examples: int) -> bool:
    """Whether one of the checks fails while the bug is there."""
    with planted(site):
        return any(
            run(check, subject, examples=examples, seed=0, shrink=False).status == FAILED
            for check, subject in hunts
        )


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
