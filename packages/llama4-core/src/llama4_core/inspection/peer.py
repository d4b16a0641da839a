"""A model of transformers as the reference of a comparison. Imports transformers only when called.

Its parts carry other names, and its rotated q and k exist only as arguments of a function, which is
wrapped while the model runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llama4_core.errors import CheckpointError, ComponentError
from llama4_core.inspection.recording import Recording, as_rows

# Name in a block of transformers -> name of the slot, for modules that give the value as it is.
_MODULES = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.q_proj",
    "self_attn.k_proj": "attention.k_proj",
    "self_attn.v_proj": "attention.v_proj",
    "self_attn": "attention",
    "post_attention_layernorm": "feed_forward_norm",
    "feed_forward.shared_expert": "feed_forward.shared_expert",
    "feed_forward": "feed_forward",
    "": "",
}


def load_transformers(folder: str | Path, dtype: str = "auto") -> Any:
    """``Llama4ForCausalLM`` of a checkpoint folder, with the attention that is written out.

    Raises:
        ComponentError: transformers is not installed.
        CheckpointError: there is no such folder.
    """
    try:
        from transformers import Llama4ForCausalLM
    except ImportError as error:
        raise ComponentError(
            "the peer 'transformers' is not installed; pip install transformers"
        ) from error
    if not Path(folder).is_dir():
        raise CheckpointError(f"{folder}: is not a folder; expected a Hugging Face checkpoint")
    model = Llama4ForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def record_transformers(model: Any, tokens: Any, name: str = "transformers") -> Recording:
    """Runs a ``Llama4ForCausalLM`` with eager attention and keeps every slot.

    Raises:
        ComponentError: its attention is not the eager one, which alone can be looked into.
    """
    from transformers.models.llama4 import modeling_llama4 as theirs

    if model.config._attn_implementation != "eager":
        raise ComponentError(
            f"the peer runs attention {model.config._attn_implementation!r}; load it with "
            "attn_implementation='eager'"
        )
    rows = as_rows(tokens)
    values: dict[str, Tensor] = {}

    def keep(slot: str, value: Tensor) -> None:
        # cloned: the experts' sum is added into the shared expert's output in place
        values[slot] = value.detach().cpu().reshape(rows.numel(), *value.shape[2:]).clone()

    def flat(slot: str, value: Tensor) -> None:
        values[slot] = value.detach().cpu().reshape(rows.numel(), -1).clone()

    plain = theirs.eager_attention_forward

    def attend(module: Any, query: Tensor, key: Tensor, *rest: Any, **settings: Any) -> Any:
        path = f"layers.{module.layer_idx}.attention.variant"
        keep(f"{path}.q", query.transpose(1, 2))
        keep(f"{path}.k", key.transpose(1, 2))
        return plain(module, query, key, *rest, **settings)

    with ExitStack() as undo:
        undo.callback(setattr, theirs, "eager_attention_forward", plain)
        theirs.eager_attention_forward = attend

        def watch(module: nn.Module, see: Callable[[Any], None]) -> None:
            hook = module.register_forward_hook(lambda _, __, output: see(output))
            undo.callback(hook.remove)

        text = model.model
        watch(text.embed_tokens, lambda out: flat("embedding", out))
        watch(text.norm, lambda out: flat("norm", out))
        for index, block in enumerate(text.layers):
            _watch_block(block, f"layers.{index}", watch, flat, undo)
        with torch.no_grad():
            logits = model(rows.to(model.device), use_cache=False).logits
        flat("logits", logits.float())
    return Recording(name, str(model.dtype).removeprefix("torch."), rows, values)


def _watch_block(
    block: nn.Module,
    path: str,
    watch: Callable[[nn.Module, Callable[[Any], None]], None],
    flat: Callable[[str, Tensor], None],
    undo: ExitStack,
) -> None:
    known = dict(block.named_modules())
    for theirs, ours in _MODULES.items():
        if theirs in known:
            slot = f"{path}.{ours}".rstrip(".")

            def see(output: Any, slot: str = slot) -> None:
                flat(slot, output[0] if isinstance(output, tuple) else output)

            watch(known[theirs], see)
    before = known["self_attn.o_proj"].register_forward_pre_hook(
        lambda _, inputs: flat(f"{path}.attention.mixed", inputs[0])
    )
    undo.callback(before.remove)
    if "feed_forward.router" not in known:
        return
    router: Any = known["feed_forward.router"]

    def see_routing(output: tuple[Tensor, Tensor]) -> None:
        scores, logits = output
        ids = logits.topk(router.top_k, dim=-1).indices
        flat(f"{path}.feed_forward.router.logits", logits.float())
        flat(f"{path}.feed_forward.router.experts", ids)
        flat(f"{path}.feed_forward.router.weights", scores.gather(-1, ids).float())

    def see_experts(output: Tensor) -> None:
        routed = output.unflatten(0, (router.num_experts, -1)).sum(0)
        flat(f"{path}.feed_forward.experts", routed)

    watch(router, see_routing)
    watch(known["feed_forward.experts"], see_experts)
