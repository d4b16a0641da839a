"""Downloads a repository into the Hugging Face cache, so that a killed download continues.

huggingface_hub gives the locks that every program on this cache respects, and the progress bar. It
does not move the bytes: version 2.4 throws a file away that was not finished, and at 5 GB a file
that is an hour on a slow line. Here a file grows in ``blobs/<etag>.incomplete``, goes on
with a range, and is checked against its hash before it gets its name.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import importlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llama4_core.errors import CheckpointError
from llama4_core.hub.resolve import INDEX, Progress, indexed, is_plain, pickle_list
from llama4_core.hub.settings import (
    Repo,
    cache_folder,
    endpoint,
    is_commit,
    refuse_offline,
    token,
)
from llama4_core.hub.web import PIECE, LostError, RangeError, Web

log = logging.getLogger(__name__)

# Everything that describes the model, its tokenizer, its use and its terms; no code, ever.
SMALL = (
    "*.json",
    "*.toml",
    "tokenizer.model",
    "chat_template.*",
    "LICENSE*",
    "USE_POLICY*",
    "NOTICE*",
    "README.md",
)
WEIGHTS = "*.safetensors"
PICKLES = "*.pth"
# Attempts in a row that bring nothing new before the download gives up.
ATTEMPTS = 3


@dataclass(frozen=True)
class File:
    """A file of the repository; ``etag`` is its SHA-256, or the SHA-1 of its git blob."""

    name: str
    size: int
    etag: str


class _Tally:
    """Adds up what all files have, and tells the user."""

    def __init__(self, total: int, told: Progress) -> None:
        self.done, self.total, self.told = 0, total, told

    def add(self, size: int) -> None:
        self.done += size
        self.told(self.done, self.total)


def download(
    repo: Repo,
    *,
    cache: Path | None = None,
    pickles: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Fetches what is missing of ``repo`` and returns its folder in the cache.

    Args:
        repo: the repository and revision.
        cache: the cache's folder; by default what the environment says.
        pickles: Meta's ``*.pth`` instead of safetensors.
        progress: told bytes done and in total; by default a bar on a terminal.

    Raises:
        CheckpointError: no extra, offline, no access, no such thing, no room, or a damaged file.
    """
    refuse_offline(str(repo))
    tools = _extra(repo)
    root = (cache or cache_folder()) / repo.folder
    web = Web(token())
    commit, files = _listing(web, repo)
    small = [file for file in files if _fits(file.name, SMALL)]
    weights = [file for file in files if _fits(file.name, (PICKLES if pickles else WEIGHTS,))]
    if not weights:
        other = any(_fits(file.name, (PICKLES,)) for file in files)
        raise CheckpointError(
            f"{repo}: holds no {PICKLES if pickles else WEIGHTS} files"
            + (
                "; it holds *.pth files, which are pickle: if you trust their source, ask for them "
                'with format="meta"'
                if other and not pickles
                else "; expected a checkpoint at the top of the repository"
            )
        )
    folder = root / "snapshots" / commit
    try:
        _fetch(web, repo, root, folder, small, tools, lambda _done, _total: None)
        listed = None if pickles else indexed(folder / INDEX)
        if listed is not None:
            known = {file.name: file for file in weights}
            absent = [name for name in listed if name not in known]
            if absent:
                raise CheckpointError(
                    f"{repo}: {INDEX} names {absent[0]}, which the repository does not hold; "
                    "tell its owner"
                )
            weights = [known[name] for name in listed]
        if progress is None:
            with _bar(tools, repo, sum(file.size for file in weights)) as told:
                _fetch(web, repo, root, folder, weights, tools, told)
        else:
            _fetch(web, repo, root, folder, weights, tools, progress)
        if pickles:
            note = pickle_list(folder)
            note.parent.mkdir(exist_ok=True)
            note.write_text(json.dumps([file.name for file in (*small, *weights)]), "utf-8")
        if not is_commit(repo.revision):
            # Last: a revision points at a snapshot only once that is complete.
            reference = root / "refs" / repo.revision
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit, encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{root}: cannot be written ({error.strerror or error}); check the disk and its "
            "rights, or set HF_HUB_CACHE to another place"
        ) from error
    return folder


def _extra(repo: Repo) -> Any:
    try:
        return importlib.import_module("huggingface_hub.utils")
    except ImportError as error:
        raise CheckpointError(
            f"{repo}: not in the local cache, and downloading needs huggingface_hub: "
            'pip install "llama4-core[hub]"'
        ) from error


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _listing(web: Web, repo: Repo) -> tuple[str, list[File]]:
    """The commit that the revision means now, and the files at its top."""
    revision = quote(repo.revision, safe="")
    url = f"{endpoint()}/api/models/{repo.name}/revision/{revision}?blobs=true"
    answer, _ = web.json(url)
    commit, siblings = answer.get("sha"), answer.get("siblings")
    if not isinstance(commit, str) or not is_commit(commit) or not isinstance(siblings, list):
        raise CheckpointError(f"{url}: not an answer of a Hub; check HF_ENDPOINT")
    files = []
    for entry in siblings:
        name = entry.get("rfilename") if isinstance(entry, dict) else None
        if not is_plain(name):
            # Folders hold other formats; names that are no names are nobody's checkpoint.
            continue
        lfs = entry["lfs"] if isinstance(entry.get("lfs"), dict) else {}
        size, etag = entry.get("size"), lfs.get("sha256") or entry.get("blobId")
        if type(size) is not int or not isinstance(etag, str) or not etag.isalnum():
            raise CheckpointError(f"{url}: says no size and hash of {name}; check HF_ENDPOINT")
        files.append(File(str(name), size, etag))
    return commit, files


def _fetch(
    web: Web,
    repo: Repo,
    root: Path,
    folder: Path,
    files: Sequence[File],
    tools: Any,
    told: Progress,
) -> None:
    """Brings ``files`` into the cache and links them into ``folder``."""
    blobs = root / "blobs"
    locks = root.parent / ".locks" / repo.folder
    for place in (blobs, folder, locks):
        place.mkdir(parents=True, exist_ok=True)
    missing = [file for file in files if not _is_there(folder, blobs, file)]
    _check_disk(repo, blobs, missing)
    tally = _Tally(sum(file.size for file in files), told)
    for file in files:
        # The name of the lock that huggingface_hub takes for the same file.
        with tools.WeakFileLock(locks / f"{file.etag}.lock"):
            if _is_there(folder, blobs, file):
                tally.add(file.size)
            else:
                url = f"{endpoint()}/{repo.name}/resolve/{folder.name}/{quote(file.name)}"
                _fetch_one(web, url, file, blobs, tally)
            _link(folder / file.name, blobs / file.etag)


def _is_there(folder: Path, blobs: Path, file: File) -> bool:
    for place in (blobs / file.etag, folder / file.name):
        if place.is_file() and place.stat().st_size == file.size:
            return True
    return False


def _check_disk(repo: Repo, blobs: Path, missing: Sequence[File]) -> None:
    begun = sum(
        min(part.stat().st_size, file.size)
        for file in missing
        if (part := _incomplete(blobs, file)).is_file()
    )
    needed = sum(file.size for file in missing) - begun
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise CheckpointError(
            f"{repo}: needs {needed / 1e9:.2f} GB more, but the disk of {blobs} has "
            f"{free / 1e9:.2f} GB free; make room, or set HF_HUB_CACHE to a larger disk"
        )
    if missing:
        log.info("%s: %d files, %.2f GB to download", repo, len(missing), needed / 1e9)


def _incomplete(blobs: Path, file: File) -> Path:
    return blobs / f"{file.etag}.incomplete"


def _fetch_one(web: Web, url: str, file: File, blobs: Path, tally: _Tally) -> None:
    part = _incomplete(blobs, file)
    before = tally.done
    digest = _digest(file)
    idle = restarts = 0
    # Unbuffered: what has arrived is in the file if the process is killed.
    with part.open("a+b", buffering=0) as target:
        if target.seek(0, 2) > file.size:
            target.truncate(0)
        target.seek(0)
        while piece := target.read(PIECE):
            digest.update(piece)
        tally.add(target.tell())
        while target.tell() < file.size:
            begin = target.tell()
            if begin:
                log.info("%s: goes on at byte %d", file.name, begin)
            try:
                with web.get(url, begin or None) as reply:
                    if reply.size not in (None, file.size):
                        raise CheckpointError(
                            f"{url}: has {reply.size:,} bytes, but the Hub lists {file.size:,}; "
                            "it may be changing just now: try again later"
                        )
                    for piece in reply.pieces():
                        if target.tell() + len(piece) > file.size:
                            raise CheckpointError(
                                f"{url}: sends more than the {file.size:,} bytes that the Hub "
                                "lists; try again later"
                            )
                        target.write(piece)
                        digest.update(piece)
                        tally.add(len(piece))
            except RangeError as error:
                restarts += 1
                if restarts == ATTEMPTS:
                    raise LostError(
                        f"{url}: the connection was lost {restarts} times, and the server cannot "
                        "go on in the middle; try again on a steadier line"
                    ) from error
                log.warning("%s: the server cannot go on; starting again from 0", file.name)
                target.seek(0)
                target.truncate()
                digest = _digest(file)
                tally.done = before
            except LostError as error:
                idle = 0 if target.tell() > begin else idle + 1
                if idle == ATTEMPTS:
                    raise LostError(
                        f"{error}; {target.tell():,} of {file.size:,} bytes are kept: try again "
                        "to go on from there"
                    ) from error
            else:
                if target.tell() == begin:
                    raise CheckpointError(
                        f"{url}: ends at byte {begin:,} of the {file.size:,} that the Hub lists; "
                        "try again later"
                    )
    if digest.hexdigest() != file.etag:
        part.unlink()
        raise CheckpointError(
            f"{url}: arrived with the hash {digest.hexdigest()}; expected {file.etag}; it was "
            "damaged on the way and is removed: try again"
        )
    part.replace(blobs / file.etag)


def _digest(file: File) -> Any:
    """SHA-256 for large files; git's own hash of a blob for those that git keeps itself."""
    if len(file.etag) == 64:
        return hashlib.sha256()
    return hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)


def _link(name: Path, blob: Path) -> None:
    if name.is_file():
        return
    name.unlink(missing_ok=True)
    try:
        name.symlink_to(Path("..", "..", "blobs", blob.name))
    except OSError:
        # A system without links (Windows without the right): the file itself, as huggingface_hub.
        blob.replace(name)


@contextlib.contextmanager
def _bar(tools: Any, repo: Repo, total: int) -> Iterator[Progress]:
    """A bar on a terminal, nothing elsewhere."""
    with tools.tqdm(total=total, unit="B", unit_scale=True, desc=str(repo), disable=None) as bar:

        def told(done: int, _total: int) -> None:
            bar.update(done - bar.n)

        yield told
