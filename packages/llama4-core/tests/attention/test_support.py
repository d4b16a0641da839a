"""Who refuses what, and that asking needs no torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from llama4_core.attention import support
from llama4_core.protocols.problems import AttentionProblem

PLAIN = AttentionProblem(10, 2, 64)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("eager", {}, None),
        ("eager", {"grad": True, "lse": True, "score_terms": frozenset({"Odd"})}, None),
        ("eager", {"key_layout": "paged"}, "paged"),
        ("eager", {"heads": 5}, "not a multiple"),
        ("sdpa", {}, None),
        ("sdpa", {"grad": True}, None),
        ("sdpa", {"lse": True}, None),
        ("sdpa", {"lse": True, "grad": True}, "no gradient"),
        ("sdpa", {"score_terms": frozenset({"Sink"})}, None),
        ("sdpa", {"score_terms": frozenset({"Sink"}), "grad": True}, "no gradient"),
        ("sdpa", {"score_terms": frozenset({"SoftCap"})}, "SoftCap"),
        ("sdpa", {"mask_kinds": frozenset({"Prefix"})}, "Prefix"),
        ("sdpa", {"key_layout": "paged"}, "paged"),
        ("sdpa", {"dtype": "float8_e4m3fn"}, "float8"),
        ("sdpa", {"device": "mps"}, "mps"),
        ("flex", {"grad": True}, "no backward on CPU"),
        ("flex", {"score_terms": frozenset({"Odd"})}, "Odd"),
        ("flex", {"dtype": "float64"}, "float64"),
        ("xformers", {}, "CUDA device"),
        ("xformers", {"device": "cuda", "dtype": "float32"}, "float32"),
        ("xformers", {"device": "cuda", "mask_kinds": frozenset({"SlidingWindow"})}, "Sliding"),
        ("xformers", {"device": "cuda", "score_terms": frozenset({"Sink"})}, "Sink"),
    ],
)
def test_reasons(name, changes, reason):
    found = getattr(support, f"{name}_supports")(replace(PLAIN, **changes))
    assert (found is None) if reason is None else (reason in found)


def test_flex_on_a_cpu_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(support, "compiler", lambda: None)
    assert "C++ compiler" in support.flex_supports(PLAIN)
    monkeypatch.setattr(support, "compiler", lambda: "/usr/bin/g++")
    assert support.flex_supports(PLAIN) is None


def test_the_compiler_that_is_named_goes_first(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert support.compiler() is None
    mine = tmp_path / "my-c++"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("CXX", "my-c++")
    assert support.compiler() == str(mine)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("0.0.34", "older"),
        ("0.0.35", None),
        ("0.0.35.post1", None),
        ("0.0.35+cu130", None),
        ("0.0.36", "mslk"),
        ("0.1.0", "mslk"),
        (None, "not installed"),
    ],
)
def test_the_version_of_xformers(monkeypatch, version, reason):
    monkeypatch.setattr(support.importlib.util, "find_spec", lambda name: version)
    monkeypatch.setattr(support.importlib.metadata, "version", lambda name: version)
    found = support.xformers_missing()
    assert (found is None) if reason is None else (reason in found)


def test_asking_imports_no_torch():
    code = (
        "import sys; from llama4_core.attention import support, pieces; "
        "from llama4_core.protocols.problems import AttentionProblem as P; "
        "[getattr(support, n)(P(4, 2, 8)) for n in dir(support) if n.endswith('_supports')]; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
