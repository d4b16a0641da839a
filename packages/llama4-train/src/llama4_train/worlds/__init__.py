"""Synthetic worlds: training data without end, made from a seed, with exact answers.

Imports neither torch nor Pillow; worlds with pictures need Pillow when they are sampled.
"""

from llama4_train.worlds.rates import rates
from llama4_train.worlds.registry import WORLDS, world
from llama4_train.worlds.sample import Question, Rates, Sample, World
from llama4_train.worlds.source import WorldSource

__all__ = ["WORLDS", "Question", "Rates", "Sample", "World", "WorldSource", "rates", "world"]
