"""Llama 4's tokenizer by its two engines: loading, speed, and time that grows with the length.

    python benchmarks/tokenizer.py [--model tokenizer.model] [--size 200000] [--megabytes 1]
                                   [--pairs 3] [--json results.json]

load      from a file of ranks: reading it, and building the engine (tokenizers derives merges)
encode    text of this repository, MB of UTF-8 per second of CPU time, with the peer's library alone
decode    ids of the same text, at once and as a stream
linear    runs of one character and ordinary text at 1/4, 1/2 and all of a million characters: the
          exponent of the growth (1 is linear, 2 is squared)

Without ``--model`` the ranks are made here: tokens of the lengths of a real vocabulary, joined from
the text of this repository and then at random, so speeds are those of a vocabulary as large as the
published one, not of that one. Times are of one thread (``time.thread_time``); ours and the peer
run in turn, ratios are medians over neighbouring runs.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import math
import platform
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import regex
import tiktoken
import tokenizers
from _measure import paired, seconds, write

from llama4_core.tokenizers import read_ranks, write_ranks
from llama4_core.tokenizers.merges import merges
from llama4_core.tokenizers.meta import (
    PATTERN,
    MetaTokenizer,
    byte_pair_tokenizer,
    tiktoken_encoder,
    tokenizers_encoder,
)

ROOT = Path(__file__).resolve().parent.parent
ENGINES = {"tokenizers": tokenizers_encoder, "tiktoken": tiktoken_encoder}
UNITS = {"a": "a", "space": " ", "digit": "1", "upper": "A", "newline": "\n", "cjk": "日"}
CHARACTERS = 1_000_000


def corpus(megabytes: float) -> str:
    """Prose, code and data of this repository, again and again until it is long enough."""
    files = sorted([*ROOT.glob("packages/*/src/**/*.py"), *ROOT.glob("docs/*.md")])
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    wanted = int(megabytes * 1e6)
    return (text * (wanted // len(text) + 1))[:wanted]


def made_ranks(size: int, text: str) -> tuple[bytes, ...]:
    """Tokens that grow by joining earlier ones: words of the text first, then random ones."""
    ranks = [bytes((byte,)) for byte in range(256)]
    known = set(ranks)
    pieces = Counter(regex.findall(PATTERN, text))
    for piece, _ in pieces.most_common():
        word = piece.encode()[:24]
        # Left to right, as frequent beginnings are joined first.
        for end in range(2, len(word) + 1):
            if word[:end] not in known and len(ranks) < size:
                known.add(word[:end])
                ranks.append(word[:end])
    draw = random.Random(0)
    letters = [bytes((byte,)) for byte in b" etaoinshrdlucmfwygpbvk"]
    pool = [*letters]
    while len(ranks) < size:
        # Short ones mostly: a real vocabulary's tokens have six or seven bytes on average.
        left = pool[int(len(pool) * draw.random() ** 2)]
        right = pool[int(len(pool) * draw.random() ** 6)]
        token = left + right
        if token in known or len(token) > draw.randrange(2, 14) or b" " in token[1:]:
            continue
        known.add(token)
        ranks.append(token)
        pool.append(token)
    return tuple(ranks)


def exponent(encode: Callable[[str], Sequence[int]], text: str) -> tuple[float, float]:
    """Growth of the time from a quarter to the whole of ``text``, and seconds of the whole."""
    sizes = (len(text) // 4, len(text) // 2, len(text))
    times = [min(seconds(lambda n=n: encode(text[:n])) for _ in range(2)) for n in sizes]
    return math.log(times[-1] / times[0]) / math.log(sizes[-1] / sizes[0]), times[-1]


def load_rows(path: Path, pairs: int) -> list[dict[str, Any]]:
    ranks = read_ranks(path)
    rows = [
        {"case": "read", "s": min(seconds(lambda: read_ranks(path)) for _ in range(pairs))},
        {"case": "merges", "s": min(seconds(lambda: merges(ranks)) for _ in range(pairs))},
    ]
    for name, engine in ENGINES.items():
        best = min(
            seconds(lambda engine=engine: MetaTokenizer(ranks, engine)) for _ in range(pairs)
        )
        rows.append({"case": f"build {name}", "s": best})
    for row in rows:
        print(f"load    {row['case']:18} {row['s']:6.2f} s")
    return rows


def encode_rows(ours: dict[str, MetaTokenizer], ranks: Any, text: str, pairs: int) -> list[Any]:
    size = len(text.encode()) / 1e6
    library = byte_pair_tokenizer(ranks)
    plain = tiktoken.Encoding(
        "plain",
        pat_str=PATTERN,
        mergeable_ranks={token: rank for rank, token in enumerate(ranks)},
        special_tokens={},
    )
    peers = {"tokenizers": lambda: library.encode(text), "tiktoken": lambda: plain.encode(text)}
    rows = []
    for name, tokenizer in ours.items():
        runs = [
            (seconds(lambda t=tokenizer: t.encode(text)), seconds(peers[name]))
            for _ in range(pairs)
        ]
        row = {"case": f"encode {name}", **paired(*zip(*runs, strict=True))}
        row["MB/s"] = size / row["ours s"]
        row["peer MB/s"] = size / row["peer s"]
        rows.append(row)
        print(
            f"encode  {name:18} {row['MB/s']:6.2f} MB/s, the library alone "
            f"{row['peer MB/s']:6.2f} MB/s"
        )
    tokenizer = ours["tiktoken"]
    ids = tokenizer.encode(text)

    def stream() -> None:
        decoder = tokenizer.stream()
        for token in ids:
            decoder.feed(token)

    for case, call in (("at once", lambda: tokenizer.decode(ids)), ("stream", stream)):
        best = min(seconds(call) for _ in range(pairs))
        rows.append({"case": f"decode {case}", "s": best, "tokens/s": len(ids) / best})
        print(f"decode  {case:18} {len(ids) / best / 1e6:6.2f} million tokens/s")
    return rows


def linear_rows(ours: dict[str, MetaTokenizer], text: str) -> list[dict[str, Any]]:
    texts = {name: unit * CHARACTERS for name, unit in UNITS.items()}
    texts["text"] = (text * (CHARACTERS // len(text) + 1))[:CHARACTERS]
    texts["no space"] = "".join(texts["text"].split())
    rows = []
    for name, tokenizer in ours.items():
        for kind, long in texts.items():
            growth, spent = exponent(tokenizer.encode, long)
            rows.append({"case": f"linear {name} {kind}", "exponent": growth, "s": spent})
            print(
                f"linear  {name:11} {kind:9} exponent {growth:5.2f}, {spent:5.2f} s for "
                f"{len(long):,} characters"
            )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a tokenizer.model of your own")
    parser.add_argument("--size", type=int, default=200_000, help="ranks to make without --model")
    parser.add_argument("--megabytes", type=float, default=1.0)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    print(
        f"tokenizers {tokenizers.__version__}, tiktoken {tiktoken.__version__}, "
        f"Python {platform.python_version()}"
    )
    text = corpus(settings.megabytes)
    with tempfile.TemporaryDirectory() as folder:
        path = settings.model
        if path is None:
            path = Path(folder) / "tokenizer.model"
            write_ranks(made_ranks(settings.size, text), path)
        ranks = read_ranks(path)
        print(f"{len(ranks):,} ranks of {sum(map(len, ranks)) / len(ranks):.1f} bytes on average")
        rows = load_rows(path, settings.pairs)
    ours = {name: MetaTokenizer(ranks, engine) for name, engine in ENGINES.items()}
    first, second = (tokenizer.encode(text) for tokenizer in ours.values())
    if first != second:
        print("the two engines disagree on the corpus", file=sys.stderr)
        return 1
    rows += encode_rows(ours, ranks, text, settings.pairs)
    rows += linear_rows(ours, text)
    write(settings.json, vars(settings), {}, rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
