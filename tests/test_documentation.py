"""What the documentation shows is run here."""

import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from llama4_core.plugins import Catalogue
from llama4_core.protocols.routing import RoutingInfo
from llama4_core.scaffold.package import write_package
from llama4_core.testing import check_component

DOCS = Path(__file__).resolve().parent.parent / "docs"
FILE = re.compile(r"^\*\*`(?P<path>[^`]+)`\*\*\n\n```\w+\n(?P<content>.*?)^```$", re.M | re.S)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """What `llama4 new` writes, changed as write-a-component.md says; importable."""
    folder = write_package("router", "round-robin", tmp_path, Catalogue([]))
    page = (DOCS / "write-a-component.md").read_text()
    files = {m["path"]: m["content"] for m in FILE.finditer(page)}
    assert len(files) == 2
    for path, content in files.items():
        assert (folder / path).is_file(), f"llama4 new writes no {path}"
        (folder / path).write_text(content)
    monkeypatch.syspath_prepend(folder / "src")
    yield folder
    for name in [name for name in sys.modules if name.startswith("llama4_round_robin")]:
        del sys.modules[name]


def test_the_page_shows_the_files_that_are_written(package):
    page = (DOCS / "write-a-component.md").read_text()
    tree = page[page.index("llama4-round-robin/\n") :].partition("```")[0]
    for path in package.rglob("*"):
        if path.is_file() and path.name not in ("__init__.py", "py.typed"):
            assert path.relative_to(package).as_posix() in tree


def test_the_component_of_the_tutorial_passes_the_kit(package):
    target = importlib.import_module("llama4_round_robin.router").RoundRobinRouter
    outcomes = check_component("routers", "round-robin", target=target, examples=3)
    assert [outcome.explain() for outcome in outcomes if outcome.failed] == []


def test_the_component_of_the_tutorial_is_found_and_keeps_its_contract(package):
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    ((name, module),) = project["entry-points"]["llama4"].items()
    plugins = [(name, project["name"], project["version"], module)]
    catalogue = Catalogue.from_plugins(plugins, strict=True)
    entry = catalogue.find("routers", "llama4-round-robin/round-robin")
    router = entry.component.build(16, 3, 2)

    routing = router(torch.zeros(4, 16), RoutingInfo())
    assert routing.experts.tolist() == [[0, 1], [2, 0], [1, 2], [0, 1]]
    assert routing.weights.dtype == torch.float32
    assert routing.weights.sum(dim=1).tolist() == [1.0] * 4

    # The same tokens one at a time, as a cache feeds them.
    for position in range(4):
        one = router(torch.zeros(1, 16), RoutingInfo(positions=torch.tensor([position])))
        assert torch.equal(one.experts[0], routing.experts[position])


def test_the_hook_of_the_tutorial_does_not_import_torch(package):
    code = """
import sys
import llama4_round_robin.plugin as plugin
list(plugin.llama4_routers())
assert "torch" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=package / "src",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_socket_has_a_documented_hook():
    from llama4_core.plugins.hookspecs import SOCKETS, Hooks

    hooks = {name for name in vars(Hooks) if name.startswith("llama4_")}
    assert hooks == {socket.hook for socket in SOCKETS.values()}
    for hook in hooks:
        assert "Target:" in getattr(Hooks, hook).__doc__
