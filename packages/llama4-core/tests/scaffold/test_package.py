"""What ``llama4 new`` refuses and says; that its packages work is in the workspace's tests."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core import catalogue
from llama4_core.cli import main
from llama4_core.errors import ComponentError
from llama4_core.plugins import SOCKETS, Catalogue
from llama4_core.plugins.component import Component
from llama4_core.scaffold.package import LONGEST, check_name, contents, templated, write_package

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,5}){0,4}", fullmatch=True)


def accepted(name: str) -> bool:
    try:
        check_name(SOCKETS["routers"], name, Catalogue([]))
    except ComponentError:
        return False
    return True


@given(st.sampled_from(templated()), NAMES.filter(accepted))
def test_what_is_written_is_python_without_gaps(socket: str, name: str) -> None:
    """For any name: files that compile, no placeholder left, a name that the catalogue takes."""
    texts = contents(SOCKETS[socket], name)
    Component(name, "a:B")
    for path, text in texts.items():
        assert not re.search(r"\$\w", text), path
        if path.endswith(".py"):
            compile(text, path, "exec")
            assert max(map(len, text.splitlines())) <= 100, path


@pytest.mark.parametrize("name", ["nano", "scout"])
def test_a_name_that_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=f"llama4-core already offers a model '{name}'"):
        write_package("model", name, tmp_path, catalogue())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    ["", "Round", "9lives", "a_b", "a--b", "-a", "a-", "a.b", "../a", "a/b", "a b", "a\n", "ä",
     "n" * (LONGEST + 1)],
)  # fmt: skip
def test_a_malformed_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="expected at most 32 lower-case letters"):
        write_package("router", name, tmp_path, catalogue())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["moe", "core", "tiny", "class", "import"])
def test_a_reserved_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="is reserved"):
        write_package("router", name, tmp_path, catalogue())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "llama4-mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(ComponentError, match="exists already; nothing was written"):
        write_package("router", "mine", tmp_path, catalogue())
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_the_command_says_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "attention-backend", "mine", "--into", str(tmp_path / "deep")]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "deep" / "llama4-mine"
    assert f"pip install -e '{folder}[test]'" in out
    assert "llama4 check attention_backend:mine" in out
    assert (folder / "src" / "llama4_mine" / "attention_backend.py").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["router", "Mine"], "name 'Mine' is not usable"),
        (["routr", "mine"], "did you mean 'routers'"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", *words, "--into", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_socket_without_template_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["llama4_core.scaffold.package"], "templated", lambda: ("a",))
    with pytest.raises(ComponentError, match="no template for socket 'routers'"):
        contents(SOCKETS["routers"], "mine")
