"""What is saved is loaded: equal weights, equal logits, nothing copied, nothing half-written."""

import json
import logging
import shutil

import pytest
import torch

import llama4_core as l4
from llama4_core.checkpoints.convert import convert
from llama4_core.checkpoints.formats import detect
from llama4_core.checkpoints.safetensors_file import read_header
from llama4_core.errors import CheckpointError, SpecError, TokenizerError

TOKENS = torch.arange(20)


def shards(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.glob("*.safetensors"))}


@pytest.mark.parametrize("form", ["native", "huggingface"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_bytes", [4 * 1024**3, 10_000, 1])
def test_what_is_saved_is_loaded(tmp_path, build, form, tied, shard_bytes):
    model = build(tied=tied)
    l4.save(model, tmp_path / "saved", form, shard_bytes=shard_bytes)
    loaded = l4.load(tmp_path / "saved")
    assert loaded.spec == model.spec or form == "huggingface"
    assert loaded.spec.layers == model.spec.layers
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(model.logits(TOKENS), loaded.logits(TOKENS))
    headers = [read_header(path) for path in (tmp_path / "saved").glob("*.safetensors")]
    assert (len(headers) > 1) == (shard_bytes < 10**6)
    for header in headers:
        sizes = [entry.end - entry.begin for entry in header.entries.values()]
        assert sizes
        assert sum(sizes) <= shard_bytes or len(sizes) == 1


def test_native_to_huggingface_to_native_is_bit_exact(tmp_path, model):
    l4.save(model, tmp_path / "one")
    convert(tmp_path / "one", tmp_path / "two", "huggingface")
    convert(tmp_path / "two", tmp_path / "three")
    assert shards(tmp_path / "one") == shards(tmp_path / "three")


def test_loading_maps_and_copies_nothing(tmp_path, model):
    l4.save(model, tmp_path / "saved")
    loaded = l4.load(tmp_path / "saved")
    storages = {w.untyped_storage().data_ptr() for w in loaded.parameters()}
    assert len(storages) == 1  # one file, one mapping, every weight a view of it
    assert all(w.data_ptr() % 64 == 0 for w in loaded.parameters())
    assert all(w.requires_grad for w in loaded.parameters())


def test_training_a_mapped_model_leaves_the_file_alone(tmp_path, model):
    l4.save(model, tmp_path / "saved")
    before = shards(tmp_path / "saved")
    loaded = l4.load(tmp_path / "saved")
    loaded.logits(TOKENS).logsumexp(-1).sum().backward()
    torch.optim.SGD(loaded.parameters(), lr=0.1).step()
    assert not torch.equal(loaded.embedding.weight, model.embedding.weight)
    assert shards(tmp_path / "saved") == before


def test_dtype_is_kept_or_converted(tmp_path, model):
    l4.save(model, tmp_path / "saved")
    assert l4.load(tmp_path / "saved").dtype == torch.float32
    half = l4.load(tmp_path / "saved", dtype="bfloat16")
    assert {w.dtype for w in half.parameters()} == {torch.bfloat16}
    assert half.spec.dtype == "bfloat16"
    assert torch.equal(half.embedding.weight, model.embedding.weight.bfloat16())
    cast = l4.load(tmp_path / "saved").to(torch.float16)
    l4.save(cast, tmp_path / "cast")
    assert detect(tmp_path / "cast").read_spec(tmp_path / "cast").dtype == "float16"
    l4.save(half, tmp_path / "half")
    assert l4.load(tmp_path / "half").dtype == torch.bfloat16


def test_the_sink_survives_the_native_format_and_is_refused_by_the_other(tmp_path, build, model):
    from dataclasses import replace

    layers = tuple(
        replace(layer, attention=replace(layer.attention, variant="capped-sink", sink=True,
                                         rope=model.spec.layers[0].attention.rope, chunk=None,
                                         temperature=None, soft_cap=20.0))
        for layer in model.spec.layers
    )  # fmt: skip
    own = build(layers=layers)
    with torch.no_grad():
        own.layers[1].attention.variant.sink.fill_(0.5)
    l4.save(own, tmp_path / "native")
    loaded = l4.load(tmp_path / "native")
    assert torch.equal(own.logits(TOKENS), loaded.logits(TOKENS))
    with pytest.raises((CheckpointError, SpecError)):
        l4.save(own, tmp_path / "foreign", "huggingface")
    assert not (tmp_path / "foreign").exists()


def test_another_mixer_survives_the_native_format(tmp_path, build, model):
    from dataclasses import replace

    first, *rest = model.spec.layers
    plain = replace(
        first.attention, rope=None, chunk=None, qk_norm=False, kv_heads=4, mixer="gated-linear"
    )
    mixed = replace(first, attention=plain)
    own = build(layers=(mixed, *rest))
    l4.save(own, tmp_path / "native")
    assert torch.equal(own.logits(TOKENS), l4.load(tmp_path / "native").logits(TOKENS))


def test_licences_and_settings_go_along(tmp_path, model):
    l4.save(model, tmp_path / "a")
    names = ("LICENSE.txt", "USE_POLICY.md", "NOTICE", "generation_config.json")
    for name in names:
        (tmp_path / "a" / name).write_text("{}")
    (tmp_path / "a" / "holiday.txt").write_text("stays")
    loaded = l4.load(tmp_path / "a")
    l4.save(loaded, tmp_path / "b", "huggingface")
    convert(tmp_path / "b", tmp_path / "c")
    for folder in ("b", "c"):
        assert all((tmp_path / folder / name).is_file() for name in names)
        assert not (tmp_path / folder / "holiday.txt").exists()


def test_a_folder_in_use_is_never_overwritten(tmp_path, model):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "precious").write_text("here")
    with pytest.raises(CheckpointError, match="not an empty folder"):
        l4.save(model, tmp_path / "used")
    assert [p.name for p in (tmp_path / "used").iterdir()] == ["precious"]
    (tmp_path / "empty").mkdir()
    l4.save(model, tmp_path / "empty")
    assert l4.load(tmp_path / "empty").spec == model.spec


def test_an_interrupted_save_leaves_nothing(tmp_path, model):
    def stop(done, total):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        l4.save(model, tmp_path / "saved", shard_bytes=10_000, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_the_total(tmp_path, model):
    seen = []
    l4.save(model, tmp_path / "saved", shard_bytes=10_000, progress=lambda *now: seen.append(now))
    total = sum(w.nbytes for w in model.parameters())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path, model, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(CheckpointError, match="GB free"):
        l4.save(model, tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_weights_is_not_saved(tmp_path, model):
    with pytest.raises(CheckpointError, match="meta device"):
        l4.save(l4.assemble(model.spec), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_random_weights_are_drawn_by_seed_for_a_folder_or_a_name(tmp_path, model):
    l4.save(model, tmp_path / "saved")
    one, same, other = (l4.load(tmp_path / "saved", random=seed) for seed in (1, 1, 2))
    assert torch.equal(one.embedding.weight, same.embedding.weight)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("scout", {}, "scout is a shape, not weights.*--random SEED"),
        ("scuot", {}, "neither a folder, a known model nor a repository.*did you mean 'scout'"),
        ("some-org/some-model", {}, "HF_HUB_OFFLINE forbids the network"),
        ("scout", {"quantize": "int4"}, "quantize is 'int4', but no quantiser"),
        ("scout", {"adapters": ["lora"]}, r"adapters are \['lora'\]"),
        ("scout", {"dtype": "bf16"}, "dtype is 'bf16'; expected 'auto' or one of float32"),
        (__file__, {}, "is a file; expected the folder"),
    ],
)
def test_what_cannot_be_loaded_says_what_to_do(name, settings, words, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match=words):
        l4.load(name, **settings)


class Extended(torch.nn.Module):
    """A feed-forward with a weight and a buffer that no checkpoint knows."""

    def __init__(self, spec, width, parts):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.empty(width))
        self.register_buffer("steps", torch.empty(1), persistent=False)
        self.reset_parameters()

    def reset_parameters(self):
        torch.nn.init.constant_(self.scale, 0.5)
        torch.nn.init.constant_(self.steps, 3.0)

    def forward(self, x, info):
        return x * self.scale * self.steps, None


class Mute(Extended):
    """The same without a word about its values."""

    reset_parameters = None

    def __init__(self, spec, width, parts):
        torch.nn.Module.__init__(self)
        self.scale = torch.nn.Parameter(torch.empty(width))


def test_what_is_saved_with_an_override_is_loaded_with_it(tmp_path, model):
    overrides = {"layers.1.feed_forward": Extended}
    l4.save(model, tmp_path / "saved")
    own = l4.load(tmp_path / "saved", overrides=overrides)
    with torch.no_grad():
        own.layers[1].feed_forward.scale.fill_(0.25)
    l4.save(own, tmp_path / "own")
    assert torch.equal(
        own.logits(TOKENS), l4.load(tmp_path / "own", overrides=overrides).logits(TOKENS)
    )
    with pytest.raises(CheckpointError, match=r"1 not part of this model: layers.1.feed_forward.s"):
        l4.load(tmp_path / "own")
    with pytest.raises(CheckpointError, match=r"layers.1.feed_forward.scale"):
        l4.save(own, tmp_path / "foreign", "huggingface")


class Careless(Mute):
    """It fills nothing."""

    def reset_parameters(self):
        pass


class Counting(torch.nn.Linear):
    """A projection with a buffer that is never saved."""

    def __init__(self, *sizes, **settings):
        super().__init__(*sizes, **settings)
        self.register_buffer("calls", torch.zeros(1), persistent=False)

    def reset_parameters(self):
        super().reset_parameters()
        if "calls" in self._buffers:
            self.calls.zero_()


class Counted(torch.nn.Module):
    """The dense feed-forward's names, one of them with a buffer beside the stored weight."""

    def __init__(self, spec, width, parts):
        super().__init__()
        self.gate_proj = torch.nn.Linear(width, spec.width, bias=False)
        self.up_proj = torch.nn.Linear(width, spec.width, bias=False)
        self.down_proj = Counting(spec.width, width, bias=False)

    def forward(self, x, info):
        hidden = torch.nn.functional.silu(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(hidden) + self.down_proj.calls, None


def test_a_stored_weight_survives_the_filling_of_its_neighbours(tmp_path, model):
    l4.save(model, tmp_path / "saved")
    loaded = l4.load(tmp_path / "saved", overrides={"layers.*.feed_forward": Counted})
    assert torch.equal(loaded.logits(TOKENS), model.logits(TOKENS))


def test_a_new_part_fills_its_own_weights(tmp_path, model, caplog):
    caplog.set_level(logging.INFO, "llama4_core")
    l4.save(model, tmp_path / "saved")
    loaded = l4.load(tmp_path / "saved", overrides={"layers.1.feed_forward": Extended})
    part = loaded.layers[1].feed_forward
    assert torch.equal(part.scale, torch.full((32,), 0.5))
    assert torch.equal(part.steps, torch.tensor([3.0]))
    assert torch.equal(loaded.embedding.weight, model.embedding.weight)
    assert loaded.logits(TOKENS).isfinite().all()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("3 weights are not used" in text for text in warnings)
    assert any("layers.1.feed_forward: the checkpoint holds no" in text for text in warnings)
    with pytest.raises(CheckpointError, match=r"layers.1.feed_forward: Mute has 'scale'"):
        l4.load(tmp_path / "saved", overrides={"layers.1.feed_forward": Mute})
    with pytest.raises(CheckpointError, match=r"Careless.reset_parameters.* leaves some of scale"):
        l4.load(tmp_path / "saved", overrides={"layers.1.feed_forward": Careless})


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tmp_path, model):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    l4.save(model, tmp_path / "saved")
    tokenizer.save(str(tmp_path / "saved" / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=r"ids up to 255.* 40 entries"):
        l4.load(tmp_path / "saved")


def test_a_tied_head_stored_again_has_to_repeat_the_embedding(tmp_path, build):
    from safetensors.torch import load_file, save_file

    l4.save(build(tied=True), tmp_path / "saved", "huggingface")
    (file,) = (tmp_path / "saved").glob("*.safetensors")
    tensors = load_file(file)
    file.unlink()
    (tmp_path / "saved" / "model.safetensors.index.json").unlink()
    single = tmp_path / "saved" / "model.safetensors"
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, single, {"format": "pt"})
    assert l4.load(tmp_path / "saved").head is None
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, single, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lm_head.weight differs from the embedding"):
        l4.load(tmp_path / "saved")


def test_json_that_transformers_needs_is_there(tmp_path, model):
    l4.save(model, tmp_path / "saved", "huggingface")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["Llama4ForCausalLM"]
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(w.nbytes for w in model.parameters())
