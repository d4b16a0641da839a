from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.errors import ComponentError, PluginError
from llama4_core.plugins import SOCKETS, Catalogue, hookimpl
from llama4_core.plugins.catalogue import catalogue

CORE = ("core", "llama4-core", "0.1.0", "llama4_core.plugins.builtin")


def names(known: Catalogue, socket: str) -> list[str]:
    return [entry.full_name for entry in known.components(socket)]


def listing(known: Catalogue) -> object:
    return (
        {
            s: [(e.full_name, e.version, e.component.summary) for e in known.components(s)]
            for s in SOCKETS
        },
        known.problems,
        known.clashes(),
    )


BUILT_IN = {socket: names(Catalogue.from_plugins([CORE]), socket) for socket in SOCKETS}


def raises() -> list[object]:
    raise RuntimeError("boom")


def leaves() -> list[object]:
    raise SystemExit(3)


@pytest.fixture(scope="session")
def breakages(plugin, component):
    """Every way of being broken that we know, and what has to be said about it."""

    def midway():
        yield component("good")
        raise ValueError("half way")

    class WithArgument:
        @hookimpl
        def llama4_caches(self, surprise):
            return []

    class Unmarked:
        def llama4_caches(self):
            return []

    return {
        "missing": ("llama4_nothing_here", "could not be loaded: ModuleNotFoundError"),
        "none": (None, "gave None"),
        "raises": (plugin(caches=raises), "hook llama4_caches raised RuntimeError: boom"),
        "exits": (plugin(caches=leaves), "hook llama4_caches raised SystemExit"),
        "midway": (plugin(caches=midway), "raised ValueError: half way"),
        "number": (plugin(caches=lambda: 7), "yields 7; expected Component"),
        "strings": (plugin(caches=["bounded"]), "yields 'bounded'; expected Component"),
        "misspelt": (plugin(cahces=[]), "did you mean llama4_caches?"),
        "argument": (WithArgument(), "could not be loaded: PluginValidationError"),
        "unmarked": (Unmarked(), "not marked"),
        "name": (plugin(caches=lambda: [component("No Good")]), "'No Good' is not usable"),
        "target": (plugin(caches=lambda: [component("x", target="os.path")]), "'os.path'"),
        "requires": (
            plugin(caches=lambda: [component("x", requires=("xformers>=0.0.35",))]),
            "expected a tuple of names",
        ),
        "future": (plugin(caches=[component("x", contract=2)]), "contract 2 of caches"),
        "twice": (plugin(caches=[component("x"), component("x")]), "offered twice"),
    }


@given(data=st.data())
def test_broken_plugins_never_stop_the_built_ins(breakages, data) -> None:
    """Property 65."""
    drawn = data.draw(st.lists(st.sampled_from(sorted(breakages)), min_size=1, unique=True))
    place = data.draw(st.integers(0, len(drawn)))
    # Prefixes on both sides of "llama4-core", so that some load before it and some after.
    prefix = {kind: data.draw(st.sampled_from(["a", "z"])) for kind in drawn}
    plugins = [(kind, f"{prefix[kind]}-{kind}", "1", breakages[kind][0]) for kind in drawn]
    known = Catalogue.from_plugins([*plugins[:place], CORE, *plugins[place:]])
    for socket, expected in BUILT_IN.items():
        ours = [n for n in names(known, socket) if n.startswith("llama4-core/")]
        assert ours == expected
    for kind in drawn:
        reported = [p for p in known.problems if p.distribution == f"{prefix[kind]}-{kind}"]
        assert any(breakages[kind][1] in problem.reason for problem in reported), kind


def test_every_breakage_is_fatal_when_strict(breakages) -> None:
    for kind, (broken, reason) in breakages.items():
        with pytest.raises(PluginError) as caught:
            Catalogue.from_plugins([CORE, (kind, f"broken-{kind}", "1", broken)], strict=True)
        assert reason in str(caught.value)
        assert f"broken-{kind}" in str(caught.value)


def test_what_a_plugin_offers_before_it_breaks_is_kept(breakages) -> None:
    known = Catalogue.from_plugins([("m", "midway", "1", breakages["midway"][0])])
    assert names(known, "caches") == ["midway/good"]


@given(data=st.data())
def test_the_order_of_discovery_does_not_matter(breakages, plugin, component, data) -> None:
    """Property 66, with clashes, duplicates and broken plugins among them."""
    plugins = [
        CORE,
        ("a", "first", "1", plugin(caches=[component("same", summary="1")])),
        ("b", "second", "1", plugin(caches=[component("same", summary="2"), component("own")])),
        ("c", "second", "1", plugin(caches=[component("own", summary="a later entry point")])),
        ("d", "third", "2", plugin(caches=[component("bounded")], routers=[component("r")])),
        *((kind, "broken", "1", broken) for kind, (broken, _) in sorted(breakages.items())),
    ]
    shuffled = data.draw(st.permutations(plugins))
    assert listing(Catalogue.from_plugins(shuffled)) == listing(Catalogue.from_plugins(plugins))


def test_a_clash_is_listed_and_only_using_the_bare_name_is_an_error(plugin, component) -> None:
    known = Catalogue.from_plugins(
        [CORE, ("x", "Other_Package", "1", plugin(caches=[component("bounded")]))]
    )
    assert known.problems == []
    assert known.clashes() == {"caches": {"bounded": ("llama4-core", "other-package")}}
    with pytest.raises(ComponentError) as caught:
        known.find("caches", "bounded")
    assert "'llama4-core/bounded', 'other-package/bounded'" in str(caught.value)
    assert known.find("caches", "other-package/bounded").distribution == "other-package"
    assert known.find("caches", "llama4-core/bounded").distribution == "llama4-core"
    assert known.find("caches", "full").distribution == "llama4-core"


def test_the_allow_list_keeps_others_out_and_ours_in(plugin, component) -> None:
    plugins = [
        CORE,
        ("x", "wanted", "1", plugin(caches=[component("x")])),
        ("y", "unwanted", "1", plugin(caches=raises)),
    ]
    known = Catalogue.from_plugins(plugins, allow=["Wanted"])
    assert names(known, "caches") == [
        "llama4-core/bounded",
        "llama4-core/full",
        "wanted/x",
    ]
    assert [(p.distribution, "LLAMA4_PLUGINS" in p.reason) for p in known.problems] == [
        ("unwanted", True)
    ]
    assert known.find("caches", "x").allowed
    assert names(Catalogue.from_plugins(plugins, allow=[]), "caches") == BUILT_IN["caches"]
    # Leaving out what is not listed is what was asked for, when strict too.
    assert names(Catalogue.from_plugins(plugins, allow=["wanted"], strict=True), "caches")[-1] == (
        "wanted/x"
    )
    # Unset: loaded, but not for "auto" to choose.
    assert not Catalogue.from_plugins(plugins).find("caches", "x").allowed


@pytest.fixture
def wide_socket(monkeypatch):
    """The socket of caches as it will be when contracts 2 to 4 are understood."""
    socket = replace(SOCKETS["caches"], oldest=2, current=4)
    monkeypatch.setitem(SOCKETS, "caches", socket)


@pytest.mark.usefixtures("wide_socket")
def test_contracts_outside_the_range_are_refused_with_both_numbers(
    plugin, component, caplog
) -> None:
    offers = [component(f"c{number}", contract=number) for number in range(1, 6)]
    with caplog.at_level(logging.WARNING):
        known = Catalogue.from_plugins([("x", "foreign", "1", plugin(caches=offers))])
    assert names(known, "caches") == ["foreign/c2", "foreign/c3", "foreign/c4"]
    assert [p.reason for p in known.problems] == [
        f"cache 'c{number}': written for contract {number} of caches; this llama4-core understands "
        "2 to 4: install a version of foreign or of llama4-core that fits"
        for number in (1, 5)
    ]
    assert [record.args[2] for record in caplog.records] == ["c2", "c3"]
    for name in ("c1", "foreign/c5"):
        with pytest.raises(ComponentError, match="understands 2 to 4"):
            known.find("caches", name)


@pytest.mark.parametrize(
    ("socket", "name", "message"),
    [
        (
            "caches",
            "boundde",
            "unknown cache 'boundde': did you mean 'bounded'? installed are bounded, full",
        ),
        ("caches", "zzz", "unknown cache 'zzz': installed are bounded, full"),
        (
            "routers",
            "sigmoid-top-k",
            "router 'sigmoid-top-k', which no installed package offers: pip install llama4-moe",
        ),
        (
            "feed_forwards",
            "moe",
            "feed-forward 'moe', which no installed package offers: pip install llama4-moe",
        ),
        (
            "commands",
            "serve",
            "command 'serve', which no installed package offers: pip install llama4-serve",
        ),
        ("cache", "full", "unknown socket 'cache': did you mean 'caches'?"),
    ],
)
def test_unknown_names_say_what_to_do(socket: str, name: str, message: str) -> None:
    with pytest.raises(ComponentError) as caught:
        Catalogue.from_plugins([CORE]).find(socket, name)
    assert message in str(caught.value)


def test_the_message_names_who_needs_it_and_a_broken_owner() -> None:
    with pytest.raises(ComponentError) as caught:
        Catalogue.from_plugins([CORE]).find("feed_forwards", "moe", needed_by="Scout")
    assert str(caught.value) == (
        "Scout needs feed-forward 'moe', which no installed package offers: pip install llama4-moe"
    )
    broken = Catalogue.from_plugins([CORE, ("moe", "llama4-moe", "0.1", "llama4_nothing_here")])
    with pytest.raises(ComponentError, match="installed but broken: could not be loaded"):
        broken.find("feed_forwards", "moe", needed_by="Scout")


def test_the_catalogue_of_this_environment_has_ours() -> None:
    for socket, expected in BUILT_IN.items():
        assert set(expected) <= set(names(catalogue(), socket))
    assert catalogue() is catalogue()


# --- real distributions, in a process of their own ------------------------------------------------


def distribution(folder: Path, name: str, source: str) -> None:
    """Installs a distribution by hand: one module, metadata, one entry point."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[llama4]\n{module} = {module}\n")


def python(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LLAMA4_")}
    path = os.pathsep.join([str(folder), *filter(None, [clean.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**clean, "PYTHONPATH": path, **environment},
        check=False,
    )


SHOW = """
import sys
from llama4_core.plugins.catalogue import catalogue
known = catalogue()
print([e.full_name for e in known.components("caches") if e.distribution != "llama4-core"])
print(any(e.full_name == "llama4-core/bounded" for e in known.components("caches")))
print(sorted((p.distribution, p.reason) for p in known.problems if p.distribution != "llama4-moe"))
print("torch" in sys.modules)
"""
GOOD = """
from llama4_core.plugins import Component, hookimpl

@hookimpl
def llama4_caches():
    yield Component("{name}", "builtins:dict")
"""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    distribution(tmp_path, "kind-plugin", GOOD.format(name="kind"))
    distribution(tmp_path, "exits-at-import", "raise SystemExit(1)")
    distribution(tmp_path, "raises-at-import", "1 / 0")
    return tmp_path


def test_installed_plugins_are_found_and_broken_ones_isolated(installed: Path) -> None:
    """Properties 65 and 67 on entry points."""
    shown = python(SHOW, installed)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        "['kind-plugin/kind']",
        "True",
        str(
            [
                ("exits-at-import", "could not be loaded: SystemExit: 1"),
                ("raises-at-import", "could not be loaded: ZeroDivisionError: division by zero"),
            ]
        ),
        "False",
    ]


def test_the_environment_restricts_and_tightens(installed: Path) -> None:
    restricted = python(SHOW, installed, LLAMA4_PLUGINS="exits-at-import").stdout.splitlines()
    assert restricted[:2] == ["[]", "True"]
    assert "('kind-plugin', 'not loaded: LLAMA4_PLUGINS" in restricted[2]
    assert python(SHOW, installed, LLAMA4_PLUGINS="kind_plugin").stdout.splitlines()[0] == (
        "['kind-plugin/kind']"
    )
    strict = python(SHOW, installed, LLAMA4_STRICT_PLUGINS="1")
    assert strict.returncode != 0
    assert "exits-at-import" in strict.stderr
    assert "LLAMA4_STRICT_PLUGINS" in strict.stderr
