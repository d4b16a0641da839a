"""``llama4 inspect``: what a model is made of and what it costs. Imports without torch."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from llama4_core.cli.output import (
    add_json_option,
    add_plugin_option,
    catalogue_of,
    print_json,
    table,
)
from llama4_core.specs.accounting import Accounting, account
from llama4_core.specs.find import spec_from_path
from llama4_core.specs.model import AttentionSpec, ModelSpec, MoESpec

_GIB = 2**30
_LABELS = {8192: "8K", 131_072: "128K", 1_048_576: "1M", 10_485_760: "10M"}
_FORMATS = {
    "bf16": "every weight in 2 bytes",
    "fp8": "routed experts in 1 byte, a float32 scale per output row; the rest bf16",
    "int4": "routed and shared experts in 4 bits, a float32 scale per 128 inputs; the rest bf16",
}


class Command:
    """Prints the accounting of a shape, a folder or a file."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "model",
            help="a name (see llama4 models; NAME-text is its text model alone), a folder, or a "
            "config.json, params.json or .toml file",
        )
        parser.add_argument(
            "--max-positions",
            type=int,
            metavar="N",
            help="longest context, for a params.json that does not say it",
        )
        add_plugin_option(parser)
        add_json_option(parser)
        parser.epilog = "example:\n  llama4 inspect scout"

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the report."""
        spec = _find(arguments)
        costs = account(spec)
        if arguments.json:
            print_json(_plain(spec, costs))
        else:
            print(_report(spec, costs))
        return 0


def _find(arguments: argparse.Namespace) -> ModelSpec:
    name: str = arguments.model
    if Path(name).exists():
        return spec_from_path(name, max_positions=arguments.max_positions)
    known = catalogue_of(arguments)
    text_only = name.endswith("-text")
    found = known.find("models", name.removesuffix("-text") if text_only else name)
    built = found.component.build()
    spec = built if isinstance(built, ModelSpec) else spec_from_path(built)
    return spec.text_only() if text_only else spec


def _plain(spec: ModelSpec, costs: Accounting) -> dict[str, Any]:
    return {
        "name": spec.name,
        "illustrative": spec.illustrative,
        "parameters": {
            "total": costs.total,
            "text": costs.text,
            "active": costs.active,
            "parts": dict(costs.parts),
        },
        "weight_bytes": dict(costs.weight_bytes),
        "scale_bytes": dict(costs.scale_bytes),
        "cache_bytes_per_user": [
            {"length": entry.length, "full": entry.full, "bounded": entry.bounded}
            for entry in costs.cache
        ],
        "cache_bytes_per_token": costs.cache_bytes_per_token,
        "max_positions": spec.max_positions,
        "layers": [{"count": count, "kind": kind} for kind, count in _kinds(spec).items()],
    }


def _report(spec: ModelSpec, costs: Accounting) -> str:
    lines = [f"{spec.name}: {_count(costs.total)} parameters, {_count(costs.active)} active"]
    if spec.illustrative:
        lines.append("  illustrative: these numbers are inferred, not published")
    lines += ["", f"layers ({len(spec.layers)}), width {spec.width}"]
    lines.append(table((f"{count} x", kind) for kind, count in _kinds(spec).items()))
    if spec.vision is not None:
        v = spec.vision
        lines.append(f"  vision: {v.layers} layers, width {v.width}, {v.image_size} px tiles")

    lines += ["", "parameters"]
    parts = [(name, n) for name, n in costs.parts.items() if n]
    if costs.text != costs.total:
        parts.append(("text model", costs.text))
    parts += [("total", costs.total), ("active per text token", costs.active)]
    lines.append(table((name.replace("_", " "), _count(n), f"{n:,}") for name, n in parts))

    lines += ["", "weights"]
    lines.append(
        table(
            (name, f"{size / 1e9:.4g} GB", f"{size / _GIB:.4g} GiB", _FORMATS[name])
            for name, size in costs.weight_bytes.items()
        )
    )
    lines += ["", "keys and values of ONE user, bf16 (each user pays again)"]
    rows = [("tokens", "bounded by chunks", "unbounded", "")]
    for entry in costs.cache:
        beyond = (
            "beyond the context that the model claims" if entry.length > spec.max_positions else ""
        )
        rows.append(
            (
                _LABELS.get(entry.length, str(entry.length)),
                f"{entry.bounded / _GIB:.4g} GiB",
                f"{entry.full / _GIB:.4g} GiB",
                beyond,
            )
        )
    lines.append(table(rows))
    lines.append(f"  a further token of a long context: {costs.cache_bytes_per_token:,} bytes")
    lines += ["", "activations and the working memory of kernels come on top"]
    return "\n".join(lines)


def _kinds(spec: ModelSpec) -> Counter[str]:
    return Counter(
        f"{_attention(x.attention)}; {_feed_forward(x.feed_forward)}" for x in spec.layers
    )


def _attention(attention: AttentionSpec) -> str:
    if attention.mixer != "softmax":
        return attention.mixer
    text = f"{attention.variant}, {attention.heads}/{attention.kv_heads} heads"
    text += f" of {attention.head_dim}"
    if attention.chunk is not None:
        text += f", chunk {attention.chunk}"
    if attention.window is not None:
        text += f", window {attention.window}"
    return text + (", QK norm" if attention.qk_norm else "")


def _feed_forward(feed_forward: Any) -> str:
    if isinstance(feed_forward, MoESpec):
        moe = feed_forward
        shared = f" + shared {moe.shared_width}" if moe.shared_width else ""
        return f"{moe.experts} experts of {moe.width}, top {moe.top_k}{shared}"
    return f"dense {feed_forward.width}"


def _count(number: int) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.3f}{unit}"
    return str(number)
