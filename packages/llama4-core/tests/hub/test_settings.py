"""What counts as a repository, and what the environment says."""

import subprocess
import sys
from pathlib import Path

import pytest

from llama4_core.errors import CheckpointError
from llama4_core.hub import settings
from llama4_core.hub.settings import Repo, repo_of


@pytest.mark.parametrize(
    ("text", "repo"),
    [
        ("org/name", Repo("org/name")),
        ("meta-llama/Llama-4-Scout-17B-16E", Repo("meta-llama/Llama-4-Scout-17B-16E")),
        ("org/name@v1.0", Repo("org/name", "v1.0")),
        ("org/name@refs/pr/1", Repo("org/name", "refs/pr/1")),
        ("name", None),
        ("./name", None),
        ("../name", None),
        ("/org/name", None),
        ("~/name", None),
        ("a/b/c", None),
        ("org/..", None),
        ("org/na..me", None),
        ("org/na--me", None),
        ("org/name/", None),
        ("org\\name", None),
        ("org/na me", None),
    ],
)
def test_what_is_a_repository(text, repo):
    assert repo_of(text) == repo


@pytest.mark.parametrize("revision", ["../../etc", "a..b", "/root", "a b", "-x", "a\n"])
def test_a_revision_cannot_leave_the_cache(revision):
    with pytest.raises(CheckpointError, match="not the name of a branch"):
        repo_of("org/name", revision)


def test_two_revisions_are_an_error():
    assert repo_of("org/name@a", "a") == Repo("org/name", "a")
    with pytest.raises(CheckpointError, match="names revision 'a', but 'b'"):
        repo_of("org/name@a", "b")


def test_the_cache_follows_the_variables(monkeypatch):
    assert settings.cache_folder() == settings.home() / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", "/elsewhere")
    assert settings.cache_folder() == Path("/elsewhere")
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert settings.cache_folder() == Path("/caches/huggingface/hub")


def test_the_cache_and_token_are_those_of_huggingface_hub(tmp_path):
    """Both, in a fresh interpreter with the same variables, name the same places."""
    code = (
        "from huggingface_hub import constants, get_token\n"
        "from llama4_core.hub import settings\n"
        "print(constants.HF_HUB_CACHE == str(settings.cache_folder()),\n"
        "      constants.ENDPOINT == settings.endpoint(),\n"
        "      get_token() == settings.token() == 'abc',\n"
        "      constants.HF_HUB_OFFLINE == settings.offline())\n"
    )
    (tmp_path / "token").write_text("abc\n")
    environment = {
        "HF_HOME": str(tmp_path),
        "HF_ENDPOINT": "http://127.0.0.1:9/",
        "HF_HUB_OFFLINE": "yes",
        "PATH": "",
    }
    out = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["True"] * 4


def test_the_token(monkeypatch):
    assert settings.token() is None
    settings.home().mkdir(parents=True)
    (settings.home() / "token").write_text("stored\n")
    assert settings.token() == "stored"
    monkeypatch.setenv("HF_TOKEN", " given ")
    assert settings.token() == "given"
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    assert settings.token() is None


@pytest.mark.parametrize("address", ["huggingface.co", "ftp://host", "file:///etc", "http://"])
def test_an_endpoint_is_an_http_address(monkeypatch, address):
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(CheckpointError, match="HF_ENDPOINT is"):
        settings.endpoint()


def test_resolving_imports_no_torch():
    code = (
        "import sys, llama4_core.hub.resolve, llama4_core.hub.download, llama4_core.cli.inspect\n"
        "print('torch' in sys.modules, 'huggingface_hub' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
