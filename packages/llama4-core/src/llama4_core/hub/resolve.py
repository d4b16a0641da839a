"""A repository id to a folder: the local Hugging Face cache first, then a download.

The cache is laid out as huggingface_hub does it:
``models--org--name/{refs/<revision>, snapshots/<commit>/<file> -> ../../blobs/<etag>}``.
Imports without torch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

from llama4_core.errors import CheckpointError
from llama4_core.hub.settings import Repo, cache_folder, is_commit, refuse_offline

log = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DESCRIPTIONS = ("spec.toml", "config.json", "params.json")

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in total."""


def cached(repo: Repo, cache: Path | None = None, *, pickles: bool = False) -> Path | None:
    """The folder of ``repo`` in the local cache if it is complete, else None; no network.

    Complete means: a description, and every weight file that the index names. A download writes
    the small files first, so a tokenizer or a licence is then there, too. A revision that moved on
    the Hub since is not noticed: what is cached is used.
    """
    root = (cache or cache_folder()) / repo.folder
    commit = repo.revision
    if not is_commit(commit):
        try:
            commit = (root / "refs" / commit).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        if not is_commit(commit):
            return None
    folder = root / "snapshots" / commit
    if is_complete(folder, pickles=pickles):
        return folder
    if folder.is_dir():
        log.info("%s: the cached snapshot %s is not complete", repo, folder)
    return None


def is_complete(folder: Path, *, pickles: bool = False) -> bool:
    """Whether description and weights are all there; a link to nothing is not there."""
    if pickles:
        return _pickles_complete(folder)
    if not any((folder / name).is_file() for name in DESCRIPTIONS):
        return False
    try:
        files = indexed(folder / INDEX)
    except CheckpointError:
        return False
    if files is None:
        return (folder / SINGLE).is_file()
    return all((folder / name).is_file() for name in files)


def pickle_list(snapshot: Path) -> Path:
    """Where a download notes which files belong to Meta's format: no file in it says so."""
    return snapshot.parent.parent / "llama4" / f"{snapshot.name}.json"


def _pickles_complete(folder: Path) -> bool:
    try:
        names = json.loads(pickle_list(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(names, list) and all((folder / str(name)).is_file() for name in names)


def indexed(index: Path) -> list[str] | None:
    """The weight files that an index names; None if there is no index.

    Raises:
        CheckpointError: the index is damaged, or names something that is not a file beside it.
    """
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{index}: cannot be read ({error}); fetch it again") from error
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: lacks a 'weight_map' from keys to files; fetch it again")
    names = set(weight_map.values())
    for name in names:
        if not is_plain(name):
            raise CheckpointError(
                f"{index}: points at {name!r}; expected the name of a file beside it"
            )
    return sorted(names)


def is_plain(name: object) -> bool:
    """Whether ``name`` is the name of a visible file in the same folder, on any system."""
    return (
        isinstance(name, str)
        and name != ""
        and not name.startswith(".")
        and not any(character in name for character in '/\\:*?"<>|\0')
    )


def folder_of(
    repo: Repo,
    *,
    cache: Path | None = None,
    pickles: bool = False,
    progress: Progress | None = None,
) -> Path:
    """The folder of ``repo``: from the cache without any network, else downloaded into it.

    Args:
        repo: the repository and revision.
        cache: the cache's folder; by default what the environment says.
        pickles: take Meta's ``*.pth`` files instead of safetensors. They are pickle: ask for them
            only where you trust their source.
        progress: told bytes done and in total; by default a bar on a terminal.

    Raises:
        CheckpointError: offline, no extra, no access, no such thing, no room, or a damaged file.
    """
    found = cached(repo, cache, pickles=pickles)
    if found is not None:
        return found
    refuse_offline(str(repo))
    from llama4_core.hub.download import download

    return download(repo, cache=cache, pickles=pickles, progress=progress)
