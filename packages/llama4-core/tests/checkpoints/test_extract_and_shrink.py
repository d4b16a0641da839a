"""A part of a checkpoint, or fewer layers and experts of it, as a folder of its own."""

import json

import pytest
import torch
from safetensors.torch import load_file

from llama4_core.checkpoints.convert import convert, opened
from llama4_core.checkpoints.extract import extract
from llama4_core.checkpoints.joined import gathered
from llama4_core.checkpoints.shrink import parse_ranges, shrink
from llama4_core.cli.main import main
from llama4_core.errors import CheckpointError

from .folders import content, make, mixture_spec, weights_of


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "native"
    make(folder)
    (folder / "LICENSE").write_text("terms")
    return folder


def weights_in(folder):
    return {
        key: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for key, tensor in load_file(path).items()
    }


def test_the_text_model(native, tmp_path):
    extract(native, tmp_path / "text", "text")
    _, spec, weights = opened(tmp_path / "text")
    assert spec == mixture_spec().text_only()
    whole = weights_of(mixture_spec())
    assert weights.keys() == {name for name in whole if not name.startswith("vision.")}
    assert all(torch.equal(weights[name], whole[name]) for name in weights)
    assert (tmp_path / "text" / "LICENSE").read_text() == "terms"


def test_the_eyes(native, tmp_path):
    extract(native, tmp_path / "eyes", "vision")
    whole = weights_of(mixture_spec())
    found = weights_in(tmp_path / "eyes")
    assert {f"vision.{name}" for name in found} == {n for n in whole if n.startswith("vision.")}
    assert all(torch.equal(tensor, whole[f"vision.{name}"]) for name, tensor in found.items())
    assert json.loads((tmp_path / "eyes" / "vision.json").read_text())["patch_size"] == 14


def test_a_layer(native, tmp_path):
    extract(native, tmp_path / "layer", "layer:3")
    whole = weights_of(mixture_spec())
    found = weights_in(tmp_path / "layer")
    assert {f"layers.3.{name}" for name in found} == {n for n in whole if "layers.3." in n[:9]}
    assert all(torch.equal(tensor, whole[f"layers.3.{name}"]) for name, tensor in found.items())
    numbers = json.loads((tmp_path / "layer" / "layer.json").read_text())
    assert numbers["feed_forward"]["experts"] == 5
    assert numbers["attention"]["rope"] is None


@pytest.mark.parametrize("part", ["layer:4", "layer:-1", "layer", "layer:x", "ears", ""])
def test_other_parts_are_refused(native, tmp_path, part):
    with pytest.raises(CheckpointError, match="part is"):
        extract(native, tmp_path / "out", part)
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_cannot_be_extracted(native, tmp_path):
    extract(native, tmp_path / "text", "text")
    with pytest.raises(CheckpointError, match="no vision part"):
        extract(tmp_path / "text", tmp_path / "out", "vision")
    with pytest.raises(CheckpointError, match="no whole model"):
        extract(native, tmp_path / "out", "layer:0", "huggingface")


@pytest.mark.parametrize("source_format", [None, "meta"])
def test_shrinking_cuts_layers_experts_and_router_rows(native, tmp_path, source_format):
    source = native
    if source_format:
        source = tmp_path / "meta"
        convert(native, source, "meta", shards=3)
    spec = shrink(source, tmp_path / "small", layers=[1, 2, 3], experts=[0, 1, 4],
                  source_format=source_format)  # fmt: skip
    _, found, weights = opened(tmp_path / "small")
    assert found == spec
    before = mixture_spec().layers
    assert [layer.attention for layer in spec.layers] == [x.attention for x in before[1:]]
    assert [getattr(x.feed_forward, "experts", None) for x in spec.layers] == [3, None, 3]
    assert spec.vision == mixture_spec().vision
    whole = weights_of(mixture_spec())
    for name, weight in weights.items():
        if not name.startswith("layers."):
            expected = whole[name]
        else:
            _, number, rest = name.split(".", 2)
            expected = whole[f"layers.{int(number) + 1}.{rest}"]
            if "router" in rest or ".experts." in rest:
                expected = expected[[0, 1, 4]]
        assert torch.equal(gathered(weight), expected), name
    assert (tmp_path / "small" / "LICENSE").exists()


def test_shrinking_nothing_keeps_every_weight(native, tmp_path):
    shrink(native, tmp_path / "same")
    one, other = content(native), content(tmp_path / "same")
    assert {n: d for n, d in one.items() if n != "spec.toml"} == {
        n: d for n, d in other.items() if n != "spec.toml"
    }


@pytest.mark.parametrize(
    ("layers", "experts"),
    [([4], None), ([], None), ([1, 0], None), ([1, 1], None), ([-1], None), (None, [5]),
     (None, []), (None, [2, 1])],
)  # fmt: skip
def test_indices_are_checked(native, tmp_path, layers, experts):
    with pytest.raises(CheckpointError, match="expected ascending indices"):
        shrink(native, tmp_path / "out", layers=layers, experts=experts)
    assert not list(tmp_path.iterdir())


def test_fewer_experts_than_a_token_visits(tmp_path):
    from dataclasses import replace

    spec = mixture_spec(vision=False, layers=2)
    layer = spec.layers[1]
    layer = replace(layer, feed_forward=replace(layer.feed_forward, top_k=2))
    make(tmp_path / "two", vision=False, layers=2)
    from llama4_core.specs.toml import write_toml

    write_toml(replace(spec, layers=(spec.layers[0], layer)), tmp_path / "two" / "spec.toml")
    with pytest.raises(CheckpointError, match="visits 2"):
        shrink(tmp_path / "two", tmp_path / "out", experts=[0])


def test_ranges():
    assert parse_ranges("0-3,7") == [0, 1, 2, 3, 7]
    assert parse_ranges(" 2 ,4-4") == [2, 4]
    for text in ("", "-", "3-1", "a", "1-", "-1", "1,,2", "0-99999999999", "1-2-3"):
        with pytest.raises(CheckpointError):
            parse_ranges(text)


def test_the_commands(native, tmp_path, capsys):
    out = str(tmp_path / "a")
    assert main(["extract", str(native), "--part", "layer:0", out]) == 0
    words = ["shrink", str(native), str(tmp_path / "b"), "--layers", "0-1", "--experts", "0,2-3"]
    assert main(words) == 0
    assert opened(tmp_path / "b")[1].layers[1].feed_forward.experts == 3
    assert main(["convert", str(native), str(tmp_path / "c"), "--format", "meta",
                 "--shards", "2"]) == 0  # fmt: skip
    assert main(["convert", str(tmp_path / "c"), str(tmp_path / "d")]) == 2
    assert "--from meta" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "c"), str(tmp_path / "d"), "--from", "meta"]) == 0
    assert main(["shrink", str(native), str(tmp_path / "e"), "--layers", "9"]) == 2


@pytest.mark.parametrize("form", ["native", "huggingface", "meta"])
def test_inspect_counts_what_is_stored(native, tmp_path, capsys, form):
    convert(native, tmp_path / "it", form)
    names = weights_of(mixture_spec())
    vision = sum(name.startswith("vision.") for name in names)
    size = sum(tensor.nbytes for tensor in names.values())
    words = ["inspect", str(tmp_path / "it"), "--json"]
    assert main(words) == 0
    stored = json.loads(capsys.readouterr().out)["stored"]
    if form == "meta":
        assert not stored["read"]
        assert main([*words, "--from", "meta"]) == 0
        stored = json.loads(capsys.readouterr().out)["stored"]
    assert stored["vision"] == vision
    assert stored["nbytes"] == size
    assert main(["inspect", str(tmp_path / "it")]) == 0
    out = capsys.readouterr().out
    assert f"{vision} of them vision" in out or "--from meta counts their keys" in out
