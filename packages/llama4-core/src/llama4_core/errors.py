"""Every error that this toolkit raises on purpose.

Each message says what was got, what was expected and what to do. All classes derive from
:class:`Llama4Error`, which the command line prints as one line, without a traceback.
"""


class Llama4Error(Exception):
    """Base of every deliberate error of the toolkit."""


class SpecError(Llama4Error, ValueError):
    """A model description, a configuration key or an architectural number is wrong."""


class CheckpointError(Llama4Error):
    """A file of a checkpoint is missing, damaged, misshaped or not understood."""


class ComponentError(Llama4Error):
    """A component is unknown, ambiguous, refused, or breaks its contract."""


class PluginError(ComponentError):
    """A plugin could not be loaded or offers something malformed."""


class OverrideError(ComponentError):
    """An override addresses nothing, clashes with another, or has an unusable value."""


class ContextError(Llama4Error, ValueError):
    """Tokens, positions, lengths or cache entries do not fit together."""


class GenerationError(Llama4Error, ValueError):
    """A prompt or a sampling setting cannot be used."""


class TokenizerError(Llama4Error, ValueError):
    """A tokenizer file cannot be read, or does not fit the model."""


class ChatError(Llama4Error, ValueError):
    """A message, a tool, a chat template or a rendered conversation cannot be used."""


class ModalityError(Llama4Error, ValueError):
    """A picture, a film or another input cannot be read, or does not fit the tokens."""


class DrawingError(Llama4Error, ValueError):
    """A picture cannot be drawn as asked."""
