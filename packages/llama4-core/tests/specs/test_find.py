"""Specs of folders and files."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from llama4_core.cli.main import main
from llama4_core.errors import SpecError
from llama4_core.specs.find import spec_from_path
from llama4_core.specs.huggingface import huggingface_from_spec
from llama4_core.specs.meta import meta_from_spec
from llama4_core.specs.presets import preset
from llama4_core.specs.toml import write_toml

NANO = preset("nano")


def test_reads_each_kind_of_folder(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(meta_from_spec(NANO)))
    found = spec_from_path(tmp_path)
    assert found.name == tmp_path.name
    assert found.layers == NANO.layers
    (tmp_path / "config.json").write_text(json.dumps(huggingface_from_spec(NANO)))
    assert spec_from_path(tmp_path) == NANO
    write_toml(replace(NANO, name="mine"), tmp_path / "spec.toml")
    assert spec_from_path(tmp_path).name == "mine"
    assert spec_from_path(tmp_path / "config.json") == NANO


def test_numbers_of_meta_below_one_key(tmp_path):
    params = meta_from_spec(NANO)
    (tmp_path / "params.json").write_text(json.dumps({"model": params}))
    assert spec_from_path(tmp_path).layers == NANO.layers
    (tmp_path / "params.json").write_text(json.dumps({"model": params, "more": 1}))
    with pytest.raises(SpecError, match="holds 'more' beside 'model'"):
        spec_from_path(tmp_path)


def test_a_repository_in_the_cache_has_its_own_name(tmp_path):
    """There, a folder is named after a commit, and its files are links to others."""
    folder = tmp_path / "models--org--mine" / "snapshots" / "c0ffee"
    folder.mkdir(parents=True)
    blob = tmp_path / "models--org--mine" / "blobs" / "abc"
    blob.parent.mkdir()
    blob.write_text(json.dumps(meta_from_spec(NANO)))
    (folder / "params.json").symlink_to(blob)
    assert spec_from_path(folder).name == "mine"


def test_says_what_is_missing_or_broken(tmp_path):
    with pytest.raises(SpecError, match=r"has none of spec.toml, config.json, params.json"):
        spec_from_path(tmp_path)
    with pytest.raises(SpecError, match="does not exist"):
        spec_from_path(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SpecError, match=r"config.json: cannot be read as JSON"):
        spec_from_path(tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SpecError, match=r"notes.txt is not one of"):
        spec_from_path(tmp_path / "notes.txt")
    (tmp_path / "broken.toml").write_bytes(b"\xff")
    with pytest.raises(SpecError, match="cannot be read as text"):
        spec_from_path(tmp_path / "broken.toml")


@pytest.mark.parametrize("name", ["config.json", "spec.toml"])
def test_a_longest_context_is_refused_where_the_file_has_its_own(tmp_path, capsys, name):
    if name == "spec.toml":
        write_toml(NANO, tmp_path / name)
    else:
        (tmp_path / name).write_text(json.dumps(huggingface_from_spec(NANO)))
    with pytest.raises(SpecError, match=f"{name} says its longest context itself"):
        spec_from_path(tmp_path, max_positions=9)
    assert main(["inspect", str(tmp_path), "--max-positions", "9"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_inspect_prints_a_table(capsys):
    assert main(["inspect", "scout"]) == 0
    printed = capsys.readouterr().out
    for expected in ("108.642B parameters", "17.173B active", "217.3 GB", "481.1 GiB", "ONE user"):
        assert expected in printed
    assert main(["inspect", "behemoth"]) == 0
    assert "illustrative" in capsys.readouterr().out


def test_inspect_prints_json(capsys, tmp_path):
    write_toml(NANO, tmp_path / "nano.toml")
    assert main(["inspect", str(tmp_path / "nano.toml"), "--json"]) == 0
    from_file = json.loads(capsys.readouterr().out)
    assert main(["inspect", "nano-text", "--json"]) == 0
    from_name = json.loads(capsys.readouterr().out)
    assert from_file["parameters"] == from_name["parameters"]
    assert from_file["cache_bytes_per_user"][0]["length"] == 8192


@pytest.mark.parametrize("name", ["scuot", "no/such/folder"])
def test_inspect_refuses_in_one_line(capsys, name):
    assert main(["inspect", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_inspect_needs_no_torch():
    code = (
        "import sys; from llama4_core.cli.main import main; main(['inspect', 'maverick']); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
