"""Write `_generated/components.md`: the sockets and what is plugged into them, from the code."""

import inspect
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx


def socket_lines() -> Iterator[str]:
    """The page, line by line."""
    from llama4_core.plugins.hookspecs import SOCKETS, Hooks

    yield "# Sockets and components"
    yield ""
    yield "Everything that can be swapped. This page is generated from"
    yield "`llama4_core/plugins/hookspecs.py`; `llama4 plugins` prints what your own installation"
    yield "offers, with the reason for each component that cannot run there."
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
        yield f"`{socket.hook}` · owner `{socket.owner}` · {contracts}{problem}"
        yield ""
        yield inspect.getdoc(getattr(Hooks, socket.hook)) or ""


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
