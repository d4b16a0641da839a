"""From a repository id to a folder: cache, download, and everything that can go wrong."""

import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llama4_core.checkpoints.convert import convert
from llama4_core.checkpoints.load import load, resolve
from llama4_core.cli import main
from llama4_core.errors import CheckpointError
from llama4_core.hub import download as downloading
from llama4_core.hub.resolve import INDEX, cached, folder_of, is_complete
from llama4_core.hub.settings import Repo, repo_of

# What the Hub of conftest.py serves.
REPO = "someone/small"
COMMIT = "c0ffee" + "0" * 34
SMALL = Repo(REPO)


def shards(folder):
    return sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))


def largest(folder):
    return max(shards(folder), key=lambda name: (folder / name).stat().st_size)


def test_a_download_is_a_cache_folder_and_the_second_time_needs_no_network(
    serve, checkpoint, own_cache
):
    hub = serve(checkpoint)
    told = []
    folder = folder_of(SMALL, progress=lambda done, total: told.append((done, total)))
    root = own_cache / "models--someone--small"
    assert folder == root / "snapshots" / COMMIT
    assert (root / "refs" / "main").read_text() == COMMIT
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", INDEX, "LICENSE", "USE_POLICY.md", *shards(checkpoint)}
    for name in names:
        assert (folder / name).read_bytes() == (checkpoint / name).read_bytes()
        assert (folder / name).is_symlink()
    assert not list(root.rglob("*.incomplete"))
    total = sum((checkpoint / name).stat().st_size for name in shards(checkpoint))
    assert told[-1] == (total, total)
    assert told == sorted(told)
    before = len(hub.requests)
    assert folder_of(SMALL) == folder
    assert folder_of(Repo(REPO, COMMIT)) == folder
    assert len(hub.requests) == before


def test_a_repository_is_converted(serve, checkpoint, tmp_path):
    serve(checkpoint)
    assert main(["convert", REPO, str(tmp_path / "one")]) == 0
    convert(folder_of(SMALL), tmp_path / "two")
    for path in (tmp_path / "two").iterdir():
        assert (tmp_path / "one" / path.name).read_bytes() == path.read_bytes()
    assert (tmp_path / "one" / "LICENSE").is_file()


def test_huggingface_hub_finds_what_was_downloaded(serve, checkpoint, own_cache):
    from huggingface_hub import scan_cache_dir, try_to_load_from_cache

    serve(checkpoint)
    folder = folder_of(SMALL)
    found = try_to_load_from_cache(REPO, "config.json", cache_dir=own_cache)
    assert found == str(folder / "config.json")
    (repo,) = scan_cache_dir(own_cache).repos
    assert repo.repo_id == REPO
    assert not scan_cache_dir(own_cache).warnings


def test_what_huggingface_hub_downloaded_is_found(serve, checkpoint, own_cache):
    # The layout as its own code makes it; its downloads would need more of a Hub than ours has.
    from huggingface_hub.file_download import _create_symlink, repo_folder_name

    hub = serve(checkpoint)

    root = own_cache / repo_folder_name(repo_id=REPO, repo_type="model")
    assert root.name == SMALL.folder
    snapshot = root / "snapshots" / COMMIT
    for place in (root / "blobs", snapshot, root / "refs"):
        place.mkdir(parents=True)
    for name in ("config.json", INDEX, *shards(checkpoint)):
        content = (checkpoint / name).read_bytes()
        blob = root / "blobs" / hashlib.sha256(content).hexdigest()
        blob.write_bytes(content)
        _create_symlink(str(blob), str(snapshot / name), new_blob=True)
    (root / "refs" / "main").write_text(COMMIT)
    assert resolve(REPO) == snapshot
    assert not hub.requests


def test_loading_a_repository_runs_no_code_of_it(serve, checkpoint, tmp_path):
    hub = serve(checkpoint)
    model = load(REPO)
    for name in ("modeling_evil.py", "consolidated.00.pth", "unused.safetensors"):
        assert not hub.asked(name)
    tokens = torch.tensor([1, 2, 3])
    for name in ("config.json", INDEX, *shards(checkpoint)):
        shutil.copyfile(checkpoint / name, tmp_path / name)
    assert torch.equal(model.logits(tokens), load(tmp_path).logits(tokens))


@pytest.mark.parametrize("revision", [COMMIT, "refs/pr/1"])
def test_a_revision(serve, checkpoint, own_cache, revision):
    hub = serve(checkpoint)
    folder = resolve(REPO, revision=revision)
    assert resolve(f"{REPO}@{revision}") == folder
    assert folder.name == COMMIT
    assert cached(SMALL) is None
    quoted = revision.replace("/", "%2F")
    assert hub.requests[0].path == f"/api/models/{REPO}/revision/{quoted}?blobs=true"
    references = own_cache / SMALL.folder / "refs"
    assert references.exists() == (revision != COMMIT)


def test_partial_snapshots_are_not_complete(serve, checkpoint):
    serve(checkpoint)
    folder = folder_of(SMALL)
    assert cached(SMALL) == folder
    for name in ("config.json", INDEX, shards(checkpoint)[0], shards(checkpoint)[-1]):
        link = (folder / name).readlink()
        (folder / name).unlink()
        assert not is_complete(folder), f"without {name}"
        (folder / name).symlink_to("../../blobs/nothing")
        assert not is_complete(folder), f"{name} points at nothing"
        assert cached(SMALL) is None
        (folder / name).unlink()
        (folder / name).symlink_to(link)
        assert is_complete(folder)


def test_what_a_partial_snapshot_holds_is_not_fetched_again(serve, checkpoint):
    hub = serve(checkpoint)
    folder = folder_of(SMALL)
    lost = shards(checkpoint)[1]
    (folder / lost).resolve().unlink()
    hub.requests.clear()
    assert folder_of(SMALL) == folder
    assert [request.file for request in hub.requests] == ["main", lost]


def kill_after(limit, environment):
    """Downloads in another process, which kills itself when it has ``limit`` bytes."""
    code = (
        "import os, signal\n"
        "from llama4_core.hub.resolve import folder_of\n"
        "from llama4_core.hub.settings import Repo\n"
        "def told(done, total):\n"
        f"    if done >= {limit}: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"folder_of(Repo({REPO!r}), progress=told)\n"
    )
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.95])
def test_a_killed_download_goes_on_where_it_was(serve, checkpoint, own_cache, fraction):
    hub = serve(checkpoint)
    sizes = {name: (checkpoint / name).stat().st_size for name in shards(checkpoint)}
    total = sum(sizes.values())
    ended = kill_after(int(total * fraction), dict(os.environ))
    assert ended.returncode == -signal.SIGKILL
    assert cached(SMALL) is None
    assert not (own_cache / SMALL.folder / "refs").exists()
    blobs = own_cache / SMALL.folder / "blobs"
    kept = sum(p.stat().st_size for p in blobs.iterdir() if p.stat().st_size >= 1 << 16)
    parts = list(blobs.glob("*.incomplete"))
    assert len(parts) == 1
    assert parts[0].stat().st_size > 0
    hub.requests.clear()
    folder = folder_of(SMALL)
    for name in sizes:
        assert (folder / name).read_bytes() == (checkpoint / name).read_bytes()
    weights = [request for request in hub.requests if request.file in sizes]
    fetched = sum(request.sent for request in weights)
    assert fetched < total
    assert fetched <= total - kept + (1 << 16) * len(sizes)
    assert not parts[0].exists()


def test_a_lost_connection_goes_on_with_a_range(serve, checkpoint):
    name = largest(checkpoint)
    hub = serve(checkpoint, cut={name: 1_500_000})
    folder = folder_of(SMALL)
    first, second = hub.asked(name)
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=1500000-"
    assert first.sent + second.sent == (checkpoint / name).stat().st_size
    assert (folder / name).read_bytes() == (checkpoint / name).read_bytes()


def test_a_server_that_cannot_go_on_starts_again(serve, checkpoint, caplog):
    name = largest(checkpoint)
    hub = serve(checkpoint, cut={name: 1_500_000}, ranges=False)
    told = []
    folder = folder_of(SMALL, progress=lambda done, total: told.append((done, total)))
    assert (folder / name).read_bytes() == (checkpoint / name).read_bytes()
    assert "starting again from 0" in caplog.text
    assert told[-1][0] == told[-1][1]
    assert len(hub.asked(name)) == 3


def test_a_bad_line_to_such_a_server_ends(serve, checkpoint):
    hub = serve(checkpoint, cut=Always(1_500_000), ranges=False)
    with pytest.raises(CheckpointError, match="cannot go on in the middle; try again"):
        folder_of(SMALL)
    # Each time a beginning, and a range that is not honoured.
    assert len(hub.asked(largest(checkpoint))) == 2 * downloading.ATTEMPTS


class Always(dict):
    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def pop(self, *_):
        return self.limit


def test_a_dead_server_ends_with_what_is_kept(serve, checkpoint, own_cache):
    name = largest(checkpoint)
    hub = serve(checkpoint, broken={name})
    with pytest.raises(
        CheckpointError, match=r"HTTP 503 .*; 0 of [\d,]+ bytes are kept: try again"
    ):
        folder_of(SMALL)
    assert len(hub.asked(name)) == downloading.ATTEMPTS
    assert cached(SMALL) is None


def test_damage_on_the_way_is_noticed_and_removed(serve, checkpoint, own_cache):
    name = largest(checkpoint)
    hub = serve(checkpoint, damage={name})
    with pytest.raises(CheckpointError, match="arrived with the hash"):
        folder_of(SMALL)
    assert not list(own_cache.rglob("*.incomplete"))
    hub.damage.clear()
    assert folder_of(SMALL)


def test_a_damaged_part_is_noticed(serve, checkpoint, own_cache):
    """A part of something else, the right length: only the hash can tell."""
    name = largest(checkpoint)
    serve(checkpoint)
    etag = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
    part = own_cache / SMALL.folder / "blobs" / f"{etag}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    with pytest.raises(CheckpointError, match="arrived with the hash"):
        folder_of(SMALL)
    assert not part.exists()


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("difference", [-1, 1])
def test_another_size_than_listed_is_an_error(serve, checkpoint, told, difference):
    name = largest(checkpoint)
    size = (checkpoint / name).stat().st_size
    listed = size - difference
    serve(checkpoint, sizes={name: listed}, ranges=False, lengths=told)
    if told:
        message = rf"has {size:,} bytes, but the Hub lists {listed:,}"
    elif difference > 0:
        message = rf"sends more than the {listed:,} bytes"
    else:
        message = rf"ends at byte {size:,} of the {listed:,}|cannot go on in the middle"
    with pytest.raises(CheckpointError, match=message):
        folder_of(SMALL)
    assert cached(SMALL) is None


def test_the_disk_is_checked_before_a_byte_of_weights(serve, checkpoint, monkeypatch):
    hub = serve(checkpoint)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    with pytest.raises(CheckpointError, match=r"needs \d+\.\d\d GB more, but .* has 0\.00 GB free"):
        folder_of(SMALL)
    assert not [request for request in hub.requests if request.file.endswith(".safetensors")]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("known", [False, True])
def test_a_gated_repository_says_what_to_do(serve, checkpoint, monkeypatch, status, known):
    serve(checkpoint, secret="right", gated=True, refused=status)
    if known:
        monkeypatch.setenv("HF_TOKEN", "wrong-token")
    with pytest.raises(CheckpointError, match=rf"gated \(HTTP {status}\); open its page") as error:
        folder_of(SMALL)
    assert ("check that the token may read it" in str(error.value)) == known
    assert ("hf auth login" in str(error.value)) != known
    assert "wrong-token" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "right")
    assert folder_of(SMALL)


def test_a_private_repository_looks_like_none(serve, checkpoint):
    serve(checkpoint, secret="right", refused=401)
    with pytest.raises(
        CheckpointError, match=r"no such folder here, and on the Hub: .*private one"
    ):
        resolve(REPO)


def test_no_such_repository(serve, checkpoint):
    serve(checkpoint)
    with pytest.raises(
        CheckpointError, match=r"no such folder here, and on the Hub: .*check the name"
    ):
        resolve("nobody/nothing")


def test_no_such_revision(serve, checkpoint):
    serve(checkpoint)
    with pytest.raises(CheckpointError, match="no such revision"):
        resolve(REPO, revision="v9")


def test_no_connection(own_cache):
    with pytest.raises(CheckpointError, match=r"no connection .*check the network, or HF_ENDPOINT"):
        resolve(REPO)


@pytest.mark.parametrize("value", ["1", "true", "ON"])
def test_offline(serve, checkpoint, monkeypatch, value):
    hub = serve(checkpoint)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE forbids the network; unset it"):
        resolve(REPO)
    assert not hub.requests
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    folder = resolve(REPO)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert resolve(REPO) == folder


def test_without_the_extra(serve, checkpoint, monkeypatch):
    hub = serve(checkpoint)
    real = importlib.import_module

    def absent(name, *rest):
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(downloading.importlib, "import_module", absent)
    with pytest.raises(CheckpointError, match=r'pip install "llama4-core\[hub\]"'):
        resolve(REPO)
    assert not hub.requests


def test_pickles_only_when_asked_for(serve, tmp_path, own_cache):
    folder = tmp_path / "meta"
    folder.mkdir()
    (folder / "params.json").write_text("{}")
    for number in range(2):
        (folder / f"consolidated.{number:02d}.pth").write_bytes(b"pickle %d" % number)
    serve(folder)
    with pytest.raises(CheckpointError, match=r"no \*\.safetensors files; it holds \*\.pth files"):
        folder_of(SMALL)
    found = folder_of(SMALL, pickles=True)
    names = {path.name for path in found.iterdir()}
    assert names == {"params.json", "consolidated.00.pth", "consolidated.01.pth"}
    assert cached(SMALL, pickles=True) == found
    assert cached(SMALL) is None
    (found / "consolidated.01.pth").resolve().unlink()
    assert cached(SMALL, pickles=True) is None


def test_names_that_are_no_names_are_left_out(serve, checkpoint, monkeypatch, own_cache):
    hub = serve(checkpoint)
    listing = hub._listing()
    bad = {"size": 1, "blobId": "0" * 40}
    for name in (
        "../escape.json",
        "a/b.json",
        "/etc/x.json",
        "..\\x.json",
        ".hidden.json",
        None,
        "",
    ):
        listing["siblings"].append({"rfilename": name, **bad})
    monkeypatch.setattr(hub, "_listing", lambda: listing)
    found = {path.name for path in folder_of(SMALL).iterdir()}
    assert found == {"config.json", INDEX, "LICENSE", "USE_POLICY.md", *shards(checkpoint)}


def test_a_hash_that_is_a_path_is_refused(serve, checkpoint, monkeypatch):
    hub = serve(checkpoint)
    listing = hub._listing()
    listing["siblings"].append({"rfilename": "x.json", "size": 1, "blobId": "../../x"})
    monkeypatch.setattr(hub, "_listing", lambda: listing)
    with pytest.raises(CheckpointError, match="no size and hash of x"):
        folder_of(SMALL)


def test_an_index_of_files_that_are_not_there(serve, checkpoint, tmp_path):
    folder = tmp_path / "short"
    shutil.copytree(checkpoint, folder)
    (folder / shards(folder)[2]).unlink()
    serve(folder)
    with pytest.raises(CheckpointError, match=r"names .*, which the repository does not hold"):
        folder_of(SMALL)


def test_a_folder_and_a_model_win_over_a_repository(serve, checkpoint, tmp_path, monkeypatch):
    hub = serve(checkpoint)
    monkeypatch.chdir(tmp_path)
    (tmp_path / REPO).mkdir(parents=True)
    assert resolve(REPO) == Path(REPO)
    assert resolve("llama4-core/scout").name.startswith("scout")
    assert not hub.requests
    for name in (REPO, "scout"):
        with pytest.raises(CheckpointError, match="which has no revision 'v1'"):
            resolve(name, revision="v1")


def test_what_is_nothing_at_all():
    assert repo_of("nothing") is None
    with pytest.raises(CheckpointError, match=r"neither a folder, a known model nor a repository"):
        resolve("nothing")
