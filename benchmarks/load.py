"""Loading a large native checkpoint: seconds and anonymous memory, beside the classic way.

    python benchmarks/load.py [--gb 4] [--runs 3] [--folder DIR] [--skip WAY] [--json results.json]

Writes a checkpoint of about ``--gb`` gigabytes (layers in Scout's pattern, each with 16 experts
of width 4,096 at width 2,048, bfloat16) to a temporary folder, and the same weights as transformers
stores them; then loads each in fresh processes and takes the fastest:

* ours: ``llama4_core.load`` of the native folder; mapped and assigned, nothing copied
* mapped: ``llama4_core.load`` of the Hugging Face folder as it stands, experts transposed
* classic: the model with memory of its own (``to_empty``), and ``copy_`` of every weight
* transformers: ``from_pretrained`` of the Hugging Face folder

Seconds are wall time of the call, after imports: each process first assembles the shape ``nano``
without memory (for transformers: builds a model of one small layer), so that no module is imported
within the measured call. Anonymous memory is the growth of RssAnon in /proc/self/status; the pages
of mapped files are not in it, the kernel drops them when it needs to. The files lie in the page
cache, as they do when they were just written.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import math
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET_SECONDS = 0.1
WAYS = ("ours", "mapped", "classic", "transformers")


def anonymous() -> int:
    """Anonymous resident bytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("/proc/self/status has no RssAnon; this benchmark needs Linux")


def write(folder: Path, gigabytes: float) -> int:
    """Writes both folders, each tensor from a small buffer; returns bytes of one."""
    import torch

    from llama4_core.checkpoints.convert import convert
    from llama4_core.checkpoints.keys import native_shapes
    from llama4_core.checkpoints.save import write_checkpoint
    from llama4_core.specs import ModelSpec, MoESpec
    from llama4_core.specs.layers import every, llama4_layers
    from llama4_core.specs.model import RopeSpec, TemperatureSpec

    def spec(layers: int) -> ModelSpec:
        return ModelSpec(
            name="large",
            vocabulary=8192,
            width=2048,
            norm_eps=1e-5,
            max_positions=65_536,
            tied=False,
            dtype="bfloat16",
            layers=llama4_layers(
                layers,
                heads=16,
                kv_heads=4,
                head_dim=128,
                rope=RopeSpec(500_000.0),
                chunk=8192,
                qk_norm=True,
                temperature=TemperatureSpec(0.1, 8192),
                position_free=every(4, layers),
                moe_layers=every(1, layers),
                moe=MoESpec(16, 1, 4096, 4096, "sigmoid-top-k"),
                dense=None,
            ),
        )

    def size(shapes: dict[str, tuple[int, ...]]) -> int:
        return sum(2 * torch.Size(shape).numel() for shape in shapes.values())

    one, two = size(native_shapes(spec(1))), size(native_shapes(spec(2)))
    layers = max(1, math.ceil((gigabytes * 1e9 - (2 * one - two)) / (two - one)))
    chosen = spec(layers)
    noise = torch.randn(8192 * 4096, generator=torch.Generator().manual_seed(0)).bfloat16()
    tensors = {}
    for name, shape in native_shapes(chosen).items():
        # A bank repeats one expert: what is loaded counts here, not what it says.
        matrix = shape[1:] if len(shape) == 3 else shape
        values = noise[: torch.Size(matrix).numel()].view(matrix)
        tensors[name] = values.expand(shape) if len(shape) == 3 else values
    write_checkpoint(tensors, chosen, folder / "native", "native")
    convert(folder / "native", folder / "huggingface", "huggingface")
    return size(native_shapes(chosen))


def child(way: str, folder: Path) -> None:
    """Loads once and prints seconds and anonymous growth as JSON."""
    import torch

    if way == "transformers":
        from transformers import AutoModelForCausalLM, Llama4ForCausalLM, Llama4TextConfig
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        small = {"hidden_size": 64, "intermediate_size": 64, "intermediate_size_mlp": 64}
        Llama4ForCausalLM(Llama4TextConfig(num_hidden_layers=1, pad_token_id=0, vocab_size=64,
                                           num_local_experts=2, **small))  # fmt: skip
    else:
        import llama4_core as l4
        from llama4_core.checkpoints.formats import detect
        from llama4_core.checkpoints.native import NativeFormat

        l4.assemble("nano")
        detect(folder / "native")
    before = anonymous()
    start, cpu = time.perf_counter(), time.process_time()
    if way == "ours":
        model = l4.load(folder / "native")
    elif way == "mapped":
        model = l4.load(folder / "huggingface")
    elif way == "classic":
        form = NativeFormat()
        spec = form.read_spec(folder / "native")
        model = l4.assemble(spec).to_empty(device="cpu")
        stored = form.tensors(folder / "native", spec)
        with torch.no_grad():
            for name, weight in model.state_dict().items():
                weight.copy_(stored[name])
    else:
        model = AutoModelForCausalLM.from_pretrained(folder / "huggingface", dtype=torch.bfloat16)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    grown = anonymous() - before
    print(json.dumps({
        "seconds": seconds,
        "cpu_seconds": cpu,
        "anonymous_bytes": grown,
        "weight_bytes": sum(w.nbytes for w in model.parameters()),
    }))  # fmt: skip


def main() -> None:
    """Runs every way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=4.0)
    parser.add_argument("--runs", type=int, default=3, help="processes for each way")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    parser.add_argument("--skip", nargs="*", default=[], choices=WAYS)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.folder)
        return
    folder = Path(tempfile.mkdtemp(prefix="llama4-load-", dir=arguments.folder))
    found: dict[str, dict[str, float]] = {}
    try:
        start = time.perf_counter()
        total = write(folder, arguments.gb)
        print(f"wrote 2 x {total / 1e9:.2f} GB in {time.perf_counter() - start:.1f} s")
        for way in WAYS:
            if way in arguments.skip:
                continue
            command = [sys.executable, __file__, "--child", way, "--folder", str(folder)]
            rows = []
            for _ in range(arguments.runs):
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
            row = found[way] = min(rows, key=lambda row: row["seconds"])
            print(
                f"{way:13} {row['seconds']:8.3f} s wall {row['cpu_seconds']:8.3f} s CPU "
                f"{row['anonymous_bytes'] / 1e6:10.1f} MB anonymous"
            )
    finally:
        shutil.rmtree(folder)
    ours = found.get("ours")
    if ours:
        met = ours["seconds"] < TARGET_SECONDS and ours["anonymous_bytes"] < 0.01 * total
        print(f"target: under {TARGET_SECONDS} s, no anonymous copy: {'met' if met else 'MISSED'}")
    if arguments.json:
        report = {
            "benchmark": "load",
            "machine": platform.processor() or platform.machine(),
            "python": platform.python_version(),
            "weight_bytes": total,
            "ways": found,
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
