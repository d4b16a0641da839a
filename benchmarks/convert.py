"""Converting one full-size layer of Scout: peak anonymous memory and rate.

    python benchmarks/convert.py [--experts 4 16] [--folder DIR] [--json results.json]

For each number of experts: a checkpoint of one layer (width 5,120, experts of width 8,192,
bfloat16, a vocabulary of 2,048; 1.4 GB with 4 experts, 4.4 GB with 16) in the Hugging Face layout,
then in fresh processes

* huggingface -> native: every expert transposed
* native -> meta in 8 shards: every weight cut
* meta -> huggingface: every weight joined

Anonymous memory is VmHWM's part that belongs to no file: RssAnon of /proc/self/status, read by a
thread every two milliseconds while the conversion runs; the table says the peak and the growth
since before the call. The last folder has to be the first, byte for byte. Needs free disk for twice
the layer and as much again; each folder is removed when it is done with.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import filecmp
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

TARGET_BYTES = 1024**3


def anonymous() -> int:
    """Anonymous resident bytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status has no RssAnon; this benchmark needs Linux")


def make(folder: Path, experts: int) -> int:
    """Writes the Hugging Face folder from a small buffer; returns its bytes of weights."""
    import torch

    from llama4_core.checkpoints.keys import native_shapes
    from llama4_core.checkpoints.save import write_checkpoint
    from llama4_core.specs import ModelSpec, MoESpec
    from llama4_core.specs.layers import llama4_layers
    from llama4_core.specs.model import RopeSpec

    spec = ModelSpec(
        name="huggingface",
        vocabulary=2048,
        width=5120,
        norm_eps=1e-5,
        max_positions=65_536,
        tied=False,
        dtype="bfloat16",
        layers=llama4_layers(
            1,
            heads=40,
            kv_heads=8,
            head_dim=128,
            rope=RopeSpec(500_000.0),
            chunk=8192,
            qk_norm=True,
            temperature=None,
            position_free=(),
            moe_layers=(0,),
            moe=MoESpec(experts, 1, 8192, 8192, "sigmoid-top-k"),
            dense=None,
        ),
    )
    noise = torch.randn(16_384 * 5120, generator=torch.Generator().manual_seed(0)).bfloat16()
    tensors = {}
    for name, shape in native_shapes(spec).items():
        matrix = shape[1:] if len(shape) == 3 else shape
        values = noise[: torch.Size(matrix).numel()].view(matrix)
        # A bank repeats one expert: what is converted counts here, not what it says.
        tensors[name] = values.expand(shape) if len(shape) == 3 else values
    write_checkpoint(tensors, spec, folder, "huggingface")
    return sum(2 * torch.Size(shape).numel() for shape in native_shapes(spec).values())


def child(source: Path, target: Path, settings: dict[str, object]) -> None:
    """Converts once; prints seconds and memory as JSON."""
    from llama4_core.checkpoints.convert import convert
    from llama4_core.plugins.catalogue import catalogue

    catalogue()
    before = peak = anonymous()
    running = True

    def watch() -> None:
        nonlocal peak
        while running:
            peak = max(peak, anonymous())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start, cpu = time.perf_counter(), time.process_time()
    try:
        convert(source, target, **settings)  # type: ignore[arg-type]
    finally:
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        running = False
        watcher.join()
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "peak": peak,
                      "growth": peak - before}))  # fmt: skip


def measure(root: Path, experts: int) -> list[dict[str, object]]:
    """All three conversions of a layer with ``experts`` experts."""
    size = make(root / "huggingface", experts)
    steps: list[tuple[str, str, dict[str, object]]] = [
        ("huggingface", "native", {"format": "native"}),
        ("native", "meta", {"format": "meta", "shards": 8}),
        ("meta", "back", {"format": "huggingface", "source_format": "meta"}),
    ]
    rows: list[dict[str, object]] = []
    for source, target, settings in steps:
        done = subprocess.run(
            [sys.executable, __file__, "--child", str(root / source), str(root / target),
             json.dumps(settings)],
            check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        found = json.loads(done.stdout.splitlines()[-1])
        if source != "huggingface":
            shutil.rmtree(root / source)
        rows.append({"experts": experts, "from": source, "to": target, "bytes": size, **found})
        print(
            f"{experts:3} experts  {source:>11} -> {target:7} {size / 1e9:5.2f} GB "
            f"{found['seconds']:7.1f} s {size / 1e6 / found['seconds']:6.0f} MB/s   "
            f"peak {found['peak'] / 2**20:5.0f} MiB anonymous "
            f"({found['growth'] / 2**20:.0f} MiB more than before)",
            flush=True,
        )
    names = sorted(path.name for path in (root / "huggingface").glob("*.safetensors"))
    _, differing, broken = filecmp.cmpfiles(root / "huggingface", root / "back", names, False)
    if differing or broken:
        raise SystemExit(f"not the same bytes: {differing + broken}")
    print(f"{experts:3} experts  back again: {len(names)} files, the same bytes")
    return rows


def main() -> None:
    """Measures each number of experts in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        source, target, settings = arguments.child
        child(Path(source), Path(target), json.loads(settings))
        return
    rows: list[dict[str, object]] = []
    for experts in arguments.experts:
        root = Path(tempfile.mkdtemp(prefix="llama4-convert-", dir=arguments.folder))
        try:
            rows += measure(root, experts)
        finally:
            shutil.rmtree(root)
    peak = max(int(str(row["peak"])) for row in rows)
    met = peak <= TARGET_BYTES
    print(f"target: at most 1 GiB anonymous: {'met' if met else 'MISSED'} ({peak / 2**20:.0f} MiB)")
    if arguments.json:
        report = {
            "benchmark": "convert",
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "rows": rows,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
