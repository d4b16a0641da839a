"""Figures and pictures of the pages, made by the code that they describe.

Nothing here is typed by hand: numbers come from `llama4_core.specs.accounting`, pictures and their
texts from `llama4 show`.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parent.parent.parent
PUBLISHED = ("scout", "maverick", "guard", "behemoth")
OURS = ("nano", "mini", "small")
GIB = 2**30
# Every picture of the documentation: file -> the command line that draws it.
PICTURES = {
    "mask": ("mask", "scout", "--length", "18", "--chunk", "6"),
    "packed": ("mask", "causal&chunked:4", "--documents", "9,3,6"),
    "irope": ("irope", "scout"),
    "routing": (
        "routing",
        str(ROOT / "tests" / "data" / "tiny-hf"),
        "The keeper of the lighthouse sees nothing",
        "--dtype",
        "float32",
    ),
    "accounting": ("accounting", "scout"),
}


def numbers() -> dict[str, str]:
    """Figures by the name that a page uses: `{{ scout_10m }}`."""
    from llama4_core.specs.accounting import account
    from llama4_core.specs.presets import preset

    found = {}
    for name in PUBLISHED + OURS:
        costs = account(preset(name))
        found[f"{name}_total"] = f"{costs.total / 1e9:.3f}B"
        found[f"{name}_active"] = f"{costs.active / 1e9:.3f}B"
        found[f"{name}_token"] = f"{costs.cache_bytes_per_token:,}"
        for form, size in costs.weight_bytes.items():
            found[f"{name}_{form}"] = f"{size / GIB:.1f} GiB"
        for entry, label in zip(costs.cache, ("8k", "128k", "1m", "10m"), strict=True):
            found[f"{name}_{label}"] = f"{entry.bounded / GIB:.1f} GiB"
            found[f"{name}_{label}_full"] = f"{entry.full / GIB:.1f} GiB"
    return found


def table(names: tuple[str, ...]) -> Iterator[str]:
    """The accounting of several models, as Markdown."""
    from llama4_core.specs.accounting import account
    from llama4_core.specs.presets import preset

    costs = {name: account(preset(name)) for name in names}
    yield "| | " + " | ".join(names) + " |"
    yield "|---|" + "---:|" * len(names)
    rows = {
        "parameters": [f"{c.total / 1e9:.3f}B" for c in costs.values()],
        "of the text model": [f"{c.text / 1e9:.3f}B" for c in costs.values()],
        "active per token of text": [f"{c.active / 1e9:.3f}B" for c in costs.values()],
    }
    for part in next(iter(costs.values())).parts:
        if any(c.parts[part] for c in costs.values()):
            rows[part.replace("_", " ")] = [f"{c.parts[part]:,}" for c in costs.values()]
    for form in ("bf16", "fp8", "int4"):
        sizes = [c.weight_bytes[form] / GIB for c in costs.values()]
        rows[f"weights in {form}"] = [f"{size:.2f} GiB" for size in sizes]
    for place, label in enumerate(("8K", "128K", "1M", "10M")):
        sizes = [c.cache[place].bounded / GIB for c in costs.values()]
        rows[f"keys and values of one user at {label}"] = [f"{size:.2f} GiB" for size in sizes]
    rows["each further token"] = [f"{c.cache_bytes_per_token:,} B" for c in costs.values()]
    for label, cells in rows.items():
        yield f"| {label} | " + " | ".join(cells) + " |"


def show(name: str, folder: Path) -> None:
    """One picture as `NAME.svg` and as `NAME.txt`, by the command itself.

    Raises:
        ExtensionError: the command failed.
    """
    from llama4_core.cli import main

    words = ["show", *PICTURES[name]]
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        codes = [main(words), main([*words, "--out", str(folder / f"{name}.svg.new.svg")])]
    if codes != [0, 0]:
        raise ExtensionError(f"llama4 {' '.join(words)}: {wrong.getvalue()}")
    text = said.getvalue().rpartition("Wrote ")[0].rstrip() + "\n"
    keep(folder / f"{name}.txt", text.encode())
    drawn = folder / f"{name}.svg.new.svg"
    keep(folder / f"{name}.svg", drawn.read_bytes())
    drawn.unlink()


def keep(path: Path, content: bytes) -> None:
    """Write a file; an unchanged one keeps its time stamp, so that nothing is rebuilt."""
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def write_all(app: Sphinx) -> None:
    """Everything that the pages include, before they are read."""
    folder = Path(app.srcdir) / "_generated"
    folder.mkdir(exist_ok=True)
    keep(folder / "published.inc", "\n".join(table(PUBLISHED)).encode() + b"\n")
    keep(folder / "ours.inc", "\n".join(table(OURS)).encode() + b"\n")
    for name in PICTURES:
        show(name, folder)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_all)
    return {"parallel_read_safe": True}
