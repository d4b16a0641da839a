"""The worlds by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from llama4_core.specs.suggest import nearest
from llama4_train.errors import DataError
from llama4_train.worlds.arithmetic import Arithmetic
from llama4_train.worlds.chats import Chats
from llama4_train.worlds.films import Films
from llama4_train.worlds.library import Source
from llama4_train.worlds.passkey import Passkey
from llama4_train.worlds.recall import Recall
from llama4_train.worlds.sample import World
from llama4_train.worlds.scenes import Scenes
from llama4_train.worlds.sentences import Sentences
from llama4_train.worlds.tools import Tools

WORLDS: dict[str, Callable[..., World]] = {
    world.name: world
    for world in (
        Scenes,
        Films,
        Recall,
        Passkey,
        Arithmetic,
        Sentences,
        Tools,
        Chats,
        Source,
    )
}
"""Name -> class of settings."""


def world(name: str, **settings: Any) -> World:
    """A world by name.

    Args:
        name: of :data:`WORLDS`.
        settings: of its class.

    Raises:
        DataError: there is no such world or setting (the nearest is suggested), or a value is
            wrong.
    """
    if name not in WORLDS:
        raise DataError(
            f"the world is {name!r:.80}{nearest(name, WORLDS)}; expected one of {', '.join(WORLDS)}"
        )
    target: Any = WORLDS[name]
    known = [field.name for field in fields(target) if field.init]
    for setting in settings:
        if setting not in known:
            raise DataError(
                f"the world {name!r} has no setting {setting!r:.80}{nearest(setting, known)}; "
                f"expected some of {', '.join(known)}"
            )
    found: World = target(**settings)
    return found
