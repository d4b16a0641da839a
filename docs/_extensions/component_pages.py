"""Write `_generated/components.md`: the sockets and what is plugged into them, from the code."""

import inspect
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

from llama4_core.errors import PluginError


def socket_lines() -> Iterator[str]:
    """The page, line by line.

    Raises:
        PluginError: a plugin of ours is broken.
    """
    from llama4_core.plugins.catalogue import OURS, Catalogue
    from llama4_core.plugins.hookspecs import SOCKETS, Hooks

    catalogue = Catalogue.discover()
    broken = [problem for problem in catalogue.problems if problem.distribution in OURS]
    if broken:
        raise PluginError(f"{broken[0].distribution}: {broken[0].reason}")

    yield "# Sockets and components"
    yield ""
    yield "Everything that can be swapped. This page is generated from"
    yield "`llama4_core/plugins/hookspecs.py`; `llama4 plugins` prints what your own installation"
    yield "offers, `llama4 doctor` and `llama4 explain MODEL` why a backend cannot run there."
    for socket in SOCKETS.values():
        contracts = (
            f"contract {socket.current}"
            if socket.oldest == socket.current
            else f"contracts {socket.oldest} to {socket.current}"
        )
        problem = f" · problem `{socket.problem}`" if socket.problem else ""
        yield ""
        yield f"## {socket.name}"
        yield ""
        yield f"`{signature(socket.hook)}` · owner `{socket.owner}` · {contracts}{problem}"
        yield ""
        yield inspect.getdoc(getattr(Hooks, socket.hook)) or ""
        entries = [e for e in catalogue.components(socket.name) if e.distribution in OURS]
        if not entries:
            continue
        yield ""
        yield "| name | from | |"
        yield "|---|---|---|"
        for entry in entries:
            summary = entry.component.summary.replace("|", "\\|")
            yield f"| `{entry.name}` | {entry.distribution} | {summary} |"


def signature(hook: str) -> str:
    """The hook as a plugin has to define it at the level of a module."""
    from llama4_core.plugins.hookspecs import Hooks

    returns = inspect.signature(getattr(Hooks, hook)).return_annotation
    return f"{hook}() -> {returns}"


def write_page(app: Sphinx) -> None:
    """Write the page; an unchanged one keeps its time stamp, so that nothing is rebuilt."""
    page = Path(app.srcdir) / "_generated" / "components.md"
    text = "\n".join(socket_lines()) + "\n"
    page.parent.mkdir(exist_ok=True)
    if not page.exists() or page.read_text() != text:
        page.write_text(text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True}
