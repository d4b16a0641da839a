"""Progress of writing weights, on one line: part done, bytes, rate, time left."""

from __future__ import annotations

import argparse
import sys
import time

SOURCE = (
    "folder with a checkpoint in any known format; a model that ships with its weights; or a "
    "repository org/name[@revision], which is downloaded unless it is in the local cache"
)


class Progress:
    """Rewrites a line on terminals and is silent elsewhere. Called with bytes done and in total.

    As a context it leaves the line at the end, so that an error has one of its own.
    """

    def __init__(self) -> None:
        self.total = 0
        self._begin: tuple[float, int] | None = None
        self._shown = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Shows where the work is, at most five times a second."""
        self.total = total
        now = time.monotonic()
        if self._begin is None:
            # What an earlier attempt wrote is passed over at once and would spoil the rate.
            self._begin = (now, done)
        if not sys.stderr.isatty() or (now - self._shown < 0.2 and done < total):
            return
        self._shown = now
        print(f"\r{line(done, total, *self._begin, now)}\x1b[K", end="", file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print(file=sys.stderr)


def line(done: int, total: int, began: float, begun_at: int, now: float) -> str:
    """The text of the line.

    Args:
        done: bytes written.
        total: bytes to write.
        began: seconds on the clock at the first call.
        begun_at: bytes that were done then.
        now: seconds on the clock.
    """
    share = done / total if total else 1.0
    text = f"[{'#' * int(25 * share):25}] {share:4.0%} {done / 1e9:.2f} of {total / 1e9:.2f} GB"
    if now > began and done > begun_at:
        rate = (done - begun_at) / (now - began)
        left = int((total - done) / rate)
        text += f", {rate / 1e6:,.0f} MB/s, {left // 60}:{left % 60:02} left"
    return text


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds how to read a checkpoint: ``--from`` and ``--max-positions``."""
    parser.add_argument(
        "--from",
        dest="source_format",
        metavar="FORMAT",
        help="format of the source; found out by itself, except for Meta's, whose files are "
        "pickle: say --from meta (nothing in them is ever run)",
    )
    parser.add_argument(
        "--max-positions",
        type=int,
        metavar="N",
        help="longest context, for a params.json that does not say it",
    )


def add_target_options(parser: argparse.ArgumentParser) -> None:
    """Adds how to write one: ``--format`` and ``--shard-mib``."""
    parser.add_argument(
        "--format",
        default="native",
        help="checkpoint format to write: native (default), huggingface or meta, or a plugin's",
    )
    parser.add_argument(
        "--shard-mib",
        type=int,
        default=4096,
        help="about how large a file may become, in MiB (default 4096)",
    )
