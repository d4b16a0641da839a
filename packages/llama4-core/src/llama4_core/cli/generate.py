"""``llama4 generate MODEL PROMPT``: continues a text, streaming it to the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from llama4_core.cli.loading import add_model_options, load_model
from llama4_core.cli.output import (
    add_json_option,
    print_json,
)
from llama4_core.cli.pictures import (
    add_picture_options,
    check_options,
    draw,
    limit_images,
    pictures_of,
    say_drawn,
)
from llama4_core.errors import GenerationError

if TYPE_CHECKING:
    from llama4_core.generation import Piece
    from llama4_core.tokenizers import Tokenizer

# Prompt tokens per forward: enough to keep the kernels busy, little enough to see progress.
PREFILL_CHUNK = 2048
_BAR = 30


class Command:
    """Generates from one prompt."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        add_model_options(parser)
        parser.add_argument("prompt", nargs="?", help="the text to continue")
        parser.add_argument(
            "--tokens", metavar="IDS", help="the prompt as token ids instead: 200000,5,17"
        )
        parser.add_argument("--max-tokens", type=int, default=64, help="most tokens (default 64)")
        parser.add_argument(
            "--temperature", type=float, default=0.0, help="0 is greedy, the default"
        )
        parser.add_argument("--top-k", type=int, help="keep the k most probable tokens")
        parser.add_argument(
            "--top-p", type=float, help="keep the fewest tokens with this probability together"
        )
        parser.add_argument(
            "--min-p", type=float, help="keep tokens with this share of the largest probability"
        )
        parser.add_argument(
            "--sampler", default="inversion", metavar="NAME", help="what draws the tokens"
        )
        parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default 0)")
        parser.add_argument(
            "--stop", action="append", default=[], metavar="TEXT", help="end at TEXT; repeatable"
        )
        parser.add_argument("--ignore-eos", action="store_true", help="go on past the end of text")
        parser.add_argument(
            "--logprobs",
            type=int,
            metavar="N",
            help="report log-probabilities, and those of the N most probable tokens",
        )
        parser.add_argument(
            "--prefill-chunk",
            type=int,
            default=PREFILL_CHUNK,
            metavar="N",
            help=f"prompt tokens per forward (default {PREFILL_CHUNK})",
        )
        add_picture_options(parser, "the text")
        add_json_option(parser)
        parser.epilog = (
            "examples:\n"
            '  llama4 generate ./checkpoint "Once upon a time" --temperature 0.8 --top-p 0.95\n'
            "  llama4 generate nano --random 0 --tokens 1,2,3 --max-tokens 8\n"
            '  llama4 generate ./checkpoint "This picture shows" --image cat.png'
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Loads the model and prints what it says."""
        prompt = _prompt(arguments)
        from llama4_core.generation import Sampling

        # What cannot work is said before a large model is loaded; stream() checks the rest.
        Sampling(arguments.temperature, arguments.top_k, arguments.top_p, arguments.min_p)
        check_options(arguments)
        pictures = pictures_of(arguments)
        model = load_model(arguments)
        limit_images(model, arguments.max_images)
        pieces = model.stream(
            prompt,
            images=pictures,
            max_tokens=arguments.max_tokens,
            temperature=arguments.temperature,
            top_k=arguments.top_k,
            top_p=arguments.top_p,
            min_p=arguments.min_p,
            sampler=arguments.sampler,
            seed=arguments.seed,
            stop=arguments.stop,
            ignore_eos=arguments.ignore_eos,
            logprobs=arguments.logprobs,
            prefill_chunk=arguments.prefill_chunk,
            progress=_bar if sys.stderr.isatty() else None,
        )
        watch = _Watch()
        done: list[Piece] = []
        for piece in watch(pieces):
            done.append(piece)
            if not arguments.json:
                print(_shown(piece, model.tokenizer), end="", flush=True)
        if not arguments.json:
            print()
        drawn = draw(model, pictures, "".join(piece.text for piece in done), arguments.draw)
        if arguments.json:
            print_json({**_summary(done, model.tokenizer, watch), **drawn})
            return 0
        if arguments.logprobs is not None:
            for line in _table(done, model.tokenizer):
                print(line)
        print(_speed(done, watch), file=sys.stderr)
        say_drawn(drawn)
        return 0


class _Watch:
    """Passes pieces on and times them: the first contains the prefill, the others are decoding."""

    def __init__(self) -> None:
        self.first = 0.0
        self.rest = 0.0

    def __call__(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        start = time.perf_counter()
        for index, piece in enumerate(pieces):
            now = time.perf_counter()
            if index == 0:
                self.first = now - start
            else:
                self.rest += now - start
            yield piece
            start = time.perf_counter()


def _prompt(arguments: argparse.Namespace) -> str | list[int]:
    if (arguments.prompt is None) == (arguments.tokens is None):
        raise GenerationError(
            f"got {'no prompt' if arguments.prompt is None else 'a prompt and --tokens'}; expected "
            "either the text to continue or --tokens IDS"
        )
    if arguments.tokens is None:
        if not arguments.prompt:
            raise GenerationError("the prompt is empty; expected the text to continue")
        return str(arguments.prompt)
    try:
        return [int(number) for number in arguments.tokens.split(",")]
    except ValueError as error:
        raise GenerationError(
            f"--tokens is {arguments.tokens!r}; expected whole numbers with commas between them, "
            "such as 200000,5,17"
        ) from error


def _shown(piece: Piece, tokenizer: Tokenizer | None) -> str:
    """The piece for a terminal: its text, or its ids where there is no tokenizer."""
    if tokenizer is not None:
        return piece.text
    return "".join(f"{token} " for token in piece.tokens)


def _summary(pieces: list[Piece], tokenizer: Tokenizer | None, watch: _Watch) -> dict[str, Any]:
    tokens = [token for piece in pieces for token in piece.tokens]
    found: dict[str, Any] = {
        "text": None if tokenizer is None else "".join(piece.text for piece in pieces),
        "tokens": tokens,
        "stop_reason": pieces[-1].stop_reason,
        "seconds_to_first_token": watch.first,
        "tokens_per_second": _rate(tokens, watch),
    }
    for name in ("logprobs", "alternatives"):
        if getattr(pieces[-1], name) is not None:
            found[name] = [entry for piece in pieces for entry in getattr(piece, name)]
    return found


def _table(pieces: list[Piece], tokenizer: Tokenizer | None) -> Iterator[str]:
    """One line per token: its log-probability, itself, and the alternatives."""
    name: Callable[[int], str] = str
    if tokenizer is not None:
        shown = tokenizer

        def name(token: int) -> str:
            return repr(shown.decode([token], specials=True))

    for piece in pieces:
        for index, token in enumerate(piece.tokens):
            others = piece.alternatives[index] if piece.alternatives else ()
            listed = "  ".join(f"{name(other)} {value:.3f}" for other, value in others)
            own = piece.logprobs[index] if piece.logprobs else 0.0
            yield f"{own:9.3f}  {name(token):16}  {listed}".rstrip()


def _speed(pieces: list[Piece], watch: _Watch) -> str:
    tokens = [token for piece in pieces for token in piece.tokens]
    rate = _rate(tokens, watch)
    speed = "" if rate is None else f", then {rate:.1f} tokens/s"
    reason = str(pieces[-1].stop_reason).replace("_", " ")
    return f"[{len(tokens)} tokens, first after {watch.first:.2f} s{speed}; stopped by {reason}]"


def _rate(tokens: list[int], watch: _Watch) -> float | None:
    """Tokens per second after the first."""
    return (len(tokens) - 1) / watch.rest if len(tokens) > 1 and watch.rest > 0 else None


def _bar(done: int, total: int) -> None:
    """Draws the progress of the prefill on stderr, and wipes it at the end."""
    if done < total:
        filled = _BAR * done // total
        bar = "#" * filled + "." * (_BAR - filled)
        print(f"\rprompt [{bar}] {done}/{total}", end="", file=sys.stderr, flush=True)
    else:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
