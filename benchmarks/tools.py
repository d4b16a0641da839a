"""Reading hostile text for tool calls: CPU time per megabyte of this thread.

    python benchmarks/tools.py [--parser auto] [--size 1048576] [--runs 3] [--json results.json]

Each text is one megabyte that a model in a loop, or a hostile user through it, may produce. It is
read as one chunk, in chunks of 64 characters, and one character at a time. The time is
``time.thread_time``, the fastest of the runs; the target is 100 ms for one chunk. ``json.loads`` of
a list of numbers of the same size, written in C, is a measure of the machine.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

from llama4_core.chat.tools import read_calls
from llama4_core.plugins.catalogue import catalogue

TARGET = 0.1


def texts(size: int) -> dict[str, str]:
    def repeated(piece: str) -> str:
        return (piece * (size // len(piece) + 1))[:size]

    return {
        "words": repeated("hello world "),
        "opening brackets": repeated("["),
        "opening angles": repeated("<"),
        "opening braces": repeated('{"'),
        "beginnings": repeated("[f("),
        "beginnings with strings": repeated('[f(a="'),
        "beginnings, quotes in turn": repeated("[f(a='[f(a=\""),
        "markers": repeated("<|python_start|>"),
        "nearly names": repeated("[" + "a" * 127),
        "nearly spaces": repeated("[" + " " * 63),
        "nested lists": repeated("[f(a=["),
        "a long list": "[f(a=[" + repeated("1,"),
        "unterminated string": '[f(a="' + repeated("x"),
        "backslashes": '[f(a="' + repeated("\\"),
        "escaped quotes": "[f(a='" + repeated("\\'") + "')]",
        "half surrogates": '[f(a="' + repeated("\\ud83d") + '")]',
        "quotes of threes": '[f(a="""' + repeated('"" '),
        "calls": repeated("[f(a=1)]"),
        "calls in JSON": repeated('{"name": "f", "parameters": {}}'),
        "calls far apart": repeated("[f()]" + " " * 60 + ";" + " " * 60),
        "one call, all string": '[f(a="' + repeated("line\\n") + '")]',
    }


def fastest(run: object, runs: int) -> float:
    found = []
    for _ in range(runs):
        start = time.thread_time()
        run()
        found.append(time.thread_time() - start)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parser", default="auto", help="component of the socket tool_parsers")
    parser.add_argument("--size", type=int, default=1 << 20, help="characters of each text")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.disable()  # the warnings at the limit

    build = catalogue().find("tool_parsers", arguments.parser).component.build
    numbers = "[" + "1," * (arguments.size // 2 - 1) + "1]"
    probe = fastest(lambda: json.loads(numbers), arguments.runs)
    print(f"json.loads of as many characters of numbers: {1e3 * probe:.1f} ms")
    print(f"{'CPU ms for ' + str(arguments.size):28} {'whole':>8} {'by 64':>8} {'by 1':>8}")
    rows = {}
    for name, text in texts(arguments.size).items():
        row = {}
        for title, step in (("whole", len(text)), ("by 64", 64), ("by 1", 1)):
            chunks = [text[i : i + step] for i in range(0, len(text), step)]
            runs = arguments.runs if step > 1 else 1
            row[title] = fastest(lambda chunks=chunks: read_calls(build(), chunks), runs)
        rows[name] = row
        print(f"{name:28} " + " ".join(f"{1e3 * row[title]:8.1f}" for title in row), flush=True)
    worst = max(rows, key=lambda name: rows[name]["whole"])
    slowest = rows[worst]["whole"]
    verdict = "within" if slowest < TARGET else "OVER"
    print(f"slowest: {worst}, {1e3 * slowest:.1f} ms: {verdict} {1e3 * TARGET:.0f} ms")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"probe": probe, "seconds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
