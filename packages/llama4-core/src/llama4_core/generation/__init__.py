"""Generation: sampling, stops, streaming and the loop that ties them to a model."""

from llama4_core.generation.generate import generate, stream
from llama4_core.generation.generative import GenerativeModel
from llama4_core.generation.inputs import ReadInput
from llama4_core.generation.prompts import ReadPrompt
from llama4_core.generation.result import Generation, Piece
from llama4_core.generation.sampling import (
    InversionSampler,
    Sampler,
    Sampling,
    choose,
    log_probabilities,
    probabilities,
)

__all__ = [
    "Generation",
    "GenerativeModel",
    "InversionSampler",
    "Piece",
    "ReadInput",
    "ReadPrompt",
    "Sampler",
    "Sampling",
    "choose",
    "generate",
    "log_probabilities",
    "probabilities",
    "stream",
]
