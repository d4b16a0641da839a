"""Meta's layout: the published table, round trips over any number of shards, what is refused."""

import io
import json
import logging
import os
import zipfile

import pytest
import torch

import llama4_core as l4
from llama4_core.checkpoints.convert import convert, opened
from llama4_core.checkpoints.formats import detect
from llama4_core.checkpoints.joined import gathered
from llama4_core.checkpoints.keys import native_shapes
from llama4_core.checkpoints.meta_keys import meta_rows
from llama4_core.checkpoints.torch_file import read_tensors
from llama4_core.errors import CheckpointError, Llama4Error
from llama4_core.specs.presets import maverick, scout
from llama4_core.tokenizers import load_tokenizer, write_ranks
from llama4_core.tokenizers.sample import sample_ranks

from .folders import content, make, mixture_spec, weights_of


@pytest.fixture(scope="module")
def native(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound") / "native"
    make(folder)
    return folder


def as_meta(native, folder, shards=2):
    convert(native, folder, "meta", shards=shards)
    return folder


def weights_in(folder):
    return {name: data for name, data in content(folder).items() if name != "spec.toml"}


def loaded(path):
    return torch.load(path, weights_only=True)


def resaved(path, change):
    """Rewrites a shard by torch.save, after ``change`` of its dict."""
    tensors = {name: tensor.clone() for name, tensor in loaded(path).items()}
    change(tensors)
    torch.save(tensors, path)


# Per-shard shapes of the released models in 8 shards; D 5120, 40 heads of 128, 8 kv heads.
PUBLISHED = {
    "tok_embeddings.weight": (25256, 5120),
    "output.weight": (25256, 5120),
    "layers.{}.attention.wqkv.weight": ((5 + 1 + 1) * 128, 5120),
    "layers.{}.attention.wo.weight": (5120, 640),
    "layers.{}.attention.wqkv.layer_norm_weight": (5120,),
    "layers.{}.feed_forward.norm.weight": (5120,),
    "layers.{}.feed_forward.experts.moe_w_in_eD_F": ("E", 5120, 1024),
    "layers.{}.feed_forward.experts.moe_w_swiglu_eD_F": ("E", 5120, 1024),
    "layers.{}.feed_forward.experts.moe_w_out_eF_D": ("E", 1024, 5120),
    "layers.{}.feed_forward.router_DE": (5120, "E"),
    "layers.{}.feed_forward.w_in_shared_FD.weight": (1024, 5120),
    "layers.{}.feed_forward.w_swiglu_FD.weight": (1024, 5120),
    "layers.{}.feed_forward.w_out_shared_DF.weight": (5120, 1024),
}


@pytest.mark.parametrize(("spec", "layer", "experts"), [(scout(), 0, 16), (maverick(), 1, 128)])
def test_the_released_models_have_the_published_shapes(spec, layer, experts):
    rows = {row.theirs: row for row in meta_rows(spec, 8)}
    for key, shape in PUBLISHED.items():
        sizes = [experts if size == "E" else size for size in shape]
        if len(sizes) == 3:
            sizes = [sizes[0] * sizes[1], sizes[2]]
        assert rows[key.format(layer)].shape == tuple(sizes), key
    here = f"layers.{layer}."
    assert {key for key in rows if key.startswith(here)} == {
        key.format(layer) for key in PUBLISHED if key.startswith("layers")
    }


def test_the_dense_layers_of_maverick():
    rows = {row.theirs: row.shape for row in meta_rows(maverick(), 8)}
    assert rows["layers.0.feed_forward.mlp.fc1_weight"] == (2 * 2048, 5120)
    assert rows["layers.0.feed_forward.mlp.fc2_weight"] == (5120, 2048)
    assert rows["layers.0.feed_forward.mlp.layer_norm_weight"] == (5120,)
    assert "layers.0.feed_forward.norm.weight" not in rows


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_every_shard_holds_what_the_table_says(native, tmp_path, shards):
    """The table once more, in plain torch: whole weights from the shards."""
    folder = as_meta(native, tmp_path / "meta", shards)
    files = [loaded(path) for path in sorted(folder.glob("*.pth"))]
    spec = mixture_spec()
    ours = weights_of(spec)
    seen = set()

    def parts(key):
        seen.add(key)
        return [file[key] for file in files]

    def equal(name, whole):
        assert torch.equal(ours[name], whole), name

    equal("embedding.weight", torch.cat(parts("tok_embeddings.weight")))
    equal("head.weight", torch.cat(parts("output.weight")))
    for shared in parts("norm.weight"):
        equal("norm.weight", shared)
    for index in range(4):
        here = f"layers.{index}."
        fused = [part.chunk(3) for part in parts(f"{here}attention.wqkv.weight")]
        for place, name in enumerate("qkv"):  # as many kv heads as heads: equal thirds
            equal(f"{here}attention.{name}_proj.weight", torch.cat([f[place] for f in fused]))
        equal(f"{here}attention.o_proj.weight", torch.cat(parts(f"{here}attention.wo.weight"), 1))
        for shared in parts(f"{here}attention.wqkv.layer_norm_weight"):
            equal(f"{here}attention_norm.weight", shared)
        here += "feed_forward"
        if index % 2 == 0:
            halves = [part.chunk(2) for part in parts(f"{here}.mlp.fc1_weight")]
            equal(f"{here}.gate_proj.weight", torch.cat([half[0] for half in halves]))
            equal(f"{here}.up_proj.weight", torch.cat([half[1] for half in halves]))
            equal(f"{here}.down_proj.weight", torch.cat(parts(f"{here}.mlp.fc2_weight"), 1))
            equal(f"{here}_norm.weight", parts(f"{here}.mlp.layer_norm_weight")[0])
            continue
        equal(f"{here}_norm.weight", parts(f"{here}.norm.weight")[-1])
        for shared in parts(f"{here}.router_DE"):
            equal(f"{here}.router.weight", shared.T)
        bank = f"{here}.experts."
        gate = torch.cat([p.view(5, 48, -1) for p in parts(f"{bank}moe_w_in_eD_F")], -1)
        up = torch.cat([p.view(5, 48, -1) for p in parts(f"{bank}moe_w_swiglu_eD_F")], -1)
        equal(f"{bank}gate_up_proj", torch.cat([gate, up], -1).transpose(1, 2))
        down = torch.cat([p.view(5, -1, 48) for p in parts(f"{bank}moe_w_out_eF_D")], 1)
        equal(f"{bank}down_proj", down.transpose(1, 2))
        shared = f"{here}.shared_expert."
        equal(f"{shared}gate_proj.weight", torch.cat(parts(f"{here}.w_in_shared_FD.weight")))
        equal(f"{shared}up_proj.weight", torch.cat(parts(f"{here}.w_swiglu_FD.weight")))
        equal(f"{shared}down_proj.weight", torch.cat(parts(f"{here}.w_out_shared_DF.weight"), 1))
    encoder, theirs = "vision.encoder.", "vision_embeddings.vision_encoder."
    equal(f"{encoder}patch_embedding.weight", torch.cat(parts(f"{theirs}conv1._linear.weight")))
    equal(f"{encoder}class_embedding", parts(f"{theirs}class_embedding")[-1])
    equal(f"{encoder}positional_embedding", parts(f"{theirs}positional_embedding_vlm")[-1])
    for end in ("pre", "post"):
        for kind in ("weight", "bias"):
            equal(f"{encoder}norm_{end}.{kind}", parts(f"{theirs}ln_{end}.{kind}")[-1])
    for index in range(2):
        here, there = f"{encoder}layers.{index}.", f"{theirs}transformer.resblocks.{index}."
        for name in "qkv":
            for kind in ("weight", "bias"):
                equal(
                    f"{here}attention.{name}_proj.{kind}",
                    torch.cat(parts(f"{there}attn.w{name}.{kind}")),
                )
        equal(f"{here}attention.o_proj.weight", torch.cat(parts(f"{there}attn.wo.weight"), 1))
        equal(f"{here}attention.o_proj.bias", parts(f"{there}attn.wo.bias")[-1])
        for kind in ("weight", "bias"):
            equal(f"{here}feed_forward.fc1.{kind}", torch.cat(parts(f"{there}mlp.c_fc.{kind}")))
            equal(f"{here}attention_norm.{kind}", parts(f"{there}ln_1.{kind}")[-1])
            equal(f"{here}feed_forward_norm.{kind}", parts(f"{there}ln_2.{kind}")[-1])
        equal(f"{here}feed_forward.fc2.weight", torch.cat(parts(f"{there}mlp.c_proj.weight"), 1))
        equal(f"{here}feed_forward.fc2.bias", parts(f"{there}mlp.c_proj.bias")[-1])
    adapter, there = "vision.adapter.", "vision_embeddings.vision_adapter.mlp."
    equal(f"{adapter}fc1.weight", torch.cat(parts(f"{there}c_fc.weight")))
    equal(f"{adapter}fc2.weight", torch.cat(parts(f"{there}c_proj.weight"), 1))
    equal("vision.projector.weight", torch.cat(parts("vision_projection.weight")))
    assert all(file.keys() == seen for file in files)


@pytest.mark.parametrize("vision", [False, True])
@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_there_and_back_is_bit_exact(tmp_path, shards, vision):
    spec = make(tmp_path / "hf", "huggingface", vision=vision, dtype="float32")
    (tmp_path / "hf" / "LICENSE").write_text("terms")
    convert(tmp_path / "hf", tmp_path / "native")
    # params.json has no name either: it is that of the folder.
    convert(tmp_path / "native", tmp_path / "small", "meta", shards=shards)
    assert len(list((tmp_path / "small").glob("*.pth"))) == shards
    convert(tmp_path / "small", tmp_path / "native2", source_format="meta", shard_bytes=100_000)
    convert(tmp_path / "native2", tmp_path / "hf2", "huggingface")
    assert content(tmp_path / "hf") == content(tmp_path / "hf2")
    _, found, _ = opened(tmp_path / "small", "meta")
    assert (found.layers, found.vision, found.tokens) == (spec.layers, spec.vision, spec.tokens)


def test_one_number_of_shards_to_another(native, tmp_path):
    two = as_meta(native, tmp_path / "two", 2)
    convert(two, tmp_path / "three", "meta", source_format="meta", shards=3)
    assert content(tmp_path / "three") == content(as_meta(native, tmp_path / "three2", 3))


def test_the_files_are_what_torch_save_writes(native, tmp_path):
    folder = as_meta(native, tmp_path / "meta")
    for path in folder.glob("*.pth"):
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None  # every checksum is right
        ours = loaded(path)
        torch.save(ours, tmp_path / "again.pth")
        theirs = loaded(tmp_path / "again.pth")
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        # A file of torch.save is read as well as one of ours, with nothing in memory.
        mapped = read_tensors(tmp_path / "again.pth")
        assert all(torch.equal(ours[name], mapped[name]) for name in ours)
        assert len({tensor.untyped_storage().data_ptr() for tensor in mapped.values()}) == 1


def test_a_saved_model_is_loaded_on_request_only(tmp_path, build):
    model = build()
    l4.save(model, tmp_path / "meta", "meta")
    loaded_model = l4.load(tmp_path / "meta", format="meta")
    tokens = torch.arange(20)
    assert torch.equal(model.logits(tokens), loaded_model.logits(tokens))
    with pytest.raises(CheckpointError, match=r"pickle.*format='meta'.*--from meta"):
        l4.load(tmp_path / "meta")
    with pytest.raises(CheckpointError, match="--from meta"):
        convert(tmp_path / "meta", tmp_path / "out")


def test_a_folder_with_safetensors_too_is_read_without_asking(native, tmp_path):
    convert(native, tmp_path / "both")
    meta = as_meta(native, tmp_path / "meta")
    for path in meta.iterdir():
        (tmp_path / "both" / path.name).write_bytes(path.read_bytes())
    assert type(detect(tmp_path / "both")).__name__ == "NativeFormat"


def test_buffers_of_training_are_left_out_by_name(native, tmp_path, caplog):
    caplog.set_level(logging.INFO, "llama4_core")
    folder = as_meta(native, tmp_path / "meta")

    def change(tensors):
        tensors["rope.freqs"] = torch.zeros(3)
        tensors["layers.1.feed_forward.global_gate_stats_3E"] = torch.zeros(3, 5)
        tensors["layers.1.feed_forward.running_gate_stats_3E"] = torch.zeros(3, 5)
        tensors["layers.1.feed_forward.expert_activation_DE"] = torch.zeros(48, 5)
        tensors["layers.0.attention.wqkv._extra_state"] = io.BytesIO(b"state")
        tensors["layers.0.attention.wo._extra_state"] = torch.zeros(1)

    for path in folder.glob("*.pth"):
        resaved(path, change)
    convert(folder, tmp_path / "back", source_format="meta")
    assert weights_in(tmp_path / "back") == weights_in(native)
    assert "left out" in caplog.text


def test_other_keys_are_refused_by_name(native, tmp_path):
    folder = as_meta(native, tmp_path / "meta")
    for path in folder.glob("*.pth"):
        resaved(path, lambda t: t.update({"layers.0.attention.bias": torch.zeros(2)}))
    with pytest.raises(CheckpointError, match=r"layers\.0\.attention\.bias"):
        convert(folder, tmp_path / "out", source_format="meta")


def test_the_norms_are_read_under_either_name(native, tmp_path):
    folder = as_meta(native, tmp_path / "meta")

    def change(tensors):
        for index in range(4):
            here = f"layers.{index}."
            kind = "norm.weight" if index % 2 else "mlp.layer_norm_weight"
            tensors[f"{here}ffn_norm.weight"] = tensors.pop(f"{here}feed_forward.{kind}")
            tensors[f"{here}attention_norm.weight"] = tensors.pop(
                f"{here}attention.wqkv.layer_norm_weight"
            )

    for path in folder.glob("*.pth"):
        resaved(path, change)
    convert(folder, tmp_path / "back", source_format="meta")
    assert weights_in(tmp_path / "back") == weights_in(native)


def test_shards_that_disagree_are_said(native, tmp_path, caplog):
    folder = as_meta(native, tmp_path / "meta")
    resaved(folder / "consolidated.01.pth", lambda t: t["norm.weight"].add_(1))
    _, _, weights = opened(folder, "meta")
    assert "norm.weight differs between shards" in caplog.text
    assert torch.equal(gathered(weights["norm.weight"]), weights_of(mixture_spec())["norm.weight"])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_shard(native, tmp_path, number):
    folder = as_meta(native, tmp_path / "meta", 3)
    (folder / f"consolidated.{number:02d}.pth").unlink()
    with pytest.raises(CheckpointError):
        convert(folder, tmp_path / "out", source_format="meta")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shards", [0, 5, 7, 16, 48])
def test_a_number_of_shards_that_does_not_divide(native, tmp_path, shards):
    with pytest.raises(CheckpointError, match="shards"):
        as_meta(native, tmp_path / "meta", shards)
    assert not list(tmp_path.iterdir())


def test_shards_are_for_meta(native, tmp_path):
    with pytest.raises(CheckpointError, match="--shard-mib"):
        convert(native, tmp_path / "out", shards=2)


def test_the_tokenizer_goes_to_the_other_format_and_back(native, tmp_path):
    first = tmp_path / "first"
    convert(native, first, "meta")
    write_ranks(sample_ranks(), first / "tokenizer.model")
    convert(first, tmp_path / "hf", "huggingface", source_format="meta")
    one, other = load_tokenizer(first), load_tokenizer(tmp_path / "hf", name="huggingface")
    assert one.encode("the and 123 é") == other.encode("the and 123 é")
    assert dict(one.specials) == dict(other.specials)
    (tmp_path / "hf" / "tokenizer.model").unlink()
    convert(tmp_path / "hf", tmp_path / "back", "meta")
    model = tmp_path / "back" / "tokenizer.model"
    assert model.read_bytes() == (first / "tokenizer.model").read_bytes()


def test_code_in_a_shard_is_never_run(native, tmp_path):
    class Code:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "run"),))

    folder = as_meta(native, tmp_path / "meta")
    torch.save({"a": Code()}, folder / "consolidated.01.pth")
    with pytest.raises(CheckpointError, match="never run"):
        convert(folder, tmp_path / "out", source_format="meta")
    assert not (tmp_path / "run").exists()


def test_the_longest_context_can_be_said(native, tmp_path):
    folder = as_meta(native, tmp_path / "meta")
    params = json.loads((folder / "params.json").read_text())
    del params["max_seq_len"]
    (folder / "params.json").write_text(json.dumps(params))
    with pytest.raises(Llama4Error, match="max_positions"):
        opened(folder, "meta")
    assert opened(folder, "meta", 64)[1].max_positions == 64
    with pytest.raises(CheckpointError, match="max_positions"):
        opened(native, None, 64)


@pytest.mark.parametrize(
    "text", ["[]", '{"boss": 1}', '{"bos": -1}', '{"bos": 72}', '{"eos": 2}', '{"eos": [true]}']
)
def test_token_ids_are_checked(native, tmp_path, text):
    folder = as_meta(native, tmp_path / "meta")
    (folder / "token_ids.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"token_ids\.json"):
        opened(folder, "meta")


def test_the_published_vocabulary_has_the_published_ids(tmp_path):
    folder = tmp_path / "meta"
    folder.mkdir()
    from llama4_core.checkpoints.meta import MetaFormat
    from llama4_core.specs.meta import meta_from_spec

    (folder / "params.json").write_text(json.dumps(meta_from_spec(scout())))
    assert MetaFormat().read_spec(folder).tokens == scout().tokens
    text = json.dumps(meta_from_spec(scout().text_only()))
    (folder / "params.json").write_text(text)
    assert MetaFormat().read_spec(folder).tokens == scout().text_only().tokens


def test_every_weight_is_named_once():
    for spec in (scout(), maverick(), mixture_spec()):
        rows = meta_rows(spec, 8)
        assert len({row.theirs for row in rows}) == len(rows)
        covered = {}
        for row in rows:
            for source in row.sources:
                covered.setdefault(source.ours, []).append((source.start, source.length))
        shapes = native_shapes(spec)
        assert covered.keys() == shapes.keys()
        for name, ranges in covered.items():
            assert sum(length for _, length in ranges) in shapes[name]
