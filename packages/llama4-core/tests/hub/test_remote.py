"""Reading by range: what is read, how much of it, and what a server may do wrong."""

import json
import math
import shutil
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llama4_core.checkpoints.keys import CONDITIONAL, huggingface_rows
from llama4_core.checkpoints.safetensors_file import map_tensors, read_header
from llama4_core.checkpoints.shards import INDEX, map_folder
from llama4_core.cli import main
from llama4_core.errors import CheckpointError
from llama4_core.hub.remote import FIRST, RemoteCheckpoint, fetch_tensors
from llama4_core.hub.resolve import cached, folder_of
from llama4_core.hub.settings import Repo
from llama4_core.hub.web import NotThereError
from llama4_core.specs.huggingface import huggingface_from_spec
from llama4_core.specs.presets import preset

REPO = "someone/small"
COMMIT = "c0ffee" + "0" * 34
LIMIT = 5_000_000


@pytest.fixture(scope="session")
def scout(tmp_path_factory):
    """Scout's published layout in 50 files, 217 GB of holes that take no room on the disk."""
    folder = tmp_path_factory.mktemp("layout") / "scout"
    folder.mkdir()
    spec = preset("scout")
    (folder / "config.json").write_text(json.dumps(huggingface_from_spec(spec)))
    rows = huggingface_rows(spec, CONDITIONAL)
    sizes = {row.theirs: 2 * math.prod(row.their_shape) for row in rows}
    share = sum(sizes.values()) / 50
    shards: list[dict[str, object]] = [{}]
    offset = 0
    for row in rows:
        if offset > share:
            shards.append({})
            offset = 0
        end = offset + sizes[row.theirs]
        shards[-1][row.theirs] = {
            "dtype": "BF16",
            "shape": list(row.their_shape),
            "data_offsets": [offset, end],
        }
        offset = end
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        text = json.dumps(shard).encode()
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + sum(sizes[key] for key in shard))
        weight_map.update(dict.fromkeys(shard, name))
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    yield folder
    shutil.rmtree(folder)


def test_inspecting_217_gigabytes_takes_under_5_megabytes(serve, scout, capsys):
    hub = serve(scout)
    assert main(["inspect", REPO, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert 217e9 < shown["remote"]["bytes"] < 218e9
    assert shown["parameters"]["total"] * 2 < shown["remote"]["bytes"]
    assert shown["remote"]["bytes_read"] == hub.sent
    assert hub.sent < LIMIT
    assert all(request.status in (206, 404) or request.sent < 300_000 for request in hub.requests)


def test_extracting_from_217_gigabytes_reads_only_that(serve, scout, tmp_path):
    hub = serve(scout)
    remote = RemoteCheckpoint(REPO)
    names = [
        name
        for name in remote.shapes
        if name.startswith("language_model.model.layers.7.self_attn.")
    ]
    assert len(names) == 4
    before = hub.sent
    names = [name for name in names if "k_proj" in name or "v_proj" in name]
    needed = 2 * sum(math.prod(remote.shapes[name]) for name in names)
    fetch_tensors(remote, names, tmp_path / "part.safetensors")
    assert hub.sent - before == needed
    assert before < LIMIT
    assert set(read_header(tmp_path / "part.safetensors").entries) == set(names)


def test_a_part_is_bit_for_bit_what_is_stored(serve, checkpoint, tmp_path):
    hub = serve(checkpoint)
    stored = map_folder(checkpoint)
    names = sorted(stored)[::2]
    remote = RemoteCheckpoint(REPO)
    remote.check()
    before, told = hub.sent, []
    out = tmp_path / "new" / "part.safetensors"
    fetch_tensors(remote, names, out, progress=lambda done, total: told.append((done, total)))
    got = map_tensors(read_header(out))
    assert sorted(got) == names
    assert all(torch.equal(got[name], stored[name]) for name in names)
    size = sum(stored[name].nbytes for name in names)
    assert hub.sent - before == size == remote.received - before
    assert told[-1] == (size, size)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_neighbours_are_read_with_one_request(serve, checkpoint, tmp_path):
    hub = serve(checkpoint)
    remote = RemoteCheckpoint(REPO)
    files = len(remote.headers)
    before = len(hub.requests)
    fetch_tensors(remote, remote.shapes, tmp_path / "all.safetensors")
    assert len(hub.requests) - before == files


def test_a_long_header_takes_a_second_range(serve, tmp_path):
    entries = {}
    for offset in range(1000):
        name = f"a.name.as.long.as.those.of.weights.{offset}"
        entries[name] = {"dtype": "U8", "shape": [1], "data_offsets": [offset, offset + 1]}
    text = json.dumps(entries).encode()
    assert len(text) > FIRST
    content = struct.pack("<Q", len(text)) + text + bytes(i % 256 for i in range(1000))
    (tmp_path / "model.safetensors").write_bytes(content)
    hub = serve(tmp_path)
    remote = RemoteCheckpoint(REPO)
    assert len(remote.shapes) == 1000
    ranges = [r.headers.get("Range") for r in hub.asked("model.safetensors")]
    assert ranges == [f"bytes=0-{FIRST - 1}", f"bytes={FIRST}-{7 + len(text)}"]


@pytest.mark.parametrize("redirected", [".safetensors", ""])
def test_the_state_is_pinned_at_the_first_answer(serve, checkpoint, redirected):
    """Also where only the redirect says which state it is."""
    hub = serve(checkpoint, redirected=redirected)
    hub.storage = serve(checkpoint).origin
    remote = RemoteCheckpoint(REPO)
    assert remote.spec.name == "small"
    assert remote.headers
    paths = [request.path for request in hub.requests if request.file.endswith("safetensors")]
    assert paths
    assert all(f"/resolve/{COMMIT}/" in path for path in paths)


def test_the_token_stays_with_the_hub(serve, checkpoint, monkeypatch, tmp_path):
    """Weights lie on another host; what the Hub may know, that host may not."""
    hub = serve(checkpoint, secret="right")
    storage = serve(checkpoint)
    hub.storage = storage.origin
    monkeypatch.setenv("HF_TOKEN", "right")
    remote = RemoteCheckpoint(REPO)
    fetch_tensors(remote, list(remote.shapes)[:1], tmp_path / "one.safetensors")
    assert storage.requests
    assert all("Authorization" not in request.headers for request in storage.requests)
    assert all("Range" in request.headers for request in storage.requests)
    assert all(request.headers["Authorization"] == "Bearer right" for request in hub.requests)
    folder = folder_of(Repo(REPO))
    assert map_folder(folder)
    assert all("Authorization" not in request.headers for request in storage.requests)


def test_the_token_follows_a_redirect_within_the_hub(serve, checkpoint, monkeypatch):
    hub = serve(checkpoint)
    hub.storage = hub.origin
    monkeypatch.setenv("HF_TOKEN", "right")
    assert RemoteCheckpoint(REPO).headers
    assert all(request.headers["Authorization"] == "Bearer right" for request in hub.requests)


def test_the_token_is_not_for_any_address(serve, checkpoint, monkeypatch):
    hub = serve(checkpoint)
    monkeypatch.setenv("HF_TOKEN", "right")
    remote = RemoteCheckpoint(f"{hub.origin}/storage/")
    remote.check()
    assert all("Authorization" not in request.headers for request in hub.requests)


def test_a_server_without_ranges_is_refused_before_a_byte_is_used(serve, scout):
    serve(scout, ranges=False)
    remote = RemoteCheckpoint(REPO)
    with pytest.raises(CheckpointError, match=r"ignores ranges .* whole file of [\d,]+ bytes"):
        _ = remote.headers
    # The description and the index, nothing of the body of 4 GB that the server began to send.
    small = sum((scout / name).stat().st_size for name in (INDEX,))
    assert remote.received == small


def test_a_server_with_other_ranges_is_refused(serve, checkpoint):
    serve(checkpoint, wrong_range=True)
    with pytest.raises(CheckpointError, match="were asked for, but the server sends 'bytes 1-"):
        _ = RemoteCheckpoint(REPO).headers


def test_a_lost_connection_leaves_no_file(serve, checkpoint, tmp_path):
    hub = serve(checkpoint)
    remote = RemoteCheckpoint(REPO)
    name = max(remote.shapes, key=lambda key: math.prod(remote.shapes[key]))
    file = json.loads((checkpoint / INDEX).read_text())["weight_map"][name]
    hub.cut[file] = 1000
    out = tmp_path / "out" / "part.safetensors"
    with pytest.raises(CheckpointError, match=r"the connection (ended|was lost)"):
        fetch_tensors(remote, [name], out)
    assert not list(out.parent.iterdir())


def test_what_cannot_be_fetched(serve, checkpoint, tmp_path, monkeypatch):
    serve(checkpoint)
    remote = RemoteCheckpoint(REPO)
    with pytest.raises(CheckpointError, match="holds no tensor 'nothing'"):
        fetch_tensors(remote, ["nothing"], tmp_path / "a")
    (tmp_path / "there").touch()
    with pytest.raises(CheckpointError, match="nothing is overwritten"):
        fetch_tensors(remote, [], tmp_path / "there")
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(CheckpointError, match=r"needs .* GB, but the disk has 0.00 GB free"):
        fetch_tensors(remote, remote.shapes, tmp_path / "b")


@given(noise=st.binary(max_size=64), length=st.integers(0, 2**64 - 1))
def test_any_damaged_header_is_one_clear_error(noise, length):
    """Through the same parser as local files; the reading in front of it is ours."""
    remote = RemoteCheckpoint("http://127.0.0.1:9/folder")
    content = struct.pack("<Q", length) + noise
    remote._web = _Canned(content)
    try:
        header = remote._header("model.safetensors")
    except CheckpointError:
        return
    assert header.data_start == 8 + length == len(content)


class _Canned:
    def __init__(self, content):
        self.content = content

    def get(self, _url, begin, end):
        import contextlib

        class Reply:
            size = len(self.content)

            @staticmethod
            def pieces():
                yield self.content[begin:end]

        return contextlib.nullcontext(Reply())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.norm.weight": None}, "missing"),
        ({"unknown.weight": "model-00001"}, "lacks the key 'unknown.weight'"),
        ({"model.norm.weight": "../x"}, "expected the name of a file beside it"),
    ],
)
def test_an_index_that_disagrees(serve, checkpoint, tmp_path, change, message):
    folder = tmp_path / "repository"
    shutil.copytree(checkpoint, folder)
    index = json.loads((folder / INDEX).read_text())
    shards = sorted(set(index["weight_map"].values()))
    for key, value in change.items():
        if value is None:
            assert index["weight_map"].pop(key, None) is not None
            message = "does not place there"
        else:
            index["weight_map"][key] = shards[0] if value == "model-00001" else value
    (folder / INDEX).write_text(json.dumps(index))
    serve(folder)
    with pytest.raises(CheckpointError, match=message):
        RemoteCheckpoint(REPO).check()


def test_a_description_that_does_not_fit(serve, checkpoint, tmp_path):
    folder = tmp_path / "repository"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] += 1
    (folder / "config.json").write_text(json.dumps(config))
    serve(folder)
    with pytest.raises(CheckpointError, match="embed_tokens"):
        RemoteCheckpoint(REPO).check()


def test_what_is_no_remote_place(monkeypatch):
    with pytest.raises(CheckpointError, match="neither a repository"):
        RemoteCheckpoint("nothing")
    with pytest.raises(CheckpointError, match="an address has no revision"):
        RemoteCheckpoint("http://127.0.0.1:9/x", "v1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE"):
        RemoteCheckpoint("http://127.0.0.1:9/x")


def run(capsys, *words):
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


def test_inspect_reads_the_cache_first_and_says_when_it_does_not(serve, checkpoint, capsys):
    hub = serve(checkpoint)
    code, out, _ = run(capsys, "inspect", REPO)
    assert code == 0
    assert "read by range: " in out
    assert f"stored at {REPO}" in out
    assert cached(Repo(REPO)) is None
    folder_of(Repo(REPO))
    before = len(hub.requests)
    code, out, _ = run(capsys, "inspect", REPO)
    assert code == 0
    assert "read by range" not in out
    assert "stored: " in out
    assert len(hub.requests) == before
    code, out, _ = run(capsys, "inspect", REPO, "--remote", "--revision", COMMIT)
    assert code == 0
    assert f"stored at {REPO}@{COMMIT}" in out
    assert len(hub.requests) > before


def test_an_address_is_no_way_out_of_a_folder(checkpoint, monkeypatch):
    """The last part of an address names the model, and a folder for the time of reading."""

    config = json.loads((checkpoint / "config.json").read_text())
    config.pop("_name_or_path", None)

    def read(name):
        if name == "config.json":
            return json.dumps(config).encode()
        raise NotThereError(name)

    remote = RemoteCheckpoint("http://127.0.0.1:9/a/..")
    monkeypatch.setattr(remote, "read_small", read)
    assert remote.spec.name == "remote"


def test_inspect_of_an_address(serve, checkpoint, capsys):
    hub = serve(checkpoint)
    code, out, _ = run(capsys, "inspect", f"{hub.origin}/storage")
    assert code == 0
    assert "read by range" in out


@pytest.mark.parametrize("words", [["scout", "--remote"], ["scout", "--revision", "v1"]])
def test_inspect_of_what_is_no_repository(capsys, words):
    code, _, err = run(capsys, "inspect", *words)
    assert code == 2
    assert "is not a repository" in err


def test_inspect_of_metas_format_reads_its_description(serve, tmp_path, capsys):
    from llama4_core.specs.meta import meta_from_spec

    (tmp_path / "params.json").write_text(json.dumps(meta_from_spec(preset("scout"))))
    hub = serve(tmp_path)
    code, out, err = run(capsys, "inspect", REPO, "--max-positions", "1000")
    assert (code, err) == (0, "")
    assert "pickle files, which are not read by range" in out
    assert {request.file for request in hub.requests} == {
        "spec.toml", "config.json", "params.json"
    }  # fmt: skip


def test_explain_downloads_no_weights(serve, checkpoint, capsys):
    hub = serve(checkpoint)
    code, out, _ = run(capsys, "explain", REPO)
    assert code == 0
    assert "irope-chunked" in out
    assert {request.file for request in hub.requests} == {"spec.toml", "config.json"}
