"""Bytes over HTTP: ranges, redirects without the token, and a count of what was received.

Only the standard library: reading headers must not need an extra. Imports without torch.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from llama4_core import __version__
from llama4_core.errors import CheckpointError

# Seconds without a byte before a connection counts as lost.
TIMEOUT = 60
PIECE = 1 << 20
# A description or an index; the largest published index of Llama 4 has about 200 kB.
MAX_TEXT = 64 << 20
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
_PORTS = {"http": 80, "https": 443}


class NotThereError(CheckpointError):
    """The server has no such file, revision or repository."""


class LostError(CheckpointError):
    """The connection failed; trying again may help."""


class RangeError(CheckpointError):
    """The server does not send parts of files."""


class Readable(Protocol):
    """What a response offers."""

    def read(self, amount: int, /) -> bytes:
        """Up to ``amount`` bytes; none at the end."""


@dataclass
class Reply:
    """An answer whose body is not yet read.

    ``begin`` is where its first byte lies in the file, ``size`` the length of the whole file (None
    if the server does not say), ``commit`` the state of the repository that it belongs to.
    """

    url: str
    begin: int
    end: int | None
    size: int | None
    commit: str | None
    body: Readable
    web: Web

    def pieces(self) -> Iterator[bytes]:
        """The body; complete, or an error.

        Raises:
            LostError: the connection ended early.
        """
        done = self.begin
        while self.end is None or done < self.end:
            room = PIECE if self.end is None else min(PIECE, self.end - done)
            try:
                piece = self.body.read(room)
            except (OSError, http.client.HTTPException) as error:
                raise LostError(f"{self.url}: the connection was lost ({error})") from error
            if not piece:
                if self.end is None:
                    return
                raise LostError(
                    f"{self.url}: the connection ended at byte {done:,} of {self.end:,}"
                )
            done += len(piece)
            self.web.received += len(piece)
            yield piece


class Web:
    """A client that knows one token and counts what it receives.

    Args:
        token: sent to the origin of each asked address, never to another one.

    Attributes:
        received: bytes of bodies so far.
    """

    def __init__(self, token: str | None = None) -> None:
        self.token = token
        self.received = 0
        self._opener = urllib.request.build_opener(_Redirects())

    @contextlib.contextmanager
    def get(self, url: str, begin: int | None = None, end: int | None = None) -> Iterator[Reply]:
        """Asks for a file, or for its bytes ``begin`` up to ``end`` (exclusive; None: the rest).

        A range is what was asked for or an error, except that a file may end before ``end``.

        Raises:
            RangeError: a part was asked for and the whole is being sent; nothing of it is read.
            NotThereError: there is no such thing.
            LostError: no connection.
            CheckpointError: anything else, access denied included.
        """
        request = urllib.request.Request(url)
        request.add_header("User-Agent", f"llama4-core/{__version__}")
        # A compressed body has other offsets than the file.
        request.add_header("Accept-Encoding", "identity")
        if begin is not None:
            last = "" if end is None else end - 1
            request.add_header("Range", f"bytes={begin}-{last}")
        if self.token:
            # Unredirected: not copied to the next address unless that is the same origin.
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        try:
            response = self._opener.open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            raise _refusal(url, error, has_token=bool(self.token)) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise LostError(
                f"{url}: no connection ({reason}); check the network, or HF_ENDPOINT"
            ) from error
        with response:
            yield self._reply(url, response, begin, end)

    def _reply(self, url: str, response: Any, begin: int | None, end: int | None) -> Reply:
        commit = response.headers.get("X-Repo-Commit") or getattr(response, "repo_commit", None)
        length = response.headers.get("Content-Length", "")
        if begin is None:
            size = int(length) if length.isdigit() else None
            return Reply(url, 0, size, size, commit, response, self)
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            told = f" of {int(length):,} bytes" if length.isdigit() else ""
            raise RangeError(
                f"{url}: the server ignores ranges and would send the whole file{told}; nothing "
                "was read; fetch the folder and read it locally"
            )
        match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        got = tuple(map(int, match.groups())) if match else None
        if got is None or got[0] != begin or got[1] + 1 != min(end or got[2], got[2]):
            raise RangeError(
                f"{url}: bytes {begin:,} up to {end or 'the end'} were asked for, but the server "
                f"sends {response.headers.get('Content-Range')!r}; fetch the folder and read it "
                "locally"
            )
        return Reply(url, begin, got[1] + 1, got[2], commit, response, self)

    def text(self, url: str) -> tuple[bytes, str | None]:
        """A small file as a whole, and the commit that it belongs to.

        Raises:
            CheckpointError: as for :meth:`get`, or it is far too large for what it should be.
        """
        with self.get(url) as reply:
            content = bytearray()
            for piece in reply.pieces():
                content += piece
                if len(content) > MAX_TEXT:
                    raise CheckpointError(
                        f"{url}: has more than {MAX_TEXT:,} bytes; expected a small text file"
                    )
            return bytes(content), reply.commit

    def json(self, url: str) -> tuple[dict[str, Any], str | None]:
        """A JSON object, and the commit that it belongs to.

        Raises:
            CheckpointError: as for :meth:`get`, or it is not a JSON object.
        """
        text, commit = self.text(url)
        try:
            content = json.loads(text.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{url}: not JSON ({error}); check the address") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{url}: a JSON {type(content).__name__}; expected an object")
        return content, commit


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; the token goes along only to the same origin."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        target = urljoin(req.full_url, newurl)
        if urlsplit(target).scheme not in _PORTS:
            raise urllib.error.URLError(f"redirected to {urlsplit(target).scheme!r}, not http(s)")
        following = super().redirect_request(req, fp, code, msg, headers, newurl)
        if following is not None:
            # Storage hosts do not know of repositories: what the Hub said is kept.
            commit = headers.get("X-Repo-Commit") or getattr(req, "repo_commit", None)
            following.repo_commit = commit  # type: ignore[attr-defined]
            bearer = req.unredirected_hdrs.get("Authorization")
            if bearer and _origin(target) == _origin(req.full_url):
                following.add_unredirected_header("Authorization", bearer)
        return following

    def http_response(self, request: Any, response: Any) -> Any:
        """Hands what the Hub said on to the last response."""
        response.repo_commit = getattr(request, "repo_commit", None)
        return response

    https_response = http_response


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _refusal(url: str, error: urllib.error.HTTPError, *, has_token: bool) -> CheckpointError:
    """What a status of 300 and more means, and what to do about it."""
    code = error.headers.get("X-Error-Code", "")
    if error.code == 401 and code == "RepoNotFound":
        # The Hub says so of what does not exist, too, to those whom it does not know.
        return NotThereError(
            f"{url}: no such repository, or a private one; check the name, or log in with "
            "`hf auth login` or HF_TOKEN"
        )
    if error.code in (401, 403):
        ask = (
            "open its page on the Hub, accept its terms and wait for approval; check that the "
            "token may read it"
            if has_token
            else "open its page on the Hub, accept its terms, then log in with `hf auth login` or "
            "set HF_TOKEN"
        )
        gated = "the repository is gated" if code == "GatedRepo" else "access is denied"
        return CheckpointError(f"{url}: {gated} (HTTP {error.code}); {ask}")
    if error.code == 404:
        what = {"RevisionNotFound": "revision", "RepoNotFound": "repository"}.get(code, "file")
        return NotThereError(f"{url}: no such {what} (HTTP 404); check the name")
    if error.code >= 500 or error.code in (408, 429):
        return LostError(
            f"{url}: the server says HTTP {error.code} {error.reason}; try again later"
        )
    return CheckpointError(f"{url}: the server says HTTP {error.code} {error.reason}")
