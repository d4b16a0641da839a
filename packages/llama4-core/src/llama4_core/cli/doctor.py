"""``llama4 doctor``: what one pastes into a bug report."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llama4_core.cli.output import (
    add_json_option,
    add_plugin_option,
    catalogue_of,
    print_json,
    table,
)
from llama4_core.plugins.catalogue import OURS, Catalogue
from llama4_core.protocols.problems import AttentionProblem, ExpertProblem

LIBRARIES = (
    "torch",
    "numpy",
    "safetensors",
    "tokenizers",
    "pluggy",
    "tiktoken",
    "transformers",
    "triton",
    "xformers",
)
# Instruction sets that decide which CPU kernels torch can use.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")
# Scout's shapes: what a backend has to say about the case that matters most.
ATTENTION = AttentionProblem(
    heads=40,
    kv_heads=8,
    head_dim=128,
    dtype="bfloat16",
    mask_kinds=frozenset({"Causal", "Chunked", "SameDocument"}),
)
EXPERTS = ExpertProblem(experts=16, top_k=1, hidden=5120, width=8192, dtype="bfloat16", tokens=256)


class Command:
    """Describes the machine, the installation, and who would run Scout here."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        add_plugin_option(parser)
        add_json_option(parser)
        parser.epilog = "example:\n  llama4 doctor --json > doctor.json"

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the description."""
        found = examine(catalogue_of(arguments))
        if arguments.json:
            print_json(found)
        else:
            print(_text(found))
        return 0


def examine(known: Catalogue) -> dict[str, Any]:
    """Everything that the report shows, as plain values."""
    torch = _torch()
    devices = ["cpu", *(["cuda"] if torch.get("cuda") else [])]
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpu": _cpu(),
        "memory_gib": _memory_gib(),
        "torch": torch,
        "packages": _versions(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("LLAMA4_")
            or name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        },
        "plugins": [
            {"distribution": s.distribution, "version": s.version, "origin": s.origin}
            for s in known.sources
        ],
        "problems": [
            {"distribution": p.distribution, "origin": p.origin, "reason": p.reason}
            for p in known.problems
        ],
        "clashes": known.clashes(),
        "backends": {
            device: {
                "attention_backends": _verdicts(
                    known, "attention_backends", replace(ATTENTION, device=device)
                ),
                "expert_backends": _verdicts(
                    known, "expert_backends", replace(EXPERTS, device=device)
                ),
            }
            for device in devices
        },
    }


def _verdicts(known: Catalogue, socket: str, problem: Any) -> list[dict[str, Any]]:
    """Per candidate: why it refuses the problem without and with gradients (None: it runs)."""
    return [
        {
            "name": entry.full_name,
            "refusal": entry.component.refusal(problem),
            "refusal_with_gradients": entry.component.refusal(replace(problem, grad=True)),
            "considered_by_auto": entry.allowed,
        }
        for entry in known.components(socket)
    ]


def _torch() -> dict[str, Any]:
    """Version and devices of torch; a broken installation is a finding, not an end."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    cuda = [
        {
            "name": torch.cuda.get_device_name(index),
            "capability": ".".join(map(str, torch.cuda.get_device_capability(index))),
            "memory_gib": round(torch.cuda.get_device_properties(index).total_memory / 2**30, 1),
        }
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda_build": torch.version.cuda,
        "cuda": cuda,
    }


def _cpu() -> dict[str, Any]:
    model, flags = platform.processor() or platform.machine(), set[str]()
    try:
        described = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        described = ""
    for line in described.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
            break
    return {
        "model": model,
        "cores": os.cpu_count(),
        "flags": {name: name in flags for name in FLAGS} if flags else {},
    }


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # not POSIX
        return None


def _versions() -> dict[str, str | None]:
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in (*sorted(OURS), *LIBRARIES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _text(found: Mapping[str, Any]) -> str:
    cpu, torch = found["cpu"], found["torch"]
    flags = " ".join(f"{n}={'yes' if has else 'no'}" for n, has in cpu["flags"].items())
    lines = [
        f"python    {found['python']} ({sys.executable})",
        f"platform  {found['platform']}",
        f"cpu       {cpu['model']}, {cpu['cores']} cores; {flags or 'flags unknown'}",
        f"memory    {found['memory_gib']} GiB",
    ]
    if "error" in torch:
        lines.append(f"torch     cannot be imported: {torch['error']}")
    else:
        lines.append(
            f"torch     {torch['version']}, {torch['threads']} threads, {torch['cpu_capability']}, "
            f"CUDA build {torch['cuda_build'] or 'none'}"
        )
        lines += [
            f"device    {d['name']}, capability {d['capability']}, {d['memory_gib']} GiB"
            for d in torch["cuda"]
        ]
    present = [(name, version) for name, version in found["packages"].items() if version]
    absent = [name for name, version in found["packages"].items() if not version]
    lines += ["packages", table(present), f"  not installed: {', '.join(absent) or 'none'}"]
    if found["environment"]:
        lines += ["environment", table(found["environment"].items())]
    lines += [
        "plugins",
        table((p["distribution"], p["version"][:19], p["origin"]) for p in found["plugins"]),
    ]
    for problem in found["problems"]:
        lines.append(f"  ! {problem['distribution']}: {problem['reason']}")
    for socket, names in found["clashes"].items():
        for name, distributions in names.items():
            lines.append(f"  ! {socket} {name!r} is offered by {', '.join(distributions)}")
    for device, sockets in found["backends"].items():
        for socket, verdicts in sockets.items():
            lines.append(f"{socket} for Scout's shapes in bfloat16 on {device}")
            lines.append(table((v["name"], _verdict(v)) for v in verdicts) or "  (none installed)")
    return "\n".join(lines)


def _verdict(verdict: Mapping[str, Any]) -> str:
    without, with_gradients = verdict["refusal"], verdict["refusal_with_gradients"]
    if without is None and with_gradients is None:
        return "runs"
    if without is None:
        return f"runs without gradients; with them: {with_gradients}"
    return f"refused: {without}"
