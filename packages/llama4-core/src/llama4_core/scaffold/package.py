"""Writes a plugin package for a socket from the templates beside this file.

``templates/common`` holds what every package has, ``templates/<socket>`` the part itself and
whatever differs for this socket: a file there takes the place of the common one. Templates are
``string.Template`` texts; the names that they may use are those of :func:`values_of`.
"""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from llama4_core import __version__
from llama4_core.errors import ComponentError
from llama4_core.plugins.catalogue import OURS, Catalogue, socket_named
from llama4_core.plugins.hookspecs import SOCKETS, Socket

LONGEST = 32
"""Characters of a name: generated lines stay within the 100 columns of the generated settings."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_ROOT = files("llama4_core.scaffold") / "templates"
_SUFFIX = ".template"
# What is a function, and not a class: the name of it.
_FUNCTIONS = {"models": "shape", "optimizers": "optimizer"}


def templated() -> tuple[str, ...]:
    """The sockets that have a template, in the order of ``SOCKETS``."""
    return tuple(name for name in SOCKETS if (_ROOT / name / f"part.py{_SUFFIX}").is_file())


def has_kit(socket: Socket) -> bool:
    """Whether the socket's owner publishes checks; an owner that is not installed does."""
    owner = socket.owner.replace("-", "_")
    if importlib.util.find_spec(owner) is None:
        return True
    return importlib.util.find_spec(f"{owner}.testing.{socket.name}") is not None


def check_name(socket: Socket, name: str, known: Catalogue) -> None:
    """Refuses a name that no package could have.

    Raises:
        ComponentError: it is malformed, too long, of one of our packages, or taken.
    """
    if not _NAME.match(name) or len(name) > LONGEST:
        raise ComponentError(
            f"name {name!r} is not usable; expected at most {LONGEST} lower-case letters and "
            "digits, words joined by '-', a letter first, as in round-robin"
        )
    if f"llama4-{name}" in OURS or keyword.iskeyword(name.replace("-", "_")):
        raise ComponentError(
            f"name {name!r} is reserved: it is a word of Python, or llama4-{name} is a package of "
            "the toolkit; choose another name"
        )
    taken = [entry.distribution for entry in known.components(socket.name) if entry.name == name]
    if taken:
        raise ComponentError(
            f"{taken[0]} already offers a {_kind(socket)} {name!r}, and the bare name would be "
            "ambiguous; choose another name"
        )


def values_of(socket: Socket, name: str) -> dict[str, str]:
    """What the templates of ``socket`` may name, for a component called ``name``."""
    minor = [int(number) for number in __version__.split(".")[:2]]
    words = "".join(word.capitalize() for word in name.split("-"))
    suffix = "".join(word.capitalize() for word in socket.one.split("_"))
    values = {
        "name": name,
        "distribution": f"llama4-{name}",
        "package": f"llama4_{name.replace('-', '_')}",
        "module": socket.one,
        "part": _FUNCTIONS.get(
            socket.name, words if words.endswith(suffix) else f"{words}{suffix}"
        ),
        "kind": _kind(socket),
        "socket": socket.name,
        "one": socket.one,
        "hook": socket.hook,
        "owner": socket.owner,
        "contract": str(socket.current),
        "core_range": f"llama4-core>={minor[0]}.{minor[1]},<{minor[0]}.{minor[1] + 1}",
    }
    # The first line of the part says what it is; listings show it without its full stop.
    first = _filled("part.py", socket, values).partition("\n")[0]
    values["summary"] = first.strip('"')
    line = values["summary"].rstrip(".")
    values["line"] = line[0].lower() + line[1:]
    usage = [_filled("usage", socket, values)] if _find("usage", socket) else []
    checks = [f"llama4 check {socket.one}:{name}"] if has_kit(socket) else []
    values["usage"] = "\n".join(f"$ {line}" for line in (*checks, *usage))
    return values


def contents(socket: Socket, name: str) -> dict[str, str]:
    """The whole package: path within it -> text.

    Raises:
        ComponentError: the socket has no template.
    """
    if socket.name not in templated():
        raise ComponentError(
            f"there is no template for socket {socket.name!r}; there are templates for "
            f"{', '.join(templated())}"
        )
    values = values_of(socket, name)
    package = f"src/{values['package']}"
    test = "test_conformance.py" if has_kit(socket) else "test_use.py"
    layout = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        ".gitignore": "gitignore",
        ".github/workflows/test.yml": "workflow.yml",
        f"{package}/plugin.py": "plugin.py",
        f"{package}/{values['module']}.py": "part.py",
        f"{package}/py.typed": "py.typed",
        f"tests/{test}": test,
    }
    written = {path: _filled(template, socket, values) for path, template in layout.items()}
    return {f"{package}/__init__.py": f'"""{values["summary"]}"""\n', **written}


def write_package(socket_name: str, name: str, into: Path, known: Catalogue) -> Path:
    """Writes a package into the new folder ``into / llama4-NAME``; returns that folder.

    Raises:
        ComponentError: no such socket, an unusable name, or the folder exists.
    """
    socket = socket_named(socket_name)
    check_name(socket, name, known)
    texts = contents(socket, name)
    folder = into / f"llama4-{name}"
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ComponentError(
            f"{folder} exists already; nothing was written: remove it, or choose another name or "
            "--into another folder"
        ) from error
    for path, text in texts.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    return folder


def _kind(socket: Socket) -> str:
    return socket.one.replace("_", " ")


def _find(template: str, socket: Socket) -> str | None:
    """The text of a template: the socket's own, or else the common one."""
    for folder in (socket.name, "common"):
        place = _ROOT / folder / f"{template}{_SUFFIX}"
        if place.is_file():
            return place.read_text(encoding="utf-8")
    return None


def _filled(template: str, socket: Socket, values: Mapping[str, str]) -> str:
    text = _find(template, socket)
    if text is None:
        raise ComponentError(f"template {template} of {socket.name} is missing from this package")
    return Template(text).substitute(values)
