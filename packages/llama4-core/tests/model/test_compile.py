"""Blocks compile once for all layers of a kind: nothing inside a block knows its layer's number."""

from __future__ import annotations

import torch
from torch._dynamo.testing import CompileCounterWithBackend

import llama4_core as l4
from llama4_core.model.initialise import initialise
from llama4_core.specs import (
    AttentionSpec,
    DenseSpec,
    LayerSpec,
    ModelSpec,
    RopeSpec,
)


def test_one_graph_serves_equal_layers() -> None:
    """Five equal layers, one graph; the logits are those of eager mode."""
    attention = AttentionSpec("irope-chunked", 2, 1, 8, rope=RopeSpec(1e4), chunk=4, qk_norm=True)
    layers = (LayerSpec(attention, DenseSpec(24)),) * 5
    spec = ModelSpec("tiny", 32, 16, 1e-5, 64, False, layers, dtype="float32")
    model = l4.assemble(spec, device="cpu")
    initialise(model, 0)
    tokens = torch.arange(11)
    with torch.no_grad():
        expected = model.logits(tokens)
        counter = CompileCounterWithBackend("aot_eager")
        for index, layer in enumerate(model.layers):
            model.layers[index] = torch.compile(layer, backend=counter, fullgraph=True)
        found = model.logits(tokens)
    torch._dynamo.reset()
    assert counter.frame_count == 1
    # the same operations in the same order
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
