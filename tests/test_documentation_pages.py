"""The tutorial does what it says, and no page misses its pictures."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import warnings
from pathlib import Path

import pytest

from llama4_core.cli import main

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(?P<kind>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def run_page(page: Path) -> int:
    """Runs the blocks of a page in order and compares what they print; the number of blocks.

    ``python`` blocks share one namespace, ``bash`` blocks hold ``llama4`` commands, and a ``text``
    block is what the block before it prints.
    """
    text = page.read_text()
    space: dict[str, object] = {"__name__": "tutorial"}
    printed, ran = "", 0
    for block in BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 2
        where = f"{page.name}, line {line}"
        said = io.StringIO()
        if block["kind"] == "python":
            code = compile("\n" * (line - 1) + block["body"], page, "exec")
            with contextlib.redirect_stdout(said):
                exec(code, space)  # noqa: S102 - running the page is the point
        elif block["kind"] == "bash":
            for command in block["body"].splitlines():
                program, *words = shlex.split(command)
                assert program == "llama4", where
                with contextlib.redirect_stdout(said):
                    assert main(words) == 0, f"{where}: {command}"
        elif block["kind"] == "text":
            assert printed == block["body"], where
            continue
        printed, ran = said.getvalue(), ran + 1
    return ran


@pytest.mark.parametrize(
    ("page", "blocks"), [("tutorial.md", 12), ("vision.md", 14), ("training.md", 7), ("lora.md", 4)]
)
def test_every_block_of_a_page_runs_and_prints_what_it_says(tmp_path, monkeypatch, page, blocks):
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run_page(DOCS / page) >= blocks


@pytest.mark.parametrize(
    ("body", "fails"),
    [
        ("```python\nprint(1)\n```\n\n```text\n1\n```\n", False),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", True),
        ("```bash\nllama4 nonsense\n```\n", True),
        ("```bash\nrm nothing\n```\n", True),
    ],
)
def test_a_page_that_lies_is_noticed(tmp_path, body, fails):
    page = tmp_path / "page.md"
    page.write_text(body)
    with pytest.raises(AssertionError) if fails else contextlib.nullcontext():
        run_page(page)


@pytest.mark.parametrize("page", ["accounting.md", "limits.md"])
def test_sizes_are_computed_and_never_typed(page):
    assert not re.search(r"\d (GiB|GB)\b", (DOCS / page).read_text())


def test_the_architecture_names_every_folder():
    source = ROOT / "packages" / "llama4-core" / "src" / "llama4_core"
    folders = {path.parent.name for path in source.glob("*/__init__.py")}
    assert folders == set(
        re.findall(r"^\| `(\w+)` \|", (DOCS / "architecture.md").read_text(), re.M)
    )
