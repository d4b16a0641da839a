"""Everything that can be swapped, on one page.

One hook per socket. A hook yields :class:`~llama4_core.plugins.component.Component` values and does
nothing else; it must not import torch. ``SOCKETS`` says, per socket, what the problem is that
``supports`` gets, and which versions of the contract are understood.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pluggy

from llama4_core.plugins.component import Component

PROJECT = "llama4"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True)
class Socket:
    """A kind of part.

    Attributes:
        name: plural; the hook is ``llama4_<name>``.
        one: singular, as in ``llama4 check router:mine``.
        owner: package that defines the contract and ships the reference implementation.
        problem: name of the problem type, or "" where nothing has to be decided.
        oldest, current: contracts that are accepted.
    """

    name: str
    one: str
    owner: str
    problem: str = ""
    oldest: int = 1
    current: int = 1

    @property
    def hook(self) -> str:
        """Name of the hook."""
        return f"llama4_{self.name}"


SOCKETS: dict[str, Socket] = {
    socket.name: socket
    for socket in (
        Socket("attention_variants", "attention_variant", "llama4-core"),
        Socket("attention_backends", "attention_backend", "llama4-core", "AttentionProblem"),
        Socket("mixers", "mixer", "llama4-core"),
        Socket("caches", "cache", "llama4-core"),
        Socket("feed_forwards", "feed_forward", "llama4-core"),
        Socket("tokenizers", "tokenizer", "llama4-core"),
        Socket("modalities", "modality", "llama4-core"),
        Socket("checkpoint_formats", "checkpoint_format", "llama4-core"),
        Socket("chat_formats", "chat_format", "llama4-core"),
        Socket("tool_parsers", "tool_parser", "llama4-core"),
        Socket("samplers", "sampler", "llama4-core"),
        Socket("models", "model", "llama4-core"),
        Socket("commands", "command", "llama4-core"),
        Socket("routers", "router", "llama4-moe"),
        Socket("expert_backends", "expert_backend", "llama4-moe", "ExpertProblem"),
        Socket("encoders", "encoder", "llama4-vision", "EncoderProblem"),
        Socket("adapters", "adapter", "llama4-vision"),
        Socket("objectives", "objective", "llama4-train"),
        Socket("optimizers", "optimizer", "llama4-train"),
        Socket("data_sources", "data_source", "llama4-train"),
        Socket("trackers", "tracker", "llama4-train"),
    )
}


class Hooks:
    """The hook specifications."""

    @hookspec
    def llama4_attention_variants(self) -> Iterable[Component]:
        """Position treatment, mask and score terms of softmax attention.

        Target: an ``nn.Module`` built as ``target(spec: AttentionSpec, norm_eps: float)`` with
        ``mask``, ``score_terms``, ``forward(q, k, view) -> (q, k)`` and ``score_tensors()``
        (llama4_core.model.variants).
        """

    @hookspec
    def llama4_attention_backends(self) -> Iterable[Component]:
        """Softmax attention itself.

        Target: built as ``target()``; llama4_core.protocols.attention.AttentionBackend.
        """

    @hookspec
    def llama4_mixers(self) -> Iterable[Component]:
        """What lets tokens meet in a block: softmax attention, or something else.

        Target: an ``nn.Module`` built as ``target(spec: LayerSpec, width, norm_eps, parts)`` with
        ``forward(x, view)``, ``kind`` and ``state_spec``; llama4_core.protocols.views.Mixer.
        """

    @hookspec
    def llama4_caches(self) -> Iterable[Component]:
        """Where keys and values are kept between forwards.

        Target: built as ``target(rows, kv_heads, head_dim, capacity, dtype, device)``;
        llama4_core.contexts.caches.LayerCache.
        """

    @hookspec
    def llama4_feed_forwards(self) -> Iterable[Component]:
        """The second half of a block.

        Target: an ``nn.Module`` built as ``target(spec, width, parts)``;
        llama4_core.protocols.experts.FeedForward.
        """

    @hookspec
    def llama4_tokenizers(self) -> Iterable[Component]:
        """Kinds of tokenizer files.

        The file of a folder is read by the component of the highest priority that detects it.
        Target: built as ``target()``; llama4_core.tokenizers.formats.TokenizerFormat.
        """

    @hookspec
    def llama4_modalities(self) -> Iterable[Component]:
        """Other kinds of input than text, fused into the stream of tokens.

        Target: an ``nn.Module`` built as ``target(spec: ModelSpec, parts)``;
        llama4_core.protocols.modalities.Modality.
        """

    @hookspec
    def llama4_checkpoint_formats(self) -> Iterable[Component]:
        """Folders of weights that can be read and written.

        Target: built as ``target()``; llama4_core.checkpoints.formats.CheckpointFormat.
        """

    @hookspec
    def llama4_chat_formats(self) -> Iterable[Component]:
        """How a conversation becomes tokens: special tokens and ordinary text, kept apart.

        Target: built as ``target(folder=None)``, the folder of the checkpoint where there is one;
        llama4_core.chat.format.ChatFormat.
        """

    @hookspec
    def llama4_tool_parsers(self) -> Iterable[Component]:
        """The calls of tools in what a model wrote, read as it arrives.

        Target: built as ``target(known=None)`` for each message, with the names of the tools on
        offer; llama4_core.chat.tools.ToolParser.
        """

    @hookspec
    def llama4_samplers(self) -> Iterable[Component]:
        """How a token is drawn from logits.

        Target: built as ``target(sampling)``; llama4_core.generation.sampling.Sampler.
        """

    @hookspec
    def llama4_models(self) -> Iterable[Component]:
        """Models by name: shapes (presets), or weights shipped as package data.

        Target: a function without arguments that returns a ModelSpec, or a folder with weights.
        """

    @hookspec
    def llama4_commands(self) -> Iterable[Component]:
        """Subcommands of ``llama4``; the name may be nested ("train.tokenizer").

        Target: an object with ``configure(parser)`` and ``run(arguments) -> int``.
        """

    @hookspec
    def llama4_routers(self) -> Iterable[Component]:
        """Which experts each token visits.

        Target: an ``nn.Module`` built as ``target(hidden, experts, top_k)``;
        llama4_core.protocols.routing.Router.
        """

    @hookspec
    def llama4_expert_backends(self) -> Iterable[Component]:
        """The computation of the chosen experts.

        Target: built as ``target()``; llama4_core.protocols.experts.ExpertBackend.
        """

    @hookspec
    def llama4_encoders(self) -> Iterable[Component]:
        """What turns pieces of an input into features; the problem names the modality.

        Target: an ``nn.Module`` built as ``target(spec: VisionSpec, parts)``;
        llama4_core.protocols.encoders.Encoder.
        """

    @hookspec
    def llama4_adapters(self) -> Iterable[Component]:
        """What turns an encoder's features into those that a text model takes.

        Target: an ``nn.Module`` built as ``target(spec: VisionSpec, grid, width, parts)``;
        llama4_core.protocols.encoders.Adapter.
        """

    @hookspec
    def llama4_objectives(self) -> Iterable[Component]:
        """What training minimises.

        Target: built as ``target(**settings)`` with the settings of a recipe, all of which have
        defaults; llama4_train.protocols.Objective.
        """

    @hookspec
    def llama4_data_sources(self) -> Iterable[Component]:
        """Where training data comes from.

        Target: built as ``target(**settings)`` with the settings of a recipe;
        llama4_train.protocols.DataSource.
        """

    @hookspec
    def llama4_optimizers(self) -> Iterable[Component]:
        """What turns gradients into new weights.

        Target: built as ``target(parameters, lr, **settings)`` with
        ``llama4_train.protocols.Parameter`` values and the settings of a recipe, all of which but
        ``lr`` have defaults; llama4_train.protocols.Optimizer.
        """

    @hookspec
    def llama4_trackers(self) -> Iterable[Component]:
        """What writes down the numbers of a run.

        Target: built as ``target(folder, recipe, **settings)`` with the folder of the run, its
        ``llama4_train.recipe.Recipe`` and the settings that it names, all of which have defaults;
        llama4_train.protocols.Tracker.
        """
