"""A Hub on 127.0.0.1: what the real one answers, with every request and byte counted."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "c0ffee" + "0" * 34
REPO = "someone/small"
VARIABLES = (
    "HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN",
    "HF_TOKEN_PATH", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy",
    "ALL_PROXY",
)  # fmt: skip


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0

    @property
    def file(self) -> str:
        return self.path.rpartition("/")[2].partition("?")[0]


@dataclass
class FakeHub:
    """Serves the files of ``folder`` as the repository ``REPO``.

    ``cut`` maps a file to after how many bytes of a body the connection is closed, once.
    """

    folder: Path
    storage: str | None = None
    redirected: str = ".safetensors"
    secret: str | None = None
    refused: int = 403
    gated: bool = False
    ranges: bool = True
    wrong_range: bool = False
    lengths: bool = True
    cut: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    damage: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    origin: str = ""

    @property
    def sent(self) -> int:
        return sum(request.sent for request in self.requests)

    def asked(self, file: str) -> list[Request]:
        return [request for request in self.requests if request.file == file]

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        request = Request(handler.path, dict(handler.headers.items()))
        self.requests.append(request)
        path = unquote(urlsplit(handler.path).path)
        api = re.fullmatch(rf"/api/models/{REPO}/revision/(.+)", path)
        resolve = re.fullmatch(rf"/{REPO}/resolve/([^/]+|refs/pr/1)/(.+)", path)
        stored = re.fullmatch(r"/storage/(.+)", path)
        known = ("main", "refs/pr/1", COMMIT)
        bearer = request.headers.get("Authorization")
        # What a gated repository holds may be listed by anybody.
        guarded = self.secret and not stored and not (api and self.gated)
        if guarded and bearer != f"Bearer {self.secret}":
            code = "GatedRepo" if self.gated else "RepoNotFound"
            return self._say(handler, request, self.refused, code)
        if api:
            if api[1] not in known:
                return self._say(handler, request, 404, "RevisionNotFound")
            return self._body(handler, request, json.dumps(self._listing()).encode())
        if resolve or stored:
            name = stored[1] if stored else resolve[2]
            if resolve and resolve[1] not in known:
                return self._say(handler, request, 404, "RevisionNotFound")
            if not (self.folder / name).is_file():
                return self._say(handler, request, 404, "EntryNotFound")
            if name in self.broken:
                return self._say(handler, request, 503, "")
            if resolve and self.storage and name.endswith(self.redirected):
                handler.send_response(302)
                handler.send_header("Location", f"{self.storage}/storage/{name}?signature=s3cret")
                handler.send_header("X-Repo-Commit", COMMIT)
                handler.send_header("Content-Length", "0")
                handler.end_headers()
                request.status = 302
                return None
            return self._file(handler, request, name)
        return self._say(handler, request, 401, "RepoNotFound")

    def _say(self, handler, request, status: int, code: str) -> None:
        request.status = status
        handler.send_response(status)
        handler.send_header("X-Error-Code", code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _body(self, handler, request, content: bytes) -> None:
        request.status, request.sent = 200, len(content)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _file(self, handler, request, name: str) -> None:
        size = (self.folder / name).stat().st_size
        begin, end = 0, size
        asked = request.headers.get("Range")
        if asked and self.ranges:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(size, int(last) + 1 if last else size)
            if begin >= size:
                return self._say(handler, request, 416, "")
            request.status = 206
        else:
            request.status = 200
        handler.send_response(request.status)
        if request.status == 206:
            shift = 1 if self.wrong_range else 0
            handler.send_header("Content-Range", f"bytes {begin + shift}-{end - 1}/{size}")
        if not handler.path.startswith("/storage/"):
            handler.send_header("X-Repo-Commit", COMMIT)
        if self.lengths:
            handler.send_header("Content-Length", str(end - begin))
        handler.end_headers()
        limit = self.cut.pop(name, None)
        stop = end if limit is None else min(end, begin + limit)
        with (self.folder / name).open("rb") as file:
            file.seek(begin)
            while begin < stop:
                piece = file.read(min(1 << 16, stop - begin))
                if name in self.damage:
                    piece = bytes([piece[0] ^ 1]) + piece[1:]
                begin += len(piece)
                # Counted first: the client may look as soon as it has the last byte.
                request.sent += len(piece)
                try:
                    handler.wfile.write(piece)
                except OSError:  # the client has gone, as a killed one does
                    return None
        return None

    def _listing(self) -> dict[str, object]:
        siblings = []
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                content = path.read_bytes()
                name = path.relative_to(self.folder).as_posix()
                entry = {
                    "rfilename": name,
                    "size": self.sizes.get(name, len(content)),
                    "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
                }
                if name.endswith((".safetensors", ".pth")):
                    entry["lfs"] = {
                        "sha256": hashlib.sha256(content).hexdigest(),
                        "size": len(content),
                    }
                siblings.append(entry)
        return {"id": REPO, "sha": COMMIT, "siblings": siblings}


def _serve(hub: FakeHub):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hub.answer(self)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.origin = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server


@pytest.fixture
def serve(monkeypatch):
    """``serve(folder, **settings of FakeHub) -> FakeHub``; the first is the endpoint."""
    servers = []

    def start(folder: Path, **settings) -> FakeHub:
        hub = FakeHub(folder, **settings)
        servers.append(_serve(hub))
        if len(servers) == 1:
            monkeypatch.setenv("HF_ENDPOINT", hub.origin)
        assert hub.origin.startswith("http://127.0.0.1:")
        return hub

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    """No test sees the user's cache or token, and none reaches the real network."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    # Nobody listens on port 9 here: a test without a server of its own gets a refusal.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "home" / "hub"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small Hugging Face folder in several shards, with what repositories hold beside it."""
    from llama4_core.assembly.assemble import assemble
    from llama4_core.checkpoints.save import save
    from llama4_core.model.initialise import initialise
    from llama4_core.specs import (
        AttentionSpec,
        DenseSpec,
        LayerSpec,
        ModelSpec,
        RopeSpec,
        TemperatureSpec,
        TokenIds,
    )  # fmt: skip

    local = AttentionSpec("irope-chunked", 4, 2, 8, rope=RopeSpec(1e4), chunk=8, qk_norm=True)
    wide = AttentionSpec("nope-global", 4, 2, 8, temperature=TemperatureSpec(0.1, 4.0))
    spec = ModelSpec(
        name="small",
        vocabulary=20_000,
        width=64,
        norm_eps=1e-5,
        max_positions=64,
        tied=False,
        layers=tuple(LayerSpec(a, DenseSpec(48)) for a in (local, local, local, wide)),
        tokens=TokenIds(bos=1, eos=(2,)),
        dtype="float32",
    )
    model = assemble(spec, device="cpu")
    initialise(model, 0)
    folder = tmp_path_factory.mktemp("repository") / "small"
    save(model, folder, "huggingface", shard_bytes=100_000)
    (folder / "LICENSE").write_text("terms\n")
    (folder / "USE_POLICY.md").write_text("policy\n")
    (folder / "modeling_evil.py").write_text("raise SystemExit('code of a repository ran')\n")
    (folder / "consolidated.00.pth").write_bytes(b"pickle")
    (folder / "original").mkdir()
    (folder / "original" / "params.json").write_text("{}")
    (folder / "unused.safetensors").write_bytes(b"another format's weights")
    return folder
