"""Folders that transformers wrote come back to it byte for byte, with the logits that it gets."""

import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Llama4Config,
    Llama4ForCausalLM,
    Llama4ForConditionalGeneration,
)

import llama4_core as l4
from llama4_core.checkpoints.convert import convert
from llama4_core.checkpoints.formats import detect
from llama4_core.checkpoints.keys import VISION
from llama4_core.checkpoints.shards import map_folder

BLIND = {"vision": "none"}
TINY = Path(__file__).parent / "data" / "tiny-hf"


@pytest.fixture(scope="session")
def with_vision(tmp_path_factory):
    """A small Llama4ForConditionalGeneration as transformers saves it."""
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_local_experts": 2,
        "intermediate_size": 24,
        "intermediate_size_mlp": 40,
        "interleave_moe_layer_step": 2,
        "attention_chunk_size": 8,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "image_size": 28,
        "patch_size": 14,
        "projector_input_dim": 24,
        "projector_output_dim": 24,
        "vision_output_dim": 24,
    }
    config = Llama4Config(text_config=text, vision_config=vision, image_token_index=5,
                          boi_token_index=6, eoi_token_index=7)  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("foreign") / "vision"
    Llama4ForConditionalGeneration(config).save_pretrained(folder, max_shard_size="60KB")
    return folder


def raw(folder):
    """Key -> dtype, shape and bytes, whatever the shards."""
    return {
        key: (t.dtype, tuple(t.shape), t.reshape(-1).view(torch.uint8).numpy().tobytes())
        for key, t in map_folder(folder).items()
    }


def config_of(folder):
    content = json.loads((folder / "config.json").read_text())
    content.pop("_name_or_path", None)
    return content


def loaded(folder, through):
    """A blind model keeps the weights of its eyes aside; a text model has none to leave out."""
    blind = through == "blind model" and detect(folder).read_spec(folder).vision is not None
    return l4.load(folder, overrides=BLIND if blind else {})


@pytest.fixture(params=["text", "vision"])
def foreign(request, with_vision):
    return TINY if request.param == "text" else with_vision


@pytest.mark.parametrize("through", ["model", "blind model", "convert"])
def test_huggingface_to_ours_to_huggingface_is_bit_exact(tmp_path, foreign, through):
    if through != "convert":
        l4.save(loaded(foreign, through), tmp_path / "back", "huggingface")
    else:
        convert(foreign, tmp_path / "native")
        convert(tmp_path / "native", tmp_path / "back", "huggingface")
    assert raw(foreign) == raw(tmp_path / "back")
    form = detect(foreign)
    assert form.read_spec(foreign).layers == form.read_spec(tmp_path / "back").layers


@pytest.mark.parametrize("through", ["model", "blind model", "convert"])
def test_native_to_huggingface_to_native_is_bit_exact(tmp_path, foreign, through):
    convert(foreign, tmp_path / "one")
    if through != "convert":
        l4.save(loaded(tmp_path / "one", through), tmp_path / "two", "huggingface")
        l4.save(loaded(tmp_path / "two", through), tmp_path / "three")
    else:
        convert(tmp_path / "one", tmp_path / "two", "huggingface")
        convert(tmp_path / "two", tmp_path / "three")
    assert raw(tmp_path / "one") == raw(tmp_path / "three")
    spec = detect(tmp_path / "one").read_spec(tmp_path / "one")
    again = detect(tmp_path / "three").read_spec(tmp_path / "three")
    assert again == spec


def test_transformers_loads_what_we_write_without_a_murmur(tmp_path, foreign):
    l4.save(l4.load(foreign), tmp_path / "back", "huggingface", shard_bytes=100_000)
    auto = AutoModelForCausalLM if foreign is TINY else Llama4ForConditionalGeneration
    theirs, report = auto.from_pretrained(tmp_path / "back", output_loading_info=True)
    original = auto.from_pretrained(foreign)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    tokens = torch.arange(20, 60)[None]
    with torch.no_grad():
        assert torch.equal(theirs(tokens).logits, original(tokens).logits)


def test_the_same_logits_in_both_formats_as_transformers_gets(tmp_path, foreign):
    convert(foreign, tmp_path / "native")
    auto = AutoModelForCausalLM if foreign is TINY else Llama4ForConditionalGeneration
    tokens = torch.arange(20, 60)[None]
    with torch.no_grad():
        theirs = auto.from_pretrained(foreign, dtype=torch.float32)(tokens).logits
        mapped = l4.load(foreign, dtype="float32").logits(tokens)
        native = l4.load(tmp_path / "native", dtype="float32").logits(tokens)
    assert torch.equal(mapped, native)
    # Float32 rounding through the network: 5e-6 of the largest logit, at least 2e-5.
    limit = max(2e-5, 5e-6 * theirs.abs().max().item())
    assert (mapped - theirs).abs().max().item() <= limit


def test_vision_weights_are_in_the_model(with_vision):
    model = l4.load(with_vision)
    stored = [key for key in map_folder(with_vision) if not key.startswith("language_model.")]
    assert not model.extra_weights
    assert sum(name.startswith(VISION) for name in model.state_dict()) == len(stored)
    assert model.vision.kinds == ("image", "video")


def test_vision_weights_that_nobody_wants_are_counted_and_kept(with_vision, caplog):
    caplog.set_level(logging.INFO, "llama4_core")
    model = l4.load(with_vision, overrides=BLIND)
    stored = [key for key in map_folder(with_vision) if not key.startswith("language_model.")]
    seeing = l4.load(with_vision).state_dict()
    assert sorted(model.extra_weights) == sorted(n for n in seeing if n.startswith(VISION))
    assert all(torch.equal(model.extra_weights[name], seeing[name]) for name in model.extra_weights)
    assert f"{len(stored)} vision tensors kept aside" in caplog.text
    assert not any(name.startswith(VISION) for name in model.state_dict())


@pytest.mark.parametrize("overrides", [{}, BLIND], ids=["seeing", "blind"])
def test_meta_to_native_to_meta_is_bit_exact(tmp_path, with_vision, overrides):
    convert(with_vision, tmp_path / "meta", "meta", shards=2)
    convert(tmp_path / "meta", tmp_path / "native", source_format="meta")
    convert(tmp_path / "native", tmp_path / "again", "meta", shards=2)
    for path in sorted((tmp_path / "meta").glob("*.pth")):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    for name in ("params.json", "token_ids.json"):
        one, other = (json.loads((tmp_path / x / name).read_text()) for x in ("meta", "again"))
        assert one == other
    # And through a model, which writes one shard.
    model = l4.load(tmp_path / "meta", format="meta", overrides=overrides)
    assert bool(model.extra_weights) == bool(overrides)
    l4.save(model, tmp_path / "one", "meta")
    convert(tmp_path / "native", tmp_path / "whole", "meta")
    for path in sorted((tmp_path / "whole").glob("*.pth")):
        assert path.read_bytes() == (tmp_path / "one" / path.name).read_bytes()


def test_eyes_see_the_same_from_every_format(tmp_path, with_vision):
    """Patches of 14 in tiles of 28: one feature per tile."""
    convert(with_vision, tmp_path / "native")
    convert(with_vision, tmp_path / "meta", "meta", shards=2)
    tokens = torch.tensor([9, 6, 5, 5, 7, 20])
    tiles = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        model = l4.load(with_vision, dtype="float32")
        expected, seen = model.logits(tokens, tiles), model.vision(tiles)
        assert not torch.equal(expected, model.logits(tokens))
        for name, form in (("native", None), ("meta", "meta")):
            model = l4.load(tmp_path / name, dtype="float32", format=form)
            # Experts lie the other way round in theirs, so their sums have another order: float32
            # rounding as above.
            limit = max(2e-5, 5e-6 * expected.abs().max().item())
            assert (model.logits(tokens, tiles) - expected).abs().max().item() <= limit, name
            assert torch.equal(model.vision(tiles), seen), name


def test_the_nested_prefix_is_read_too(tmp_path, with_vision):
    from safetensors.torch import save_file

    nested = tmp_path / "nested"
    nested.mkdir()
    (nested / "config.json").write_bytes((with_vision / "config.json").read_bytes())

    def renamed(key):
        if key == "language_model.lm_head.weight":
            return "lm_head.weight"
        return "model." + key.replace("language_model.model.", "language_model.")

    tensors = {renamed(key): t.clone() for key, t in map_folder(with_vision).items()}
    save_file(tensors, nested / "model.safetensors", {"format": "pt"})
    one, other = l4.load(with_vision), l4.load(nested)
    tokens = torch.arange(10)
    assert torch.equal(one.logits(tokens), other.logits(tokens))
    theirs, ours = one.state_dict(), other.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)


def test_experts_are_transposed_views_of_the_mapping_and_the_model_says_so(caplog):
    model = l4.load(TINY)
    bank = model.layers[1].feed_forward.experts
    assert bank.gate_up_proj.shape == (4, 96, 64)
    assert not bank.gate_up_proj.is_contiguous()
    assert "8 expert weights are used transposed" in caplog.text
    assert "llama4 convert" in caplog.text
    converted = l4.load(TINY, dtype="float32")
    assert converted.layers[1].feed_forward.experts.gate_up_proj.is_contiguous()


def test_the_tokenizer_comes_along(tmp_path):
    convert(TINY, tmp_path / "native")
    one, other = l4.load(TINY).tokenizer, l4.load(tmp_path / "native").tokenizer
    assert one.encode("The river runs") == other.encode("The river runs")
    assert one.bos == 496


def test_every_file_of_tiny_is_what_its_script_writes(tmp_path):
    """Bit for bit, with the pinned versions; so the checkpoint is no black box."""
    import importlib.util

    location = importlib.util.spec_from_file_location(
        "make_tiny_hf", TINY.parent / "make_tiny_hf.py"
    )
    script = importlib.util.module_from_spec(location)
    location.loader.exec_module(script)
    script.main(tmp_path / "tiny-hf")
    names = sorted(path.name for path in TINY.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "tiny-hf").iterdir())
    for name in names:
        assert (TINY / name).read_bytes() == (tmp_path / "tiny-hf" / name).read_bytes(), name


def test_a_swapped_router_and_back(caplog):
    tokens = torch.arange(30)
    plain = l4.load(TINY).logits(tokens)
    other = l4.load(TINY, overrides={"layers.*.feed_forward.router": "softmax-top-k"})
    assert not torch.equal(plain, other.logits(tokens))
    assert torch.equal(plain, l4.load(TINY).logits(tokens))


def test_a_balanced_router_keeps_the_weights_and_starts_without_a_bias():
    tokens = torch.arange(30)
    override = {"layers.*.feed_forward.router": "sigmoid-top-k-balanced"}
    balanced = l4.load(TINY, overrides=override)
    assert torch.equal(l4.load(TINY).logits(tokens), balanced.logits(tokens))
    assert not balanced.layers[1].feed_forward.router.bias.any()


def test_llama4forcausallm_is_what_the_script_saved():
    assert isinstance(AutoModelForCausalLM.from_pretrained(TINY), Llama4ForCausalLM)
