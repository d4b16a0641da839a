from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from llama4_core.errors import PluginError
from llama4_core.plugins import Catalogue

SOURCE = """
from llama4_core.plugins import Component, hookimpl

class Mine(dict):
    pass

@hookimpl
def llama4_caches():
    yield Component("mine", f"{__name__}:Mine")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my-cache.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def test_a_file_is_a_plugin_reported_with_its_hash(file: Path) -> None:
    entry = Catalogue.from_plugins([]).with_local(file).find("caches", "mine")
    assert entry.distribution == "local:my-cache.py"
    assert entry.version == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert str(file) in entry.origin
    assert entry.allowed
    assert type(entry.component.build()).__name__ == "Mine"


def test_the_same_content_runs_once_and_a_changed_file_again(file: Path) -> None:
    known = Catalogue.from_plugins([])
    first = known.with_local(file).find("caches", "mine").component.load()
    assert known.with_local(file).find("caches", "mine").component.load() is first
    file.write_text(SOURCE.replace("pass", "changed = True"), encoding="utf-8")
    assert known.with_local(file).find("caches", "mine").component.load().changed


def test_an_allow_list_does_not_keep_the_users_own_file_out(file: Path) -> None:
    known = Catalogue.from_plugins([], allow=[]).with_local(file)
    assert known.find("caches", "mine").allowed


def test_the_catalogue_itself_is_unchanged(file: Path) -> None:
    known = Catalogue.from_plugins([])
    known.with_local(file)
    assert known.components("caches") == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        (SOURCE.replace("llama4_caches", "llama4_cashes"), "did you mean llama4_caches?"),
        (SOURCE.replace('"mine"', '"Mine!"'), "'Mine!' is not usable"),
        (SOURCE.replace(':Mine")', ':Mine", contract=9)'), "contract 9 of caches"),
    ],
)
def test_a_broken_file_is_always_an_error(tmp_path: Path, source: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(PluginError, match=r"broken\.py") as caught:
        Catalogue.from_plugins([]).with_local(path)
    assert message in str(caught.value)


def test_missing_files_and_other_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="cannot be read"):
        Catalogue.from_plugins([]).with_local(tmp_path / "absent.py")
    with pytest.raises(PluginError, match="expected a Python file"):
        Catalogue.from_plugins([]).with_local(tmp_path / "weights.bin")
