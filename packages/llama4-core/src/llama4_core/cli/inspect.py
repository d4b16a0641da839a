"""``llama4 inspect``: what a model is made of and what it costs. Imports without torch."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.cli.output import (
    add_json_option,
    add_plugin_option,
    catalogue_of,
    print_json,
    table,
)
from llama4_core.errors import CheckpointError
from llama4_core.hub.resolve import cached
from llama4_core.hub.settings import is_address, repo_of
from llama4_core.specs.accounting import Accounting, account
from llama4_core.specs.find import is_named, spec_from_path, spec_named
from llama4_core.specs.model import AttentionSpec, ModelSpec, MoESpec

if TYPE_CHECKING:
    from llama4_core.checkpoints.describe import Stored
    from llama4_core.hub.remote import RemoteCheckpoint

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
            "config.json, params.json or .toml file, or a repository org/name[@revision] or the "
            "http address of a folder: what is not in the local cache is read by range, without "
            "its weights",
        )
        parser.add_argument(
            "--remote",
            action="store_true",
            help="read a repository over the network even if it is in the local cache",
        )
        parser.add_argument("--revision", help="branch, tag or commit of a repository")
        parser.add_argument(
            "--from",
            dest="source_format",
            choices=["meta"],
            help="look into the pickle files of Meta's format too (nothing in them is run)",
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
        remote = _remote(arguments)
        spec = _find(arguments) if remote is None else remote.spec
        stored = None if remote is None else _stored(remote)
        here = None if remote is not None else _stored_here(arguments)
        costs = account(spec)
        if arguments.json:
            plain = _plain(spec, costs)
            if here is not None:
                plain["stored"] = asdict(here)
            print_json(plain if stored is None else {**plain, "remote": stored})
        else:
            print(_report(spec, costs))
            if stored is not None:
                print(_report_stored(stored))
            if here is not None:
                print(_report_here(here))
        return 0


def _remote(arguments: argparse.Namespace) -> RemoteCheckpoint | None:
    """The checkpoint to read by range, if one is meant; what is here wins over what is there."""
    name: str = arguments.model
    repo = None if is_address(name) else repo_of(name, arguments.revision)
    here = repo is not None and (Path(name).exists() or _is_installed(arguments))
    if here or (repo is None and not is_address(name)):
        if arguments.remote or arguments.revision is not None:
            option = "--remote" if arguments.remote else "--revision"
            raise CheckpointError(
                f"{name}: is not a repository (org/name) of the Hub; leave {option} out"
            )
        return None
    if repo is not None and not arguments.remote and cached(repo) is not None:
        return None
    from llama4_core.hub.remote import RemoteCheckpoint

    return RemoteCheckpoint(name, arguments.revision, max_positions=arguments.max_positions)


def _is_installed(arguments: argparse.Namespace) -> bool:
    return is_named(arguments.model, catalogue_of(arguments))


def _stored(remote: RemoteCheckpoint) -> dict[str, Any]:
    """What the headers say, after comparing them with the description."""
    if remote.description == "params.json":
        return {"place": remote.name, "files": 0, "bytes_read": remote.received}
    remote.check()
    entries = [entry for header in remote.headers.values() for entry in header.entries.values()]
    dtypes = Counter(str(entry.dtype).removeprefix("torch.") for entry in entries)
    return {
        "place": remote.name,
        "files": len(remote.headers),
        "bytes": remote.nbytes,
        "tensors": len(entries),
        "dtypes": dict(dtypes),
        "bytes_read": remote.received,
    }


def _report_stored(stored: dict[str, Any]) -> str:
    lines = ["", f"stored at {stored['place']}"]
    if stored["files"]:
        dtypes = ", ".join(f"{count} {name}" for name, count in stored["dtypes"].items())
        size = f"{stored['files']} files, {stored['bytes'] / 1e9:.4g} GB"
        lines.append(f"  {size}; {stored['tensors']} tensors ({dtypes}), as described")
    else:
        lines.append("  weights in Meta's format: pickle files, which are not read by range")
    lines.append(f"  read by range: {stored['bytes_read']:,} bytes; no weights were downloaded")
    return "\n".join(lines)


def _stored_here(arguments: argparse.Namespace) -> Stored | None:
    """What a folder of this machine holds, if it holds weights; only then is torch imported."""
    folder: Path | None = Path(arguments.model)
    pickles = arguments.source_format == "meta"
    if not Path(arguments.model).exists() and not _is_installed(arguments):
        repo = repo_of(arguments.model, arguments.revision)
        folder = None if repo is None else cached(repo, pickles=pickles) or cached(repo)
    if (
        folder is None
        or not folder.is_dir()
        or not any(path.suffix in (".safetensors", ".pth") for path in folder.iterdir())
    ):
        return None
    from llama4_core.checkpoints.describe import describe

    return describe(folder, pickle=pickles)


def _report_here(here: Stored) -> str:
    lines = ["", f"stored: {here.files} files of {here.kind}, {here.nbytes / 1e9:.4g} GB"]
    if here.read:
        dtypes = ", ".join(f"{count} {name}" for name, count in here.dtypes)
        lines.append(f"  {here.tensors} keys ({dtypes}), {here.vision} of them vision")
    else:
        lines.append("  pickle files, not looked into; --from meta counts their keys, running none")
    return "\n".join(lines)


def _find(arguments: argparse.Namespace) -> ModelSpec:
    name: str = arguments.model
    if Path(name).exists():
        return spec_from_path(name, max_positions=arguments.max_positions)
    repo = None if _is_installed(arguments) else repo_of(name, arguments.revision)
    folder = None if repo is None else cached(repo)
    if folder is not None:
        return spec_from_path(folder, max_positions=arguments.max_positions)
    return spec_named(name, catalogue_of(arguments))


def _plain(spec: ModelSpec, costs: Accounting) -> dict[str, Any]:
    return {
        "name": spec.name,
        "illustrative": spec.illustrative,
        "parameters": {
            "total": costs.total,
            "text": costs.text,
            "active": costs.active,
            "parts": dict(costs.parts),
            "unknown": list(costs.unknown),
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
        other = "".join(f", {slot} {name!r}" for slot, name in v.foreign_parts)
        lines.append(
            f"  vision: {v.layers} layers, width {v.width}, {v.image_size} px tiles{other}"
        )

    lines += ["", "parameters"]
    parts = [(name, n) for name, n in costs.parts.items() if n]
    if costs.text != costs.total:
        parts.append(("text model", costs.text))
    parts += [("total", costs.total), ("active per text token", costs.active)]
    lines.append(table((name.replace("_", " "), _count(n), f"{n:,}") for name, n in parts))

    if costs.unknown:
        lines.append(f"  not counted, as only the component knows: {', '.join(costs.unknown)}")

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
