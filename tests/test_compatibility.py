"""Plugins that were built for a contract keep working without being built again."""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llama4_core.plugins import SOCKETS, Component

FOLDER = Path(__file__).resolve().parent.parent / "compatibility"
WHEELS = sorted((FOLDER / "wheels").glob("*.whl"))
FROZEN = {
    "llama4_attention_blockwise-0.1.0-py3-none-any.whl": ("attention_backends", "blockwise", 1),
    "llama4_hash_router-0.1.0-py3-none-any.whl": ("routers", "hash", 1),
}
"""Wheel -> socket, name, contract."""

LISTING = """
import json
from llama4_core import catalogue
from llama4_core.plugins import SOCKETS
known = catalogue()
print(json.dumps({
    "offered": [
        [e.socket, e.name, e.distribution, e.component.contract]
        for s in SOCKETS for e in known.components(s)
        if e.distribution not in ("llama4-core", "llama4-moe")
    ],
    "problems": [[p.distribution, p.reason] for p in known.problems],
}))
"""


def write_wheel(folder: Path, name: str, contract: int) -> Path:
    """A wheel of a plugin with one router of the given contract."""
    stem = name.replace("-", "_")
    code = (
        "from llama4_core.plugins import Component, hookimpl\n\n\n"
        "@hookimpl\ndef llama4_routers():\n"
        f"    yield Component('future', 'llama4_moe:MoE', contract={contract})\n"
    )
    files = {
        f"{stem}.py": code,
        f"{stem}-1.0.dist-info/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n",
        f"{stem}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
        f"{stem}-1.0.dist-info/entry_points.txt": f"[llama4]\nfuture = {stem}\n",
    }
    files[f"{stem}-1.0.dist-info/RECORD"] = "".join(f"{path},,\n" for path in files)
    place = folder / f"{stem}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(place, "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return place


def install(target: Path, *wheels: Path) -> dict[str, str]:
    """The environment of a process that sees these wheels installed, before anything else.

    Without dependencies: what a contract promises must not depend on the ranges that an author
    wrote down.
    """
    words = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps"]
    words += ["--target", str(target), *map(str, wheels)]
    subprocess.run([sys.executable, *words], check=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LLAMA4_")}
    return kept | {"PYTHONPATH": str(target), "OMP_NUM_THREADS": "1"}


def listing(environment: dict[str, str], code: str = LISTING) -> dict[str, list[list[str]]]:
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return install(tmp_path_factory.mktemp("frozen"), *WHEELS)


def test_the_wheels_are_those_that_were_frozen() -> None:
    sums = dict(line.split()[::-1] for line in (FOLDER / "SHA256SUMS").read_text().splitlines())
    assert sums == {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in WHEELS}
    assert sums.keys() == FROZEN.keys()
    assert sum(path.stat().st_size for path in WHEELS) < 100_000


def test_a_component_that_states_no_contract_is_of_contract_1() -> None:
    assert Component("x", "a:B").contract == 1


def test_frozen_wheels_are_offered_or_refused_by_their_contract(frozen: dict[str, str]) -> None:
    found = listing(frozen)
    for socket, name, contract in FROZEN.values():
        place = SOCKETS[socket]
        offered = [entry for entry in found["offered"] if entry[:2] == [socket, name]]
        if place.oldest <= contract <= place.current:
            assert [entry[3] for entry in offered] == [contract]
        else:
            assert not offered
            assert any(f"contract {contract}" in reason for _, reason in found["problems"])


def test_frozen_wheels_pass_the_kit(frozen: dict[str, str]) -> None:
    supported = [
        f"{socket}:{name}"
        for socket, name, contract in FROZEN.values()
        if SOCKETS[socket].oldest <= contract <= SOCKETS[socket].current
    ]
    words = ["-q", "-p", "no:cacheprovider", "-p", "llama4_core.testing.plugin"]
    words += ["--pyargs", "llama4_core.testing.conformance"]
    words += [word for component in supported for word in ("--component", component)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=frozen["PYTHONPATH"],
        env=frozen | {"LLAMA4_KIT_EXAMPLES": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


def test_the_code_that_runs_is_that_of_the_wheel(frozen: dict[str, str]) -> None:
    code = """
import importlib, json
names = ["llama4_attention_blockwise.backend", "llama4_hash_router.router"]
print(json.dumps({"files": [[importlib.import_module(name).__file__] for name in names]}))
"""
    for (file,) in listing(frozen, code)["files"]:
        assert Path(file).is_relative_to(frozen["PYTHONPATH"])


@pytest.mark.parametrize("contract", [0, SOCKETS["routers"].current + 1])
def test_a_foreign_contract_is_refused_with_both_numbers(contract: int, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, "llama4-future", contract)
    environment = install(tmp_path / "installed", wheel)
    found = listing(environment)
    assert not any(entry[1] == "future" for entry in found["offered"])
    (reason,) = [reason for owner, reason in found["problems"] if owner == "llama4-future"]
    oldest, current = SOCKETS["routers"].oldest, SOCKETS["routers"].current
    assert f"written for contract {contract} of routers" in reason
    assert f"understands {oldest} to {current}" in reason
    # Asking for it says the same, in one line and with exit code 2.
    command = [sys.executable, "-m", "llama4_core.cli", "check", "router:future"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"contract {contract}" in done.stderr
    assert done.stderr.count("\n") == 1
