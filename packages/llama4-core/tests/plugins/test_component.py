from __future__ import annotations

import pytest

from llama4_core.errors import PluginError
from llama4_core.plugins import Component
from llama4_core.plugins.catalogue import catalogue
from llama4_core.plugins.hookspecs import SOCKETS


def test_missing_modules_refuse_by_name_whatever_their_parents() -> None:
    offer = Component("x", "builtins:dict", requires=("json", "no_such", "json.no.such", "no.such"))
    assert offer.refusal(None) == (
        "needs the module(s) no_such, json.no.such, no.such, not installed here"
    )


def test_a_supports_that_raises_is_a_refusal() -> None:
    def broken(problem: object) -> str | None:
        raise KeyError("heads")

    reason = Component("x", "builtins:dict", supports=broken).refusal(None)
    assert reason == "its supports() raised KeyError: 'heads'"


@pytest.mark.parametrize("answer", [True, False, "", 0])
def test_a_supports_that_gives_no_reason_is_a_refusal(answer: object) -> None:
    reason = Component("x", "builtins:dict", supports=lambda problem: answer).refusal(None)
    assert reason == (
        f"its supports() returned {answer!r}; expected None or the reason for refusing"
    )


@pytest.mark.parametrize("target", ["llama4_nothing:X", "json:nothing"])
def test_targets_that_cannot_be_imported_are_plugin_errors(target: str) -> None:
    with pytest.raises(PluginError, match=target):
        Component("x", target).load()


@pytest.mark.parametrize("content", ["1 / 0", "raise OSError('libcuda.so')", "def def"])
def test_modules_that_raise_at_import_are_plugin_errors(content, tmp_path, monkeypatch) -> None:
    (tmp_path / "raises_when_imported.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="'x' cannot be used: importing 'raises_when_"):
        Component("x", "raises_when_imported:X").load()


def test_a_required_module_whose_parent_raises_is_a_refusal(tmp_path, monkeypatch) -> None:
    (tmp_path / "parent_raises").mkdir()
    (tmp_path / "parent_raises" / "__init__.py").write_text("raise OSError('libcuda.so')")
    monkeypatch.syspath_prepend(tmp_path)
    offer = Component("x", "builtins:dict", requires=("parent_raises.inner",))
    assert offer.refusal(None) == "needs the module(s) parent_raises.inner, not installed here"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("summary", None),
        ("supports", "cuda"),
        ("tolerances", 1e-3),
        ("expected_failures", ["lse"]),
        ("settings", ("a", 1)),
    ],
)
def test_malformed_fields_are_refused_where_the_component_is_made(field: str, value) -> None:
    with pytest.raises(PluginError, match=f"component 'x' has {field} .*; expected a"):
        Component("x", "builtins:dict", **{field: value})


def test_settings_are_passed_and_may_be_overridden() -> None:
    offer = Component("x", "builtins:dict", settings={"a": 1, "b": 2})
    assert offer.build(b=3) == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=f"{socket}:{entry.name}")
        for socket in SOCKETS
        for entry in catalogue().components(socket)
        if entry.distribution == "llama4-core"
    ],
)
def test_every_built_in_target_exists(entry) -> None:
    if (reason := entry.component.refusal(None)) and "needs the module" in reason:
        pytest.skip(reason)
    assert callable(entry.component.load())
