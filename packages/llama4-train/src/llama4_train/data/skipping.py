"""What happens at a record that cannot be used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from llama4_core.specs.suggest import nearest
from llama4_train.errors import DataError, NoMoreDataError

log = logging.getLogger(__name__)

CHOICES = ("stop", "skip")

IN_A_ROW = 1000
"""So many unusable records without a usable one between them are no accident."""

T = TypeVar("T")


class Skipping:
    """Reads on over records that cannot be used, or stops at the first; counts them.

    Args:
        on_error: "stop" or "skip".

    Attributes:
        used: records that were usable.
        skipped: records that were not.

    Raises:
        DataError: ``on_error`` is something else.
    """

    def __init__(self, on_error: str = "stop") -> None:
        if on_error not in CHOICES:
            raise DataError(
                f"on_error is {on_error!r:.80}{nearest(on_error, CHOICES)}; expected 'stop' or "
                "'skip'"
            )
        self._stop = on_error == "stop"
        self.used = self.skipped = 0

    def __call__(self, read: Callable[[], T]) -> T:
        """What ``read`` gives, called again after an error where records are skipped.

        Raises:
            DataError: from ``read``, where the first one stops; or too many came in a row.
            StopIteration: from ``read``.
        """
        for _ in range(IN_A_ROW):
            try:
                found = read()
            except NoMoreDataError:
                raise
            except DataError as error:
                if self._stop:
                    raise
                self.skipped += 1
                log.warning("skipped: %s", error)
                last = error
            else:
                self.used += 1
                return found
        raise NoMoreDataError(
            f"{IN_A_ROW:,} records in a row cannot be used, the last because of: {last}"
        ) from last

    def summary(self) -> str:
        """How many were skipped, for people."""
        return f"skipped {self.skipped:,} of {self.skipped + self.used:,} records"
