"""Kills a conversion at many points and goes on after each; run by test_stream.py as a script.

    python kill_points.py SOURCE FOLDER FORMAT POINTS SEED [SHARDS]

Every system call that changes a file is a point. A forked child dies at its k-th, as by a power
switch: no handler runs. A second child may die again, a third finishes. Prints a line of JSON.
"""

from __future__ import annotations

import io
import json
import os
import pathlib
import random
import shutil
import sys

import torch

torch.set_num_threads(1)  # a fork keeps no other threads

from llama4_core.checkpoints import joined, stream  # noqa: E402
from llama4_core.checkpoints.convert import convert  # noqa: E402
from llama4_core.plugins.catalogue import catalogue  # noqa: E402


class Counter:
    """Counts the points; leaves the process at one of them."""

    def __init__(self, last: int | None) -> None:
        self.count = 0
        self.last = last

    def point(self) -> None:
        self.count += 1
        if self.count == self.last:
            os._exit(9)


def wrapped(call, counter):
    def inner(*args, **settings):
        counter.point()
        return call(*args, **settings)

    return inner


def arm(counter: Counter) -> None:
    for place, name in (
        (os, "fsync"),
        (os, "pwrite"),
        (os, "ftruncate"),
        (os, "open"),
        (torch, "save"),
        (shutil, "copyfile"),
        (pathlib.Path, "replace"),
        (pathlib.Path, "unlink"),
        (pathlib.Path, "mkdir"),
        (pathlib.Path, "write_text"),
        (pathlib.Path, "open"),
    ):
        setattr(place, name, wrapped(getattr(place, name), counter))

    def torn(handle, raw, offset):
        """Half of the piece is written when the power fails."""
        handle.seek(offset)
        half = len(raw) // 2
        handle.write(raw[:half])
        counter.point()
        handle.write(raw[half:])

    stream._write = torn


def child(work) -> int:
    """The exit status of ``work`` in a process of its own."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    source, root, form = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    points, seed = int(sys.argv[4]), int(sys.argv[5])
    shards = int(sys.argv[6]) if len(sys.argv) > 6 else None
    joined.PIECE_BYTES = 2048
    joined.pieces.__defaults__ = (2048,)
    stream.PIECE_BYTES, stream.SYNC_BYTES = 2048, 20_000
    catalogue()

    def run(target, last=None, tell=None):
        counter = Counter(last)
        arm(counter)
        convert(source, target, form, shards=shards, shard_bytes=60_000)
        if tell is not None:
            io.FileIO(tell, "w").write(str(counter.count).encode())

    expected, tell = root / "whole", root / "points"
    assert child(lambda: run(expected, tell=tell)) == 0
    total = int(tell.read_bytes())
    reference = {path.name: path.read_bytes() for path in expected.iterdir()}
    generator = random.Random(seed)
    chosen = sorted(generator.sample(range(1, total + 1), points))
    for number, point in enumerate(chosen):
        target = root / f"killed-{number}"
        assert child(lambda t=target, p=point: run(t, p)) == 9, point
        again = generator.randrange(1, total + 1)
        status = child(lambda t=target, p=again: run(t, p))
        if status == 9:
            status = child(lambda t=target: run(t))
        # Killed after everything was done, a folder in use is all that can be said.
        done = target.is_dir() and not list(root.glob(f".{target.name}*"))
        assert status == 0 or done, (point, again, status)
        found = {path.name: path.read_bytes() for path in target.iterdir()}
        assert found == reference, (point, again)
        assert not list(root.glob(f".{target.name}*")), point
        shutil.rmtree(target)
    print(json.dumps({"points": total, "killed": len(chosen), "first": chosen[0],
                      "last": chosen[-1]}))  # fmt: skip


if __name__ == "__main__":
    main()
