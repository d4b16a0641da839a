"""The trackers of a run, all at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llama4_core.errors import Llama4Error
from llama4_core.plugins.catalogue import Catalogue, catalogue
from llama4_train.errors import RecipeError
from llama4_train.protocols import Tracker
from llama4_train.recipe import Recipe, Slot
from llama4_train.trackers.values import Value

_log = logging.getLogger(__name__)

ALWAYS = ("jsonl",)
"""Trackers that every run with a folder has."""


class Trackers:
    """Tells several trackers the same; itself a tracker.

    One that breaks is left out from then on, with a warning: a run of days does not end because a
    service does not answer. An error of the toolkit's own (a full disk) does end it.

    Args:
        members: trackers with their names.
    """

    def __init__(self, members: Sequence[tuple[str, Tracker]]) -> None:
        self.members = list(members)

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Logs the numbers of one step with each."""
        for name, tracker in list(self.members):
            try:
                tracker.log(step, values)
            except Llama4Error:
                raise
            except Exception as error:  # noqa: BLE001 - foreign code: a service, its client, a plugin
                _log.warning(
                    "tracker %s is left out from step %d on: %s: %s",
                    name, step, type(error).__name__, error,
                )  # fmt: skip
                self.members.remove((name, tracker))

    def finish(self) -> None:
        """Ends each, whatever the others say.

        Raises:
            Llama4Error: the first of the toolkit's own errors, after all were ended.
        """
        first: Llama4Error | None = None
        for name, tracker in self.members:
            try:
                tracker.finish()
            except Llama4Error as error:
                first = first or error
            except Exception as error:  # noqa: BLE001 - as in log
                _log.warning("tracker %s: %s: %s", name, type(error).__name__, error)
        self.members.clear()
        if first is not None:
            raise first


def open_trackers(
    recipe: Recipe,
    folder: Path | None,
    *,
    known: Catalogue | None = None,
    also: Sequence[Slot] = (),
) -> Trackers:
    """Builds the trackers of a run: JSON lines, those of the recipe, and others.

    Args:
        recipe: names them; the settings of one that is always there may be given too.
        folder: of the run; without one there are no JSON lines, and the recipe may name no tracker.
        known: the catalogue.
        also: trackers that the recipe need not name, such as the progress on a terminal; one that
            it does name counts once, with the recipe's settings. They may do without a folder.

    Raises:
        RecipeError: one is named twice, cannot run here, or needs a folder.
        ComponentError: there is no such tracker.
    """
    found = known or catalogue()
    named = [slot.name for slot in recipe.trackers]
    for name in named:
        if named.count(name) > 1:
            raise RecipeError(f"tracker {name} is named twice; expected each once")
    if folder is None and named:
        raise RecipeError(
            f"tracker {named[0]} needs the folder of the run, and there is none; say one, or leave "
            "trackers out"
        )
    always = [Slot(name) for name in ALWAYS if folder is not None and name not in named]
    others = [slot for slot in also if slot.name not in named]
    slots = [*always, *recipe.trackers, *others]
    components = [found.find("trackers", slot.name).component for slot in slots]
    for slot, component in zip(slots, components, strict=True):
        reason = component.refusal(None)
        if reason is not None:
            raise RecipeError(f"tracker {slot.name} cannot be used: it {reason}")
    members: list[tuple[str, Any]] = []
    try:
        for slot, component in zip(slots, components, strict=True):
            members.append((slot.name, component.build(folder, recipe, **slot.settings)))
    except BaseException:
        # What was started before (a meter of energy) must not run on.
        Trackers(members).finish()
        raise
    return Trackers(members)
