"""The image encoder of a checkpoint alone, from every kind of folder."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from llama4_core.checkpoints.convert import convert
from llama4_core.checkpoints.extract import extract
from llama4_core.checkpoints.part import vision_part
from llama4_core.checkpoints.save import write_checkpoint
from llama4_core.cli.main import main
from llama4_core.errors import CheckpointError

from .folders import make, mixture_spec, weights_of

SPEC = mixture_spec()
EYES = {
    name.removeprefix("vision."): tensor
    for name, tensor in weights_of(SPEC).items()
    if name.startswith("vision.")
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same model in each format, and its extracted encoder."""
    root = tmp_path_factory.mktemp("folders")
    make(root / "native")
    convert(root / "native", root / "huggingface", "huggingface")
    convert(root / "native", root / "meta", "meta", shards=2)
    extract(root / "native", root / "extracted", "vision")
    return root


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("native", {}),
        ("native", {"format": "native"}),
        ("huggingface", {}),
        ("meta", {"format": "meta"}),
        ("extracted", {}),
    ],
)
def test_the_same_from_every_folder(folders, name, settings):
    vision, width, tensors = vision_part(folders / name, **settings)
    assert vision == SPEC.vision
    assert width == SPEC.width
    assert tensors.keys() == EYES.keys()
    assert all(torch.equal(tensors[key], EYES[key]) for key in EYES)
    assert {key.split(".")[0] for key in tensors} == {"encoder", "adapter", "projector"}


@pytest.mark.parametrize("name", ["native", "huggingface", "extracted"])
def test_nothing_is_copied(folders, name):
    """Views of one mapping: a file's tensors share their storage, so none was read by itself."""
    _, _, tensors = vision_part(folders / name)
    storages = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    assert len(storages) == 1


def test_a_longest_context_that_params_json_does_not_say(folders, tmp_path):
    folder = tmp_path / "silent"
    convert(folders / "native", folder, "meta")
    params = json.loads((folder / "params.json").read_text())
    del params["max_seq_len"]
    (folder / "params.json").write_text(json.dumps(params))
    assert vision_part(folder, format="meta", max_positions=64)[1] == SPEC.width


def test_a_text_model_has_none(tmp_path):
    make(tmp_path / "text", vision=False)
    with pytest.raises(CheckpointError, match=r"text model small.*no image encoder"):
        vision_part(tmp_path / "text")


def test_what_is_missing_or_misshapen_is_named(folders, tmp_path):
    def changed(name, function):
        folder = tmp_path / name
        folder.mkdir()
        tensors = {}
        for path in (folders / "extracted").glob("*.safetensors"):
            tensors |= load_file(path)
        function(tensors)
        save_file({k: t.contiguous() for k, t in tensors.items()}, folder / "model.safetensors")
        (folder / "vision.json").write_bytes((folders / "extracted/vision.json").read_bytes())
        return folder

    cases = {
        "missing": (
            lambda t: t.pop("encoder.norm_pre.bias"),
            r"1 missing: encoder\.norm_pre\.bias",
        ),
        "extra": (
            lambda t: t.update({"encoder.norm_mid.bias": torch.zeros(48)}),
            r"encoder\.norm_mid\.bias",
        ),
        "shape": (
            lambda t: t.update({"adapter.fc2.weight": torch.zeros(24, 23)}),
            r"adapter\.fc2\.weight has \[24, 23\], expected \[24, 24\]",
        ),
        "projector": (lambda t: t.pop("projector.weight"), r"projector\.weight is missing"),
        "flat": (
            lambda t: t.update({"projector.weight": torch.zeros(48)}),
            r"projector\.weight has \[48\]",
        ),
        "whole-numbers": (
            lambda t: t.update({"projector.weight": torch.zeros(48, 24, dtype=torch.int8)}),
            r"stored as torch\.int8",
        ),
    }
    for name, (function, message) in cases.items():
        with pytest.raises(CheckpointError, match=message):
            vision_part(changed(name, function))


def test_a_native_checkpoint_without_its_eyes(tmp_path):
    weights = {n: t for n, t in weights_of(SPEC).items() if n != "vision.projector.weight"}
    write_checkpoint(weights, SPEC, tmp_path / "blind", "native")
    with pytest.raises(CheckpointError, match=r"projector\.weight is missing; expected \[48, 24\]"):
        vision_part(tmp_path / "blind")


@pytest.mark.parametrize("content", ['{"width": 48}', '{"wdith": 48}', "[]", "no"])
def test_damaged_numbers(folders, tmp_path, content):
    folder = tmp_path / "damaged"
    extract(folders / "native", folder, "vision")
    (folder / "vision.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"vision\.json"):
        vision_part(folder)


def test_an_extracted_folder_has_no_format(folders):
    with pytest.raises(CheckpointError, match="format is 'native'"):
        vision_part(folders / "extracted", format="native")
    with pytest.raises(CheckpointError, match="max_positions is 64"):
        vision_part(folders / "extracted", max_positions=64)


def test_another_format_than_the_folder_has(folders):
    with pytest.raises(CheckpointError, match="does not look like the format native"):
        vision_part(folders / "huggingface", format="native")
    with pytest.raises(CheckpointError, match="only read when asked for"):
        vision_part(folders / "meta")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scout", "is a shape, not weights"),
        ("nowhere", "neither a folder"),
        ("some/repository", r"llama4 extract some/repository@?\w* --part vision OUT"),
    ],
)
def test_what_is_no_folder(name, message, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(CheckpointError, match=message):
        vision_part(name)


def test_parts_that_only_their_component_knows(tmp_path):
    """Names and shapes of another encoder or adapter are its own; the rest is still compared."""
    vision = replace(SPEC.vision, encoder="other", adapter="another")
    spec = replace(SPEC, vision=vision)
    text = {n: t for n, t in weights_of(SPEC).items() if not n.startswith("vision.")}
    eyes = {
        "encoder.anything": torch.ones(3, dtype=torch.bfloat16),
        "adapter.at.all": torch.ones(2, dtype=torch.bfloat16),
        "projector.weight": torch.ones(48, 31, dtype=torch.bfloat16),
    }
    weights = text | {f"vision.{name}": tensor for name, tensor in eyes.items()}
    write_checkpoint(weights, spec, tmp_path / "native", "native")
    extract(tmp_path / "native", tmp_path / "extracted", "vision")
    convert(tmp_path / "native", tmp_path / "copy")
    for folder in ("native", "extracted", "copy"):
        found, width, tensors = vision_part(tmp_path / folder)
        assert (found, width) == (vision, 48)
        assert tensors.keys() == eyes.keys()
    weights["vision.nose.weight"] = torch.ones(2, dtype=torch.bfloat16)
    write_checkpoint(weights, spec, tmp_path / "nose", "native")
    with pytest.raises(CheckpointError, match=r"nose\.weight"):
        vision_part(tmp_path / "nose")


def test_inspect_says_what_it_cannot_count(tmp_path, capsys):
    vision = replace(SPEC.vision, encoder="other", adapter="another")
    weights = {n: t for n, t in weights_of(SPEC).items() if not n.startswith("vision.")}
    weights["vision.projector.weight"] = torch.ones(48, 31, dtype=torch.bfloat16)
    write_checkpoint(weights, replace(SPEC, vision=vision), tmp_path / "native", "native")
    assert main(["inspect", str(tmp_path / "native")]) == 0
    out = capsys.readouterr().out
    assert "encoder 'other', adapter 'another'" in out
    uncounted = "vision_encoder 'other', vision_adapter 'another', vision_projector"
    assert f"not counted, as only the component knows: {uncounted}" in out
    assert main(["inspect", str(tmp_path / "native"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["unknown"] == uncounted.split(", ")
    assert main(["show", "accounting", str(tmp_path / "native")]) == 0
    assert f"only the component knows: {uncounted}" in capsys.readouterr().out
