"""What generation returns: whole sequences, or pieces of them as they come."""

from __future__ import annotations

from dataclasses import dataclass

Alternatives = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Generation:
    """One generated sequence.

    Attributes:
        tokens: every sampled id, the one that ended the sequence included.
        text: the decoded tokens, without specials, without the stop token and up to the stop
            string; None when the model has no tokenizer.
        logprobs: natural logarithm of each token's probability under the model (before temperature
            and filters); None unless asked for.
        stop_reason: "stop_token", "stop_string", "length" (``max_tokens`` reached) or "context"
            (the model's longest context reached).
        prompt_tokens: the ids of the prompt, as the model saw them.
        alternatives: for each token the most probable ids with their log-probabilities, most
            probable first; None unless asked for.
    """

    tokens: tuple[int, ...]
    text: str | None
    logprobs: tuple[float, ...] | None
    stop_reason: str
    prompt_tokens: tuple[int, ...]
    alternatives: tuple[Alternatives, ...] | None = None


@dataclass(frozen=True)
class Piece:
    """What one step adds to one sequence.

    The pieces of a row concatenate to its :class:`Generation`: text, tokens, logprobs and
    alternatives alike.

    Attributes:
        row: which prompt.
        text: new text; may be empty while a character or a possible stop string is incomplete.
        tokens: new ids.
        logprobs: one per new id, or None unless asked for.
        alternatives: one entry per new id, or None unless asked for.
        stop_reason: set on the last piece of a row.
    """

    row: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...] | None = None
    alternatives: tuple[Alternatives, ...] | None = None
    stop_reason: str | None = None
