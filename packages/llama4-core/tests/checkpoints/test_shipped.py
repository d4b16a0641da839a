"""Models of the catalogue that are folders with weights, as a package brings them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import llama4_core as l4
from llama4_core.checkpoints.load import resolve
from llama4_core.errors import CheckpointError
from llama4_core.plugins import Catalogue
from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl
from llama4_core.specs.find import spec_named
from llama4_core.specs.toml import read_toml, write_toml
from llama4_core.testing import check_component

MODULE = """
from pathlib import Path

def folder():
    return Path(__file__).parent / "data"
"""


@pytest.fixture
def known(sighted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Catalogue]:
    """A catalogue with one model, ``shipped``, whose weights lie beside its module."""
    l4.save(sighted(vision=None), tmp_path / "data")
    (tmp_path / "shipped_weights.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))

    class Plugin:
        @hookimpl
        def llama4_models(self) -> tuple[Component, ...]:
            return (Component("shipped", "shipped_weights:folder", "weights"),)

    yield Catalogue.from_plugins([("shipped", "llama4-shipped", "1.0", Plugin())], strict=True)
    sys.modules.pop("shipped_weights", None)


@pytest.mark.parametrize("name", ["shipped", "llama4-shipped/shipped"])
def test_a_name_gives_the_folder(known: Catalogue, tmp_path: Path, name: str) -> None:
    """And its description, without the weights."""
    assert resolve(name, known) == tmp_path / "data"
    assert spec_named(name, known).name == "sighted"


def test_a_folder_has_no_text_half(known: Catalogue) -> None:
    """The name of a shape without eyes must not give the whole model."""
    with pytest.raises(CheckpointError, match=r"load shipped with overrides=.*vision=none"):
        resolve("shipped-text", known)


def test_a_folder_has_no_revision(known: Catalogue) -> None:
    """As for every installed model."""
    with pytest.raises(CheckpointError, match="has no revision 'main'"):
        resolve("shipped", known, revision="main")


def test_the_kit_reads_the_description_of_a_folder(known: Catalogue, tmp_path: Path) -> None:
    """It checks the shape that lies there, and finds what is wrong with it."""
    folder = tmp_path / "data"
    outcomes = check_component("models", "shipped", target=lambda: folder)
    assert [one.explain() for one in outcomes if one.failed] == []
    spec = read_toml(folder / "spec.toml")
    (folder / "spec.toml").unlink()
    write_toml(replace(spec, layers=spec.layers[::-1] + spec.layers), folder / "spec.toml")
    outcomes = check_component("models", "shipped", target=lambda: folder)
    assert [one.check.name for one in outcomes if one.failed] == ["layer-pattern"]
