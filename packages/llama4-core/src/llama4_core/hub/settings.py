"""What the environment says about the Hub, read when it is asked for. Imports without torch.

The variables are those of huggingface_hub, so that both use one cache and one token:
https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from llama4_core.errors import CheckpointError

PUBLIC = "https://huggingface.co"
_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_WORD}/{_WORD}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUE = {"1", "ON", "YES", "TRUE"}


@dataclass(frozen=True)
class Repo:
    """A repository of models: ``name`` is ``org/name``, ``revision`` a branch, tag or commit."""

    name: str
    revision: str = "main"

    def __str__(self) -> str:
        return self.name if self.revision == "main" else f"{self.name}@{self.revision}"

    @property
    def folder(self) -> str:
        """Its folder in the cache."""
        return "models--" + self.name.replace("/", "--")


def repo_of(text: str, revision: str | None = None) -> Repo | None:
    """``org/name`` or ``org/name@revision`` as a repository; None if it cannot be one.

    Raises:
        CheckpointError: the revision is malformed, or given twice.
    """
    name, at, named = text.partition("@")
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        return None
    if at and revision not in (None, named):
        raise CheckpointError(f"{text}: names revision {named!r}, but {revision!r} is asked for")
    chosen = named if at else revision or "main"
    if not _REVISION.fullmatch(chosen) or ".." in chosen:
        raise CheckpointError(
            f"{name}: revision {chosen!r} is not the name of a branch, a tag or a commit"
        )
    return Repo(name, chosen)


def is_address(text: str) -> bool:
    """Whether ``text`` is the http or https address of a folder."""
    return urlsplit(text).scheme in ("http", "https")


def is_commit(revision: str) -> bool:
    """Whether ``revision`` names one state for ever."""
    return _COMMIT.fullmatch(revision) is not None


def home() -> Path:
    """Where Hugging Face keeps things: ``HF_HOME``, or the default beside other caches."""
    given = os.environ.get("HF_HOME")
    if given:
        return Path(os.path.expandvars(given)).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"


def cache_folder() -> Path:
    """Where repositories are kept: ``HF_HUB_CACHE``, or ``hub`` in :func:`home`."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(os.path.expandvars(given)).expanduser() if given else home() / "hub"


def endpoint() -> str:
    """The address of the Hub: ``HF_ENDPOINT``, or the public one.

    Raises:
        CheckpointError: it is not an http or https address.
    """
    given = (os.environ.get("HF_ENDPOINT") or PUBLIC).rstrip("/")
    parts = urlsplit(given)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise CheckpointError(f"HF_ENDPOINT is {given!r}; expected an address such as {PUBLIC}")
    return given


def offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE


def refuse_offline(what: str) -> None:
    """Raises if the network is forbidden.

    Raises:
        CheckpointError: with the way out.
    """
    if offline():
        raise CheckpointError(
            f"{what}: not complete in the cache {cache_folder()}, and HF_HUB_OFFLINE forbids the "
            "network; unset it, or fetch the repository where there is a network and copy the cache"
        )


def token() -> str | None:
    """The user's token: ``HF_TOKEN``, or what ``hf auth login`` has stored; None if neither."""
    given = os.environ.get("HF_TOKEN", "").strip()
    if given or os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _TRUE:
        return given or None
    path = os.environ.get("HF_TOKEN_PATH")
    file = Path(os.path.expandvars(path)).expanduser() if path else home() / "token"
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None
