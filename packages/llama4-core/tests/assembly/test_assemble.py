"""Names, devices and dtypes that an assembly is asked for."""

from __future__ import annotations

import pytest
import torch

from llama4_core import assemble, load
from llama4_core.errors import ComponentError, SpecError
from llama4_core.show.masks import attention_alone
from llama4_core.specs.presets import preset

# Dense feed-forwards: this package alone assembles it.
SPEC = attention_alone(preset("nano"))


def test_the_text_model_of_a_name_can_be_assembled() -> None:
    model = assemble("guard-text")
    assert model.spec == preset("guard-text")
    with pytest.raises(ComponentError, match="unknown model 'gard': did you mean 'guard'"):
        assemble("gard-text")


@pytest.mark.parametrize("device", ["foo", "cpu:x", "cuda:99", ""])
def test_a_device_that_torch_cannot_use_is_one_line(device: str) -> None:
    for call in (lambda: assemble(SPEC, device=device), lambda: load("x", device=device)):
        with pytest.raises(SpecError, match=f"device is '{device}', which torch cannot") as caught:
            call()
        assert "\n" not in str(caught.value)


def test_an_unknown_dtype_is_named() -> None:
    with pytest.raises(SpecError, match="dtype is 'float7'; expected one of float32"):
        assemble(SPEC, dtype="float7")


def test_torchs_default_dtype_is_left_alone() -> None:
    before = torch.get_default_dtype()
    model = assemble(SPEC, dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(p.is_meta for p in model.parameters())
    assert torch.get_default_dtype() == before
