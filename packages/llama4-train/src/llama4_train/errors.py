"""Errors of training; all derive from :class:`llama4_core.errors.Llama4Error`."""

from __future__ import annotations

from llama4_core.errors import Llama4Error, SpecError


class RecipeError(SpecError):
    """A recipe has an unknown key, a wrong value, or parts that do not fit together."""


class DataError(Llama4Error, ValueError):
    """Training data is missing, damaged or does not fit; the message names file and line."""


class NoMoreDataError(DataError):
    """There is nothing more to read: data has ended, or broke off. Never skipped."""


class TrainingError(Llama4Error):
    """A run cannot start, go on or be resumed."""


class EvaluationError(Llama4Error):
    """A model cannot be measured as asked, or results cannot be compared."""
