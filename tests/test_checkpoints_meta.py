"""What transformers wrote goes to Meta's layout and back; a shrunk model loads and generates."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Llama4ForCausalLM, Llama4TextConfig

import llama4_core as l4
from llama4_core.checkpoints.convert import convert
from llama4_core.checkpoints.shards import map_folder
from llama4_core.checkpoints.shrink import shrink
from llama4_core.errors import CheckpointError, Llama4Error

TINY = Path(__file__).parent / "data" / "tiny-hf"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A small mixture of transformers', 24 of everything that shards cut."""
    config = Llama4TextConfig(
        vocab_size=72, hidden_size=48, num_hidden_layers=4, num_attention_heads=24,
        num_key_value_heads=24, head_dim=4, num_local_experts=3, intermediate_size=48,
        intermediate_size_mlp=96, interleave_moe_layer_step=2, attention_chunk_size=8,
        pad_token_id=0, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("foreign") / "hf"
    Llama4ForCausalLM(config).bfloat16().save_pretrained(folder, max_shard_size="60KB")
    return folder


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
def test_there_and_back_is_bit_exact(foreign, tmp_path, shards):
    convert(foreign, tmp_path / "native")
    convert(tmp_path / "native", tmp_path / "meta", "meta", shards=shards)
    convert(tmp_path / "meta", tmp_path / "back", source_format="meta")
    convert(tmp_path / "back", tmp_path / "hf", "huggingface")
    one, other = map_folder(foreign), map_folder(tmp_path / "hf")
    assert one.keys() == other.keys()
    assert all(one[key].dtype == other[key].dtype for key in one)
    assert all(torch.equal(one[key], other[key]) for key in one)
    tokens = torch.arange(30)
    expected = l4.load(tmp_path / "native").logits(tokens)
    assert torch.equal(l4.load(tmp_path / "meta", format="meta").logits(tokens), expected)


def test_the_longest_context_can_be_said(foreign, tmp_path):
    convert(foreign, tmp_path / "meta", "meta")
    params = json.loads((tmp_path / "meta" / "params.json").read_text())
    del params["max_seq_len"]
    (tmp_path / "meta" / "params.json").write_text(json.dumps(params))
    with pytest.raises(Llama4Error, match="max_positions"):
        l4.load(tmp_path / "meta", format="meta")
    assert l4.load(tmp_path / "meta", format="meta", max_positions=64).spec.max_positions == 64
    with pytest.raises(CheckpointError, match="max_positions"):
        l4.load(foreign, max_positions=64)


def test_a_shrunk_model_loads_and_generates(tmp_path):
    shrink(TINY, tmp_path / "small", layers=[0, 1, 3], experts=[1, 2])
    model = l4.load(tmp_path / "small")
    assert model.layers[1].feed_forward.router.weight.shape[0] == 2
    assert len(model.layers) == 3
    assert len(model.generate("The river", max_tokens=5).tokens) == 5
    whole = l4.load(TINY)
    assert torch.equal(
        model.layers[2].feed_forward.experts.down_proj,
        whole.layers[3].feed_forward.experts.down_proj[1:3],
    )
