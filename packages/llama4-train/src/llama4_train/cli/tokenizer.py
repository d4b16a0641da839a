"""``llama4 train tokenizer``: learns byte pairs from text and writes a tokenizer."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

from llama4_core.cli.output import add_json_option, add_plugin_option, catalogue_of, print_json
from llama4_train.errors import DataError, NoMoreDataError

if TYPE_CHECKING:
    from llama4_core.plugins.catalogue import Catalogue
    from llama4_train.data.skipping import Skipping
    from llama4_train.protocols import Record


class Command:
    """Learns a tokenizer."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "data",
            nargs="*",
            help="files or globs: text, .jsonl, .parquet; or hf:REPO. All of it is read",
        )
        parser.add_argument("--out", required=True, metavar="FOLDER", help="for the files")
        parser.add_argument(
            "--vocabulary",
            type=int,
            default=4096,
            metavar="N",
            help="tokens, special ones included (default 4096)",
        )
        parser.add_argument(
            "--specials",
            default="all",
            metavar="SET",
            help="all 2,048 special tokens of Llama 4 (default), or small: the 15 that text, "
            "chats, tools, pictures and padding need. Only with all there is a tokenizer.model",
        )
        parser.add_argument(
            "--digits",
            default="triple",
            metavar="HOW",
            help="triple: three digits may be one token, as in Llama 4 (default); or single",
        )
        parser.add_argument(
            "--rows",
            default="text",
            metavar="KIND",
            help="what JSON lines and tables hold: text (default), chat or image-text",
        )
        parser.add_argument("--field", metavar="NAME", help="that holds the text (default text)")
        parser.add_argument(
            "--recipe", metavar="FILE", help="read the mixture of a recipe instead of files"
        )
        parser.add_argument(
            "--records",
            type=int,
            metavar="N",
            help="at most so many records; needed where data has no end",
        )
        parser.add_argument(
            "--on-error",
            default="stop",
            metavar="HOW",
            help="stop (default) at a record that cannot be used, or skip it",
        )
        add_json_option(parser)
        add_plugin_option(parser)
        parser.epilog = (
            "example:\n  llama4 train tokenizer 'books/**/*.txt' --out tokenizer "
            "--vocabulary 8192 --digits single"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Learns, with progress on stderr."""
        from llama4_train.data.skipping import Skipping
        from llama4_train.tokenizer_training import train_tokenizer

        if bool(arguments.data) == bool(arguments.recipe):
            raise DataError("expected data to learn from, or --recipe FILE: one of them")
        if arguments.records is not None and arguments.records < 1:
            raise DataError(f"--records is {arguments.records}; expected at least 1")
        usable = Skipping(arguments.on_error)
        with _Reading() as shown:
            learnt = train_tokenizer(
                _texts(arguments, catalogue_of(arguments), usable),
                arguments.out,
                vocabulary=arguments.vocabulary,
                specials=arguments.specials,
                digits=arguments.digits,
                progress=shown,
            )
        if arguments.json:
            print_json(
                {
                    "vocabulary": learnt.vocabulary,
                    "learnt": learnt.ranks,
                    "specials": list(learnt.specials),
                    "files": [str(path) for path in learnt.files],
                    "texts": learnt.texts,
                    "bytes": learnt.bytes,
                    "records": usable.used,
                    "skipped": usable.skipped,
                }
            )
            return 0
        print(
            f"{arguments.out}: {learnt.vocabulary:,} tokens, {len(learnt.specials):,} of them "
            f"special, from {learnt.bytes / 1e6:,.1f} MB of text: "
            f"{', '.join(path.name for path in learnt.files)}"
        )
        if usable.skipped:
            print(usable.summary())
        return 0


def _texts(arguments: argparse.Namespace, known: Catalogue, usable: Skipping) -> Iterator[str]:
    from llama4_train.sources.named import sources_named
    from llama4_train.tokenizer_training.texts import source_texts

    if arguments.recipe:
        yield from source_texts(_Mixed(arguments.recipe, known), usable, arguments.records)
        return
    left = arguments.records
    for name, settings in sources_named(arguments.data, arguments.rows, arguments.field):
        source = known.find("data_sources", name).component.build(**settings)
        before = usable.used
        yield from source_texts(source, usable, left)
        if left is not None:
            left -= usable.used - before


class _Mixed:
    """The records of a recipe's mixture, until the first of its sources ends."""

    def __init__(self, path: str, known: Catalogue) -> None:
        from llama4_train.data.mixture import Mixture
        from llama4_train.recipe import Recipe

        recipe = Recipe.read(path)
        sources = []
        for part in recipe.data.sources:
            source = known.find("data_sources", part.name).component.build(**part.settings)
            if hasattr(source, "prepare"):
                raise DataError(
                    f"{path}: the source {part.name!r} gives tokens; a tokenizer is learnt from "
                    "the source that it keeps the tokens of"
                )
            sources.append((part.label or part.name, source))
        weights = [part.weight for part in recipe.data.sources]
        self._mixture = Mixture(sources, weights, recipe.seed)
        self.endless = all(getattr(source, "endless", False) for _, source in sources)

    def __next__(self) -> Record:
        try:
            # No source of tokens is among them.
            return cast("Record", next(self._mixture))
        except NoMoreDataError as error:
            if self._mixture.ended is None:
                raise
            raise StopIteration from error


class _Reading:
    """Says how much was read, on one line that is rewritten; silent where nobody looks."""

    def __init__(self) -> None:
        self._shown = 0.0

    def __call__(self, texts: int, size: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._shown >= 0.2:
            self._shown = now
            print(f"\r{texts:,} texts, {size / 1e6:,.1f} MB\x1b[K", end="", file=sys.stderr)

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print(file=sys.stderr)
