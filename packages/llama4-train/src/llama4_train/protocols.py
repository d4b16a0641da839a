"""What the parts of a training run say to each other.

Data sources give :class:`Record` values; tokenising makes an :class:`Example` of each; packing
puts examples back to back into a :class:`Batch`; an objective makes a :class:`Loss` of model and
batch; an optimizer changes the weights; a tracker writes down what happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from llama4_core.chat.messages import Message, Part
from llama4_core.protocols.modalities import Reading

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Piece:
    """A part of a document and how much of the loss is on it.

    Attributes:
        part: ordinary text, a picture or a film.
        weight: of each of its tokens as a target; 0 for what is only read. Pictures are never
            targets.
    """

    part: Part
    weight: float = 1.0


@dataclass(frozen=True)
class Record:
    """One document as a data source gives it: pieces, or a conversation; never both.

    Attributes:
        pieces: text, pictures and films in order, without the beginning-of-text token.
        messages: a conversation, written in the chat format; the loss is on what the assistant says
            and on the end of each of its turns.
        tools: on offer in the conversation.
        source: name of the data source, for losses by source.
        origin: where it came from, for error messages ("notes.jsonl, line 7").
    """

    pieces: tuple[Piece, ...] = ()
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    source: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Example:
    """A tokenised document.

    Attributes:
        tokens: ``T`` ids, beginning-of-text included.
        weights: ``T`` numbers: weight of the loss of *predicting* each of these tokens; that of the
            first is 0.
        readings: pictures and films in order; their placeholders are among the tokens.
        source: name of the data source.
        placeholders: of each reading, the id of the tokens at which its features stand.
    """

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    readings: tuple[Reading, ...] = ()
    source: str = ""
    placeholders: tuple[int, ...] = ()


@dataclass(frozen=True)
class Batch:
    """Documents back to back, ready for one forward.

    Attributes:
        tokens: ``[N]`` int64.
        targets: ``[N]`` int64: the token after each, or -100 where there is none (last of a
            document) or it has weight 0.
        weights: ``[N]`` float32: of each target; 0 where the target is -100.
        lengths: tokens of each document; their sum is N.
        sources: name of each document's data source.
        inputs: placeholder id -> inputs ``[B, ...]`` of a modality, in the order of the stream.
    """

    tokens: Tensor
    targets: Tensor
    weights: Tensor
    lengths: tuple[int, ...]
    sources: tuple[str, ...] = ()
    inputs: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """Sum of the weights of all targets."""
        return float(self.weights.sum(dtype=self.weights.dtype))


@dataclass(frozen=True)
class StepFacts:
    """What an objective may know of the step that its batch belongs to.

    Attributes:
        number: of the step, from 0.
        weight: sum of the weights of all batches of the step: the denominator of the loss, so that
            accumulating k batches gives the gradients of one batch k times as large.
        tokens: of all batches of the step.
        seed: of random numbers of this step.
    """

    number: int
    weight: float
    tokens: int
    seed: int = 0


@dataclass
class Loss:
    """What an objective computed for one batch.

    Attributes:
        total: scalar to differentiate: this batch's share of the step's loss.
        parts: named shares of the step's value for logs, detached; they add up over the batches.
        routings: of each layer, for balancing and health; None for dense layers.
    """

    total: Tensor
    parts: dict[str, Tensor]
    routings: Sequence[Any] = ()


class Objective(Protocol):
    """What is minimised; built as ``target(**settings)``."""

    def __call__(self, model: nn.Module, batch: Batch, step: StepFacts) -> Loss:
        """One forward, differentiable. Pure: counts nothing, since checkpointing runs it twice."""


class DataSource(Protocol):
    """Records without end or until they end, with an exact state; built as ``target(**settings)``.

    Iterating twice from the same state gives the same records, and nothing else decides them: no
    clock, no random numbers but from a setting. A source may also have

    - ``fingerprint``, a string that is another one for other data, and ``endless``, whether it
      never ends: both are looked at before its tokens are kept in files;
    - ``prepare(encoder)``, called once before the first record: it then gives :class:`Example`
      values instead of records, made by the encoder;
    - for the conformance kit, as static methods: ``sample_settings(folder)``, which writes a small
      source into a folder and returns the settings that read it (without it, the kit builds the
      source without settings), and ``damage(folder)``, which spoils one record of that source and
      returns what the error has to name, as in "b.jsonl, line 3".
    """

    def __next__(self) -> Record:
        """The next record.

        Raises:
            StopIteration: there are no more; again and again.
            NoMoreDataError: data broke off; nothing behind it can be read.
            DataError: a record cannot be read; it names file and line. The next call gives the
                record behind it.
        """

    def state(self) -> dict[str, Any]:
        """JSON values from which :meth:`restore` goes on exactly here."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where ``state`` was taken; changes nothing when it cannot.

        Raises:
            DataError: the state is not of this source; says what differs.
        """


@dataclass(frozen=True)
class Parameter:
    """A parameter and its role, which decides how it is optimised.

    Attributes:
        name: path in the model.
        value: the parameter.
        role: "embedding", "head", "router", "vector" (norms, biases), "matrix" ``[out, in]``, or
            "experts" (a stack ``[E, out, in]`` of matrices).
    """

    name: str
    value: nn.Parameter
    role: str


class Optimizer(Protocol):
    """Changes weights by their gradients; a ``torch.optim.Optimizer`` is one.

    Each of its groups has a key ``base_lr``, the largest of which is the learning rate that was
    asked for: before every step the trainer sets ``lr = base_lr * schedule(step)``. Weights without
    a gradient stay as they are.
    """

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups, live: ``lr`` is set in them."""

    def step(self) -> None:
        """Takes one step; gradients are read only."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets all gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, strings, booleans and None, in dicts and lists: what resuming needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave, groups and float32 copies of weights included."""


class OptimizerFactory(Protocol):
    """Makes an optimizer; every setting but the learning rate has a default."""

    def __call__(self, parameters: Sequence[Parameter], lr: float, **settings: Any) -> Optimizer:
        """The optimizer of the present values of ``parameters``."""


class Tracker(Protocol):
    """Writes down what happens; built as ``target(folder, recipe, **settings)``.

    It changes nothing of the run: not the state of random numbers, nothing outside of ``folder``. A
    resumed run builds it anew over the same folder, and logs again what came after the checkpoint.
    """

    def log(self, step: int, values: Mapping[str, float | Sequence[float]]) -> None:
        """Numbers of one step, finite or not; lists are shares, such as the load of experts.

        Args:
            step: its number, above that of the call before.
            values: by name; parts of a name are joined by dots.
        """

    def finish(self) -> None:
        """The run ended, or breaks off."""
