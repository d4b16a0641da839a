"""Every hook is on the page of sockets, with the signature that a plugin has to write."""

import importlib.util
import inspect
import re
from pathlib import Path

from llama4_core.plugins.hookspecs import SOCKETS, Hooks

EXTENSION = Path(__file__).resolve().parent.parent / "docs" / "_extensions" / "component_pages.py"


def test_every_hook_is_documented_with_its_exact_signature():
    spec = importlib.util.spec_from_file_location("component_pages", EXTENSION)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = "\n".join(module.socket_lines())
    hooks = dict(inspect.getmembers(Hooks, inspect.isfunction))
    assert len(hooks) == len(SOCKETS)
    for name, hook in hooks.items():
        assert f"`{name}() -> Iterable[Component]`" in page
        assert str(inspect.signature(hook)) == "(self) -> 'Iterable[Component]'"
        assert inspect.getdoc(hook), f"{name} has no documentation"
        assert inspect.getdoc(hook) in page


def test_what_the_hooks_refer_to_exists():
    for name, hook in inspect.getmembers(Hooks, inspect.isfunction):
        for path in re.findall(r"llama4_core(?:\.\w+)+", inspect.getdoc(hook)):
            module, _, attribute = path.rpartition(".")
            if importlib.util.find_spec(module) is None or not hasattr(
                importlib.import_module(module), attribute
            ):
                assert importlib.util.find_spec(path), f"{name} refers to {path}"
