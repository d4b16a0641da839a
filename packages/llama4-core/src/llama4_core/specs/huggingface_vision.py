"""The ``vision_config`` of a Hugging Face configuration."""

from __future__ import annotations

from llama4_core.specs import huggingface_keys as table
from llama4_core.specs.foreign import ForeignKeys
from llama4_core.specs.huggingface_common import read_common
from llama4_core.specs.model import VisionSpec


def read_vision(values: object, where: str) -> VisionSpec:
    """The encoder, the adapter and the projection that a vision_config describes.

    Raises:
        SpecError: a key is missing, unknown, or not possible.
    """
    keys = ForeignKeys(values, where, table.VISION_KEYS)
    common = read_common(keys, "llama4_vision_model")
    kept = common.carried
    kept |= keys.neutral(table.NEUTRAL_VISION, "nothing else exists in Llama 4")
    # transformers' encoder always uses 1e-5, whatever this key says.
    eps = keys.number("norm_eps", 1e-5)
    if eps != 1e-5:
        keys.fail("norm_eps", eps, "1e-05, which the encoder uses whatever is written here")
    theta = _vision_theta(keys)
    width, ratio = keys.count("hidden_size"), keys.number("pixel_shuffle_ratio")
    mlp, adapter = keys.count("intermediate_size"), keys.count("projector_input_dim")
    output, features = keys.count("projector_output_dim"), keys.count("vision_output_dim")
    if mlp != round(width / ratio**2):
        keys.fail(
            "intermediate_size",
            mlp,
            f"hidden_size / pixel_shuffle_ratio^2 = {round(width / ratio**2)}: it is also the "
            "input of the adapter",
        )
    if output != adapter:
        keys.fail("projector_output_dim", output, f"projector_input_dim, {adapter}")
    if features != output:
        keys.fail("vision_output_dim", features, f"projector_output_dim, {output}")
    spec = VisionSpec(
        width=width,
        layers=keys.count("num_hidden_layers"),
        heads=keys.count("num_attention_heads"),
        mlp_width=mlp,
        image_size=_square(keys, "image_size"),
        patch_size=_square(keys, "patch_size"),
        channels=keys.count("num_channels"),
        shuffle_ratio=ratio,
        adapter_width=adapter,
        adapter_output=output,
        theta=theta,
        norm_eps=eps,
        extra=kept,
    )
    keys.finish()
    return spec


def _vision_theta(keys: ForeignKeys) -> float:
    """10000 where absent: no Llama 4 has another, and the first published files leave it out."""
    parameters = keys.take("rope_parameters", None) or keys.take("rope_scaling", None) or {}
    inner = ForeignKeys(parameters, f"{keys.where}, rope_parameters", ("rope_theta", "rope_type"))
    inner.neutral({"rope_type": "default", "type": "default"}, "the encoder has no scaling")
    outer_theta, theta = keys.number("rope_theta", None), inner.number("rope_theta", None)
    inner.finish()
    if theta is not None and outer_theta is not None and theta != outer_theta:
        keys.fail("rope_theta", outer_theta, f"{theta}, as in rope_parameters")
    return float(theta or outer_theta or 10_000.0)


def _square(keys: ForeignKeys, key: str) -> int:
    value = keys.take(key)
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        keys.fail(key, value, "one whole number, or two equal ones: tiles are square")
    return int(value)
