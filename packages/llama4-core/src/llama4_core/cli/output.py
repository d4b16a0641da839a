"""What the commands share: common options, tables and JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from llama4_core.errors import OverrideError

if TYPE_CHECKING:
    from llama4_core.plugins.catalogue import Catalogue


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON for machines")


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--plugin FILE``, repeatable; read it with :func:`catalogue_of`."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file of your own with hook implementations; repeatable",
    )


def add_override_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--set PATH=NAME`` (see :func:`overrides_of`) and ``--plugin FILE``, repeatable."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=NAME",
        dest="overrides",
        help="put component NAME into the slots that PATH addresses, e.g. "
        "'layers.*.attention.backend=eager'; repeatable",
    )
    add_plugin_option(parser)


def overrides_of(arguments: argparse.Namespace) -> dict[str, str]:
    """The ``--set`` options as a mapping.

    Raises:
        OverrideError: one is not ``path=name``, or the same path is set to two names.
    """
    found: dict[str, str] = {}
    for text in arguments.overrides:
        path, equals, name = (part.strip() for part in text.partition("="))
        if not (path and equals and name):
            raise OverrideError(
                f"--set got {text!r}; expected PATH=NAME, as in layers.*.attention.backend=eager"
            )
        if found.setdefault(path, name) != name:
            raise OverrideError(f"--set {path} is given both {found[path]!r} and {name!r}")
    return found


def catalogue_of(arguments: argparse.Namespace) -> Catalogue:
    """The catalogue with the ``--plugin`` files.

    Raises:
        PluginError: a file cannot be read or used.
    """
    from llama4_core.plugins.catalogue import catalogue

    return catalogue().with_local(*arguments.plugin) if arguments.plugin else catalogue()


def print_json(value: Any) -> None:
    """Prints plain values as indented JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def table(rows: Iterable[Sequence[str]], indent: str = "  ") -> str:
    """Lines of left-aligned columns."""
    cells = [tuple(row) for row in rows]
    if not cells:
        return ""
    widths = [
        max(len(row[i]) for row in cells if i < len(row)) for i in range(len(max(cells, key=len)))
    ]
    return "\n".join(
        (indent + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False))).rstrip()
        for row in cells
    )
