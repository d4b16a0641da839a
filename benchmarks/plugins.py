"""What a listing costs: `llama4 plugins` as a new process, beside a bare interpreter and torch.

    python benchmarks/plugins.py [--runs 10] [--json results.json]

Each run starts three processes in turn: the interpreter alone (the floor), the listing, and
`import torch` (what the listing would cost if a plugin's hook imported it). CPU time is user plus
system time of the child; the medians are printed, with wall time and the ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

TARGET_SECONDS = 0.3
PROCESSES = {
    "interpreter": ["-c", "pass"],
    "llama4 plugins": ["-m", "llama4_core.cli", "plugins"],
    "import torch": ["-c", "import torch"],
}


def once(arguments: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one child process."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = (
        after.children_user - before.children_user + after.children_system - before.children_system
    )
    return cpu, time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"

    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROCESSES}
    for words in PROCESSES.values():  # fill the caches of bytecode and files
        once(words)
    for _ in range(arguments.runs):
        for name, words in PROCESSES.items():
            taken[name].append(once(words))

    results = {
        name: {
            "cpu_s": round(statistics.median(cpu for cpu, _ in runs), 3),
            "wall_s": round(statistics.median(wall for _, wall in runs), 3),
        }
        for name, runs in taken.items()
    }
    ours = results["llama4 plugins"]["cpu_s"]
    for name, result in results.items():
        ratio = result["cpu_s"] / ours
        print(f"{name:15} cpu {result['cpu_s']:.3f} s  wall {result['wall_s']:.3f} s  {ratio:.2f}x")
    print(
        f"target: {TARGET_SECONDS} s of CPU time: {'met' if ours <= TARGET_SECONDS else 'MISSED'}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
