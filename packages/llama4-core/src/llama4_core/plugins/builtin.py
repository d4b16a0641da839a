"""What llama4-core itself offers, through the same hooks as everybody else. Imports without torch.

One line per component: name, target, what to say about it, and when it can run.
"""

from __future__ import annotations

from collections.abc import Iterable

from llama4_core.attention import support
from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import hookimpl


@hookimpl
def llama4_attention_variants() -> Iterable[Component]:
    """Variants of softmax attention."""
    module = "llama4_core.model.variants"
    yield Component(
        "irope-chunked", f"{module}:irope_chunked", "Llama 4's local layers: RoPE within chunks"
    )
    yield Component(
        "nope-global",
        f"{module}:NopeGlobal",
        "Llama 4's global layers: no position, temperature by position",
    )
    yield Component("full-rope", f"{module}:full_rope", "RoPE over the whole context")
    yield Component(
        "sliding-window", f"{module}:sliding_window", "RoPE, each query sees the last tokens"
    )
    yield Component(
        "capped-sink", f"{module}:capped_sink", "RoPE with soft-capped scores and a learned sink"
    )


@hookimpl
def llama4_attention_backends() -> Iterable[Component]:
    """Implementations of softmax attention."""
    yield Component(
        "eager",
        "llama4_core.attention.eager:EagerAttention",
        "the definition itself, on a full score matrix: the oracle",
        supports=support.eager_supports,
        priority=1,
    )
    yield Component(
        "sdpa",
        "llama4_core.attention.sdpa:SdpaAttention",
        "torch's fused kernels, without ever building a mask",
        supports=support.sdpa_supports,
        priority=20,
    )
    yield Component(
        "flex",
        "llama4_core.attention.flex:FlexAttention",
        "torch's FlexAttention; fast only when compiled",
        supports=support.flex_supports,
    )
    yield Component(
        "xformers",
        "llama4_core.attention.xformers_backend:XformersAttention",
        "xFormers' memory-efficient kernels for CUDA devices",
        requires=("xformers",),
        supports=support.xformers_supports,
        priority=10,
    )


@hookimpl
def llama4_mixers() -> Iterable[Component]:
    """How tokens meet in a block."""
    yield Component(
        "softmax", "llama4_core.model.softmax:SoftmaxMixer", "attention: a variant and a backend"
    )
    yield Component(
        "gated-linear",
        "llama4_core.model.linear:GatedLinearMixer",
        "gated linear attention: a state of constant size",
    )


@hookimpl
def llama4_caches() -> Iterable[Component]:
    """Where keys and values are kept."""
    yield Component(
        "bounded",
        "llama4_core.contexts.caches:HeadMajorCache",
        "keeps only what the masks may still see",
        priority=10,
    )
    yield Component(
        "full",
        "llama4_core.contexts.caches:HeadMajorCache",
        "keeps every key and value",
        priority=1,
        settings={"bounded": False},
    )


@hookimpl
def llama4_feed_forwards() -> Iterable[Component]:
    """The second half of a block."""
    yield Component("dense", "llama4_core.model.dense:DenseFeedForward", "a SwiGLU feed-forward")


@hookimpl
def llama4_tokenizers() -> Iterable[Component]:
    """Kinds of tokenizer files."""
    module = "llama4_core.tokenizers.formats"
    yield Component(
        "huggingface",
        f"{module}:HuggingFaceFormat",
        "a byte-level tokenizer.json, run by the tokenizers library",
        priority=30,
    )
    yield Component(
        "meta-tiktoken",
        f"{module}:MetaFormat",
        "Meta's tokenizer.model, run by tiktoken",
        requires=("tiktoken",),
        priority=20,
        settings={"engine": "tiktoken"},
    )
    yield Component(
        "meta",
        f"{module}:MetaFormat",
        "Meta's tokenizer.model, run by the tokenizers library",
        priority=10,
    )


@hookimpl
def llama4_modalities() -> Iterable[Component]:
    """Kinds of input beside text."""
    yield Component(
        "none",
        "llama4_core.model.aside:Aside",
        "reads nothing; the weights are kept aside and written back on save",
        priority=1,
    )


@hookimpl
def llama4_checkpoint_formats() -> Iterable[Component]:
    """Folders of weights."""
    yield Component(
        "huggingface",
        "llama4_core.checkpoints.huggingface:HuggingFaceFormat",
        "config.json and sharded safetensors, as transformers writes them",
    )
    yield Component(
        "native",
        "llama4_core.checkpoints.native:NativeFormat",
        "canonical names, experts laid out for speed, mapped without a copy",
    )
    yield Component(
        "meta",
        "llama4_core.checkpoints.meta:MetaFormat",
        "params.json and consolidated.NN.pth, as Meta publishes them; read only on request",
    )


@hookimpl
def llama4_chat_formats() -> Iterable[Component]:
    """How conversations are written down."""
    yield Component(
        "llama4", "llama4_core.chat.format:Llama4Format", "Llama 4's own format, as Meta writes it"
    )
    yield Component(
        "template",
        "llama4_core.chat.template:TemplateFormat",
        "the chat template that came with a Hugging Face checkpoint, sandboxed",
        requires=("jinja2",),
    )


@hookimpl
def llama4_tool_parsers() -> Iterable[Component]:
    """The calls of tools in replies."""
    target = "llama4_core.chat.tools:CallParser"
    yield Component("auto", target, "every form below: models mix them")
    yield Component(
        "pythonic",
        target,
        "[f(a=1), g()], as Llama 4 is documented",
        settings={"forms": ("pythonic",)},
    )
    yield Component(
        "json",
        target,
        'objects with "name" and "parameters", and <function=name>{...}</function>',
        settings={"forms": ("json", "function")},
    )


@hookimpl
def llama4_samplers() -> Iterable[Component]:
    """How a token is drawn."""
    yield Component(
        "inversion",
        "llama4_core.generation.sampling:InversionSampler",
        "inverts the cumulative distribution: one random number per token",
        priority=1,
    )


@hookimpl
def llama4_models() -> Iterable[Component]:
    """Shapes by name."""
    module = "llama4_core.specs.presets"
    yield Component("scout", f"{module}:scout", "Llama 4 Scout, 17B active of 109B: a shape")
    yield Component(
        "maverick", f"{module}:maverick", "Llama 4 Maverick, 17B active of 400B: a shape"
    )
    yield Component("guard", f"{module}:guard", "Llama Guard 4, 12B dense: a shape")
    yield Component(
        "behemoth", f"{module}:behemoth", "a teacher of 2T parameters: illustrative, unpublished"
    )
    yield Component("nano", f"{module}:nano", "about 30M parameters, to train at home")
    yield Component("mini", f"{module}:mini", "about 150M parameters")
    yield Component("small", f"{module}:small", "about 500M parameters")


@hookimpl
def llama4_commands() -> Iterable[Component]:
    """Subcommands of ``llama4``; each module is imported only when its command runs."""
    cli = "llama4_core.cli"
    yield Component("demo", f"{cli}.demo:Command", "a tour with a small trained model")
    yield Component("bench", f"{cli}.bench:Command", "time a model on this machine")
    yield Component("plugins", f"{cli}.plugins:Command", "list what can be swapped, and by whom")
    yield Component("models", f"{cli}.models:Command", "list the models that have a name here")
    yield Component("explain", f"{cli}.explain:Command", "say what would run in a model, and why")
    yield Component("generate", f"{cli}.generate:Command", "continue a text")
    yield Component("chat", f"{cli}.chat:Command", "talk with a model, and keep the conversation")
    yield Component(
        "inspect", f"{cli}.inspect:Command", "count a model: parameters, bytes, cache per user"
    )
    yield Component("check", f"{cli}.check:Command", "prove a component by the conformance kit")
    yield Component("doctor", f"{cli}.doctor:Command", "describe this machine and installation")
    yield Component("new", f"{cli}.new:Command", "write a plugin package to start from")
    yield Component("convert", f"{cli}.convert:Command", "write a checkpoint in another format")
    yield Component("extract", f"{cli}.extract:Command", "write one part of a checkpoint")
    yield Component("shrink", f"{cli}.shrink:Command", "write some layers and experts of one")
    yield Component("bisect", f"{cli}.bisect:Command", "find the first slot where two models part")
    show = f"{cli}.show"
    yield Component("show.mask", f"{show}:MaskCommand", "draw who may see whom")
    yield Component("show.irope", f"{show}:IRopeCommand", "draw pattern, rotations, temperature")
    yield Component("show.routing", f"{show}:RoutingCommand", "draw which experts a text visits")
    yield Component("show.accounting", f"{show}:AccountingCommand", "draw parameters and caches")
