"""Figures and pictures of the pages, made by the code that they describe.

Nothing here is typed by hand: numbers come from `llama4_core.specs.accounting` and from running the
tiny checkpoint, pictures and their texts from `llama4 show`.
"""

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

from scene import scene
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parent.parent.parent
TINY = ROOT / "tests" / "data" / "tiny-hf"
# The tiny checkpoint is mapped as it stands, which is what it is for: no advice is needed.
logging.getLogger("llama4_core").addHandler(logging.NullHandler())
# Stands for the path of a picture that is drawn when the pages are built.
SCENE = "scene.png"
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
        str(TINY),
        "The keeper of the lighthouse sees nothing",
        "--dtype",
        "float32",
    ),
    "accounting": ("accounting", "scout"),
    "tiling": ("tiling", SCENE),
}


def numbers() -> dict[str, str]:
    """Figures by the name that a page uses: `{{ scout_10m }}`."""
    from llama4_core.specs.accounting import account
    from llama4_core.specs.presets import preset
    from llama4_vision.images.limits import Limits

    found = {}
    for name in PUBLISHED + OURS:
        costs = account(preset(name))
        found[f"{name}_total"] = f"{costs.total / 1e9:.3f}B"
        found[f"{name}_active"] = f"{costs.active / 1e9:.3f}B"
        found[f"{name}_token"] = f"{costs.cache_bytes_per_token:,}"
        found[f"{name}_eyes"] = f"{(costs.total - costs.text) * 2 / GIB:.1f} GiB"
        for form, size in costs.weight_bytes.items():
            found[f"{name}_{form}"] = f"{size / GIB:.1f} GiB"
        for entry, label in zip(costs.cache, ("8k", "128k", "1m", "10m"), strict=True):
            found[f"{name}_{label}"] = f"{entry.bounded / GIB:.1f} GiB"
            found[f"{name}_{label}_full"] = f"{entry.full / GIB:.1f} GiB"
    chunk = preset("scout").layers[0].attention.chunk
    found["scout_chunk"] = f"{chunk:,}"
    found["scout_floor"] = f"{preset('scout').layers[3].attention.temperature.floor:,}"
    limits = Limits()
    found["limit_bytes"] = f"{limits.bytes >> 20} MiB"
    found["limit_pixels"] = f"{limits.pixels:,}"
    for name in ("images", "tiles", "frames"):
        found[f"limit_{name}"] = str(getattr(limits, name))
    # A complex64 number for each position and pair.
    found["table_10m"] = f"{10 * 2**20 * 64 * 8 / GIB:.0f} GiB"
    return found | drift()


def drift() -> dict[str, str]:
    """How far bfloat16 parts from float32 in a small mixture, and a float32 angle from float64."""
    import torch

    import llama4_core as l4
    from llama4_core.model.rotary import frequencies
    from llama4_core.specs.model import RopeSpec

    tokens = torch.arange(1, 257) % 490
    found = {}
    with torch.inference_mode():
        wide, narrow = (l4.load(TINY, dtype=dtype) for dtype in ("float32", "bfloat16"))
        _, ours = wide(tokens, wide.packed([len(tokens)]))
        _, theirs = narrow(tokens, narrow.packed([len(tokens)]))
        pairs = [(a.experts, b.experts) for a, b in zip(ours, theirs, strict=True) if a is not None]
        flips = sum(int((a != b).sum()) for a, b in pairs)
        expected = wide.logits(tokens)
        forced = [None if a is None else a.experts for a in ours]
        for name, logits in (
            ("free", narrow.logits(tokens)),
            ("forced", narrow.logits(tokens, forced=forced)),
        ):
            found[f"bf16_{name}"] = f"{float((logits - expected).abs().max()):.2f}"
            agree = (logits.argmax(-1) == expected.argmax(-1)).float().mean()
            found[f"bf16_{name}_argmax"] = f"{100 * float(agree):.0f} %"
        found["bf16_flips"] = str(flips)
        found["bf16_visits"] = str(sum(a.numel() for a, _ in pairs))
        found["largest_logit"] = f"{float(expected.abs().max()):.2f}"
        rates = torch.tensor(frequencies(RopeSpec(5e5), 128), dtype=torch.float64)
        for label, position in (("1m", 2**20 - 1), ("10m", 10 * 2**20 - 1)):
            single = (rates.float() * torch.tensor(position).float()).double()
            found[f"angle_{label}"] = f"{float((single - rates * position).abs().max()):.2f}"
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

    words = ["show", *(str(folder / SCENE) if word == SCENE else word for word in PICTURES[name])]
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
    scene().save(folder / SCENE)
    for name in PICTURES:
        show(name, folder)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_all)
    return {"parallel_read_safe": True}
