from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from llama4_core.cli.doctor import examine
from llama4_core.cli.output import overrides_of, table
from llama4_core.errors import OverrideError
from llama4_core.plugins import SOCKETS, Catalogue

PLUGIN = """
from llama4_core.plugins import Component, hookimpl

@hookimpl
def llama4_attention_backends():
    yield Component("mine", "llama4_core.attention.eager:EagerAttention", "my own")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["plugins"],
        ["plugins", "--json", "--socket", "routers"],
        ["plugins", "--help"],
        ["models"],
        ["models", "--json"],
        ["nonsense"],
    ],
)
def test_listings_do_not_import_torch(python, words: list[str]) -> None:
    """Property 67."""
    done = python(
        "import sys\n"
        "from llama4_core.cli import main\n"
        f"code = main({words!r})\n"
        "assert code == (2 if 'nonsense' in sys.argv + " + repr(words) + " else 0)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "assert 'numpy' not in sys.modules, 'numpy was imported'\n"
    )
    assert done.returncode == 0, done.stderr


def test_plugins_lists_sockets_and_components(llama4) -> None:
    code, out, _ = llama4("plugins")
    assert code == 0
    for socket in SOCKETS:
        assert f"\n{socket}\n" in f"\n{out}"
    assert "  irope-chunked" in out
    assert "llama4-core 0.1.0" in out


def test_plugins_of_one_socket_by_either_name(llama4) -> None:
    one = llama4("plugins", "--socket", "caches")
    assert one == llama4("plugins", "--socket", "cache")
    assert one[1].splitlines()[0] == "caches"
    assert "attention" not in one[1]
    code, _, err = llama4("plugins", "--socket", "cashes")
    assert code == 2
    assert "did you mean 'caches'?" in err


def test_plugins_as_json(llama4) -> None:
    listing = json.loads(llama4("plugins", "--json", "--socket", "caches")[1])
    assert list(listing["sockets"]) == ["caches"]
    caches = listing["sockets"]["caches"]
    assert caches["contracts"] == [SOCKETS["caches"].oldest, SOCKETS["caches"].current]
    assert {"bounded", "full"} <= {c["name"] for c in caches["components"]}
    assert listing["clashes"] == {}


def test_a_file_of_ones_own_is_listed_with_its_hash(llama4, file: Path) -> None:
    out = llama4("plugins", "--socket", "attention_backends", "--plugin", str(file))[1]
    (line,) = [line for line in out.splitlines() if "mine" in line]
    assert "local:mine.py sha256:" in line
    assert "mine" not in llama4("plugins")[1]


def test_clashes_and_problems_are_listed(llama4, file: Path, tmp_path: Path) -> None:
    file.write_text(PLUGIN.replace('"mine"', '"eager"'), encoding="utf-8")
    words = ("plugins", "--plugin", str(file))
    out = llama4(*words)[1]
    assert "! 'eager' is offered by llama4-core, local:mine.py" in out
    assert "  local:mine.py/eager" in out
    assert json.loads(llama4(*words, "--json")[1])["clashes"] == {
        "attention_backends": {"eager": ["llama4-core", "local:mine.py"]}
    }
    code, _, err = llama4("plugins", "--plugin", str(tmp_path / "absent.py"))
    assert code == 2
    assert "absent.py" in err


def test_models_have_names_and_summaries(llama4) -> None:
    code, out, _ = llama4("models")
    assert code == 0
    listed = {m["name"]: m for m in json.loads(llama4("models", "--json")[1])}
    for name in ("scout", "maverick", "guard", "behemoth", "nano", "mini", "small"):
        assert f"  {name} " in out
        assert listed[name]["distribution"] == "llama4-core"
    assert "illustrative" in listed["behemoth"]["summary"]


def test_explain_says_what_runs_and_why_not_the_others(llama4, file: Path) -> None:
    """Guard is dense: this package alone can assemble it."""
    overrides = ("--set", "layers.[0-1].attention.backend=eager")
    own = ("--plugin", str(file), "--set", "layers.47.attention.backend=mine")
    code, out, err = llama4("explain", "guard", *overrides, *own)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("guard")
    assert any(
        "layers.0-1.attention.backend" in line and "eager  [llama4-core" in line for line in lines
    )
    assert any("layers.2-46.attention.backend" in line and "sdpa" in line for line in lines)
    assert any("mine  [local:mine.py sha256:" in line for line in lines)
    # its wheel may be absent, its device is
    assert any(
        "not xformers" in line and ("CUDA" in line or "not installed" in line) for line in lines
    )
    read = json.loads(llama4("explain", "guard", "--json")[1])
    assert read["slots"]["layers.0.attention.backend"]["rows"][0]["provider"]["name"] == "sdpa"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain", "gaurd"], "did you mean 'guard'?"),
        (["explain", "guard", "--set", "layers.*.attention.backend=sdap"], "did you mean 'sdpa'?"),
        (["explain", "guard", "--set", "layer.*.attention=x"], "addresses no slot of this model"),
        (["explain", "guard", "--set", "cache"], "expected PATH=NAME"),
        (
            ["explain", "guard", "--set", "layers.*.attention.backend=xformers"],
            "'xformers' of llama4-core cannot run here",
        ),
        (["explain", "guard", "--dtype", "int7"], "'int7'"),
    ],
)
def test_explain_with_bad_input(llama4, words: list[str], message: str) -> None:
    code, out, err = llama4(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_doctor_describes_the_machine_and_each_refusal(llama4) -> None:
    found = json.loads(llama4("doctor", "--json")[1])
    assert found["python"].startswith(sys.implementation.name.replace("cp", "CP"))
    assert found["torch"]["threads"] >= 1
    assert found["packages"]["llama4-core"]
    assert any(p["distribution"] == "llama4-core" for p in found["plugins"])
    verdicts = {v["name"]: v for v in found["backends"]["cpu"]["attention_backends"]}
    assert verdicts["llama4-core/sdpa"]["refusal"] is None
    assert verdicts["llama4-core/xformers"]["refusal"]
    code, out, _ = llama4("doctor")
    assert code == 0
    assert f"refused: {verdicts['llama4-core/xformers']['refusal']}" in out


def test_doctor_survives_a_broken_torch_and_broken_plugins(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = examine(Catalogue.from_plugins([("bad", "broken", "1", "llama4_nothing_here")]))
    assert "ImportError" in found["torch"]["error"] or "ModuleNotFound" in found["torch"]["error"]
    assert found["problems"][0]["distribution"] == "broken"
    assert found["backends"]["cpu"] == {"attention_backends": [], "expert_backends": []}


@pytest.mark.parametrize("text", ["", "a", "a=", "=b", " = "])
def test_a_malformed_override_option_is_an_error(text: str) -> None:
    with pytest.raises(OverrideError, match="expected PATH=NAME"):
        overrides_of(argparse.Namespace(overrides=[text]))


def test_override_options_become_a_mapping() -> None:
    options = argparse.Namespace(overrides=["a.b = c", "**.d=e/f=g"])
    assert overrides_of(options) == {"a.b": "c", "**.d": "e/f=g"}
    with pytest.raises(OverrideError, match="both 'c' and 'd'"):
        overrides_of(argparse.Namespace(overrides=["a=c", "a=d"]))


def test_tables_align_and_may_be_empty() -> None:
    assert table([]) == ""
    assert table([("a", "bbb", "c"), ("aaaa", "b")]) == "  a     bbb  c\n  aaaa  b"
