"""A damaged or foreign folder gives one line that names the file, the key or the value."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import llama4_core as l4
from llama4_core.errors import CheckpointError, Llama4Error

INDEX = "model.safetensors.index.json"
NORM, FOREIGN_NORM = ".attention_norm.weight", ".input_layernorm.weight"


@pytest.fixture(scope="session")
def saved(tmp_path_factory, model):
    root = tmp_path_factory.mktemp("sound")
    for form in ("native", "huggingface"):
        l4.save(model, root / form, form, shard_bytes=20_000)
    return root


@pytest.fixture(params=["native", "huggingface"])
def folder(request, saved, tmp_path):
    return Path(shutil.copytree(saved / request.param, tmp_path / request.param))


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_shard(folder, change, number=0):
    """Changes the tensors of a shard, and the index to match."""
    path = sorted(folder.glob("*.safetensors"))[number]
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})

    def relist(index):
        others = {k: f for k, f in index["weight_map"].items() if f != path.name}
        index["weight_map"] = others | dict.fromkeys(tensors, path.name)

    edit_json(folder / INDEX, relist)
    return path


def refused(folder, *words, error=CheckpointError):
    with pytest.raises(error) as caught:
        l4.load(folder)
    message = str(caught.value)
    assert isinstance(caught.value, Llama4Error)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


def test_a_sound_folder_is_read(folder):
    l4.load(folder)


def test_a_truncated_shard(folder):
    path = max(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, str(path), "truncated")


def test_a_flipped_bit_in_a_header(folder):
    path = max(folder.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[content.index(b'"shape"') + 9] ^= 1
    path.write_bytes(content)
    refused(folder, str(path), "key")


def test_a_flipped_bit_in_a_name(folder):
    path = next(p for p in folder.glob("*.safetensors") if b"norm.weight" in p.read_bytes())
    content = bytearray(path.read_bytes())
    content[content.index(b"norm.weight")] ^= 1
    path.write_bytes(content)
    refused(folder, str(path), "norm.weight", INDEX)


def test_a_missing_shard(folder):
    path = max(folder.glob("*.safetensors"))
    path.unlink()
    refused(folder, str(path), "missing", "fetch that file")


def test_an_index_that_names_a_missing_key(folder):
    name = min(folder.glob("*.safetensors")).name
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({"ghost": name}))
    refused(folder, name, "'ghost'", INDEX)


def test_an_index_that_forgets_a_key(folder):
    edit_json(folder / INDEX, lambda index: index["weight_map"].pop("layers.0" + NORM, None)
              or index["weight_map"].pop("model.layers.0" + FOREIGN_NORM))  # fmt: skip
    refused(folder, "holds the key", "layers.0", INDEX)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "", 7, None])
def test_an_index_that_points_elsewhere(folder, name):
    edit_json(folder / INDEX, lambda index: index["weight_map"].update({"norm.weight": name}))
    refused(folder, INDEX, "'norm.weight'", repr(name))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_that_is_none(folder, text):
    (folder / INDEX).write_text(text)
    refused(folder, INDEX)


def test_a_missing_key(folder):
    edit_shard(folder, lambda tensors: tensors.pop(min(tensors)))
    refused(folder, str(folder), "1 missing: ")


def test_an_extra_key(folder):
    edit_shard(folder, lambda tensors: tensors.update(surplus=torch.zeros(2)))
    refused(folder, "1 not part of this model: surplus")


def test_a_misshaped_key_of_the_right_size(folder):
    def change(tensors):
        name = next(n for n in sorted(tensors) if n.endswith("_proj.weight"))
        tensors[name] = tensors[name].reshape(-1, 4)

    edit_shard(folder, change)
    refused(folder, "1 misshaped: ", "_proj.weight has [", "], expected [")


def test_a_dtype_that_nothing_can_run(folder):
    def change(tensors):
        tensors[min(tensors)] = tensors[min(tensors)].to(torch.float8_e4m3fn)

    edit_shard(folder, change)
    refused(folder, "float8_e4m3fn", "nothing installed can run")


def test_no_weights_at_all(folder):
    for path in folder.glob("model*"):
        path.unlink()
    refused(folder, INDEX, "expected a folder with the weights")


def test_a_broken_description(folder):
    (description,) = [*folder.glob("config.json"), *folder.glob("spec.toml")]
    description.write_text("{")
    refused(folder, str(description), error=Llama4Error)


def test_an_unknown_key_of_the_description(folder):
    if (folder / "config.json").exists():
        edit_json(folder / "config.json", lambda config: config.update(hiden_size=3))
    else:
        path = folder / "spec.toml"
        path.write_text("hiden_size = 3\n" + path.read_text())
    refused(folder, "hiden_size", error=Llama4Error)


def test_another_architecture(folder):
    if not (folder / "config.json").exists():
        pytest.skip("the native format holds no other architecture")
    edit_json(folder / "config.json", lambda config: config.update(model_type="mamba"))
    refused(folder, "config.json", "'mamba'", error=Llama4Error)


def test_an_empty_folder(tmp_path):
    refused(tmp_path, str(tmp_path), "holds nothing", "config.json or spec.toml")


def test_a_folder_in_two_formats(saved, tmp_path):
    folder = Path(shutil.copytree(saved / "native", tmp_path / "both"))
    shutil.copyfile(saved / "huggingface" / "config.json", folder / "config.json")
    refused(folder, "huggingface", "native", "keep the files of one")


@pytest.mark.parametrize("form", ["native", "huggingface"])
def test_nothing_is_written_from_a_damaged_folder(folder, tmp_path, form):
    edit_shard(folder, lambda tensors: tensors.pop(min(tensors)))
    path = max(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-100])
    from llama4_core.cli.main import main

    assert main(["convert", str(folder), str(tmp_path / "out"), "--format", form]) == 2
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_the_command_line_says_it_in_one_line(folder, tmp_path, capsys):
    from llama4_core.cli.main import main

    assert main(["convert", str(folder), str(tmp_path / "out")]) == 0
    assert main(["convert", str(folder), str(tmp_path / "out")]) == 2
    assert main(["convert", str(tmp_path / "none"), str(tmp_path / "other")]) == 2
    assert main(["convert", str(folder), str(tmp_path / "other"), "--format", "nativ"]) == 2
    assert main(["convert", "scout", str(tmp_path / "other")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 4
    assert "not an empty folder" in lines[0]
    assert "neither a folder" in lines[1]
    assert "native" in lines[2]
    assert "is a shape, not weights" in lines[3]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({folder.name, "out"})
