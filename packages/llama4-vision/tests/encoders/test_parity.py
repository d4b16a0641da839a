"""Both encoders beside transformers', on tiny random weights in float32."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.checkpoints.keys import vision_rows
from llama4_core.errors import ModalityError, SpecError
from llama4_core.specs.model import VisionSpec
from llama4_vision import VisionEncoder
from llama4_vision.testing.laws import fill

transformers = pytest.importorskip("transformers")

# As the issue asks of features, relative to the largest.
TOLERANCE = 5e-6


def close(got, want):
    assert float((got - want).abs().max()) <= TOLERANCE * max(1.0, float(want.abs().max()))


def spec_of(**changes):
    numbers = {
        "width": 16, "layers": 2, "heads": 2, "mlp_width": 24, "image_size": 8, "patch_size": 2,
        "channels": 3, "shuffle_ratio": 0.5, "adapter_width": 12, "adapter_output": 12,
        "theta": 1e4, "norm_eps": 1e-5,
    }  # fmt: skip
    return VisionSpec(**{**numbers, **changes})


@given(
    heads=st.sampled_from((1, 2, 4)),
    layers=st.integers(1, 3),
    grid=st.sampled_from((2, 4)),
    patch=st.integers(1, 3),
    tiles=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_llama4(heads, layers, grid, patch, tiles, seed):
    """Features after the adapter, and the output of every block, equal Llama4VisionModel's."""
    # transformers ties the width of the feed-forward to the adapter: W over the ratio squared.
    spec = spec_of(
        heads=heads, layers=layers, image_size=grid * patch, patch_size=patch, mlp_width=64
    )
    config = transformers.Llama4VisionConfig(
        hidden_size=spec.width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=spec.mlp_width,
        image_size=spec.image_size,
        patch_size=patch,
        pixel_shuffle_ratio=0.5,
        projector_input_dim=12,
        projector_output_dim=12,
        vision_output_dim=12,
    )
    theirs = transformers.Llama4VisionModel(config).eval()
    fill(theirs, seed)
    stored = theirs.state_dict()
    ours = VisionEncoder(spec)
    ours.load_state_dict(
        {
            row.ours: stored[row.theirs.removeprefix("vision_model.")]
            for row in vision_rows(spec, 1)
            if row.theirs.startswith("vision_model.")
        }
    )
    pixels = torch.randn(tiles, 3, *ours.encoder.shape[1:])
    with torch.no_grad():
        want = theirs(pixels, output_hidden_states=True)
        got = ours(pixels, out_layers=range(layers))
    close(got.features, want.last_hidden_state)
    # Theirs are the input of the first block and the output of each, class token included.
    for index, hidden in enumerate(got.hidden):
        close(hidden, want.hidden_states[index + 1][:, :-1])


@given(
    heads=st.sampled_from((1, 2, 8)),
    layers=st.integers(1, 3),
    grid=st.sampled_from((2, 4)),
    patch=st.integers(1, 3),
    tiles=st.integers(1, 4),
    eps=st.sampled_from((1e-6, 1e-2)),
    seed=st.integers(0, 99),
)
def test_siglip(heads, layers, grid, patch, tiles, eps, seed):
    """Features, and the output of every block, equal SiglipVisionModel's."""
    spec = spec_of(
        heads=heads, layers=layers, image_size=grid * patch, patch_size=patch, norm_eps=eps,
        encoder="siglip",
    )  # fmt: skip
    config = transformers.SiglipVisionConfig(
        hidden_size=spec.width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=spec.mlp_width,
        image_size=spec.image_size,
        patch_size=patch,
        layer_norm_eps=eps,
        vision_use_head=False,
    )
    theirs = transformers.SiglipVisionModel(config).eval()
    fill(theirs, seed)
    ours = VisionEncoder(spec)
    ours.encoder.load_state_dict(dict(renamed(theirs.state_dict())))
    pixels = torch.randn(tiles, 3, spec.image_size, spec.image_size)
    with torch.no_grad():
        want = theirs(pixels, output_hidden_states=True)
        got = ours.encoder(pixels, out_layers=range(layers))
    close(got.features, want.last_hidden_state)
    for index, hidden in enumerate(got.hidden):
        close(hidden, want.hidden_states[index + 1])


def renamed(stored):
    """SigLIP's names -> ours."""
    for name, tensor in stored.items():
        name = name.removeprefix("vision_model.")
        for theirs, ours in (
            ("embeddings.patch_embedding", "patch_embedding"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("encoder.layers", "layers"),
            ("self_attn.out_proj", "attention.o_proj"),
            ("self_attn", "attention"),
            ("layer_norm1", "attention_norm"),
            ("layer_norm2", "feed_forward_norm"),
            ("mlp", "feed_forward"),
            ("post_layernorm", "norm_post"),
        ):
            name = name.replace(theirs, ours)
        yield name, tensor.flatten(1) if name == "patch_embedding.weight" else tensor


@pytest.mark.parametrize(
    ("encoder", "heads", "said"),
    [
        ("llama4", 3, "3 times a multiple of 4"),
        ("llama4", 8, "8 times a multiple of 4"),
        ("siglip", 3, "3 times a multiple of 1"),
    ],
)
def test_heads_that_do_not_fit_are_an_error(encoder, heads, said):
    with pytest.raises(SpecError, match=said):
        VisionEncoder(spec_of(heads=heads, encoder=encoder))


@pytest.mark.parametrize(
    ("pixels", "dtype", "said"),
    [
        ((2, 3, 8, 6), torch.float32, r"shape \[2, 3, 8, 6\]; expected \[B, 3, 8, 8\]"),
        ((0, 3, 8, 8), torch.float32, "got no tiles"),
        ((1, 3, 8, 8), torch.uint8, "torch.uint8; expected floating-point"),
        ((1, 3, 8, 8), torch.bfloat16, "weights torch.float32"),
    ],
)
@pytest.mark.parametrize("encoder", ["llama4", "siglip"])
def test_errors_say_what_is_wrong(encoder, pixels, dtype, said):
    part = VisionEncoder(spec_of(encoder=encoder)).encoder
    with pytest.raises(ModalityError, match=said):
        part(torch.zeros(pixels, dtype=dtype))
