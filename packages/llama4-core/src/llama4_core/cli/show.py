"""``llama4 show mask|irope|routing|accounting``: pictures, as text or with ``--out`` as a file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.cli.loading import add_model_options, load_model
from llama4_core.cli.output import (
    add_json_option,
    add_override_options,
    add_plugin_option,
    catalogue_of,
    overrides_of,
    print_json,
)
from llama4_core.errors import DrawingError

if TYPE_CHECKING:
    from llama4_core.protocols.masks import Mask
    from llama4_core.specs.model import ModelSpec

_MODEL = (
    "a name (see llama4 models), a folder, a repository (org/name) of the Hub, whose description "
    "alone is read, or a config.json, params.json or .toml file"
)


class MaskCommand:
    """Draws masks: those of a model's layers, or one that is spelled out."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("what", help=f"{_MODEL}; or a mask such as 'causal&chunked:8'")
        parser.add_argument("--length", type=int, default=24, help="tokens (default 24)")
        parser.add_argument(
            "--documents", metavar="N,N", help="lengths of packed documents, in place of --length"
        )
        parser.add_argument(
            "--chunk",
            type=int,
            metavar="N",
            help="draw every chunk and window as N positions (default: as they are, or a third of "
            "the length where they would not show)",
        )
        add_override_options(parser)
        _add_outputs(parser)
        parser.epilog = (
            "examples:\n  llama4 show mask scout --length 20 --chunk 8\n"
            "  llama4 show mask 'causal&window:4' --documents 9,6,5 --out mask.png"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Evaluates the masks and shows them."""
        from llama4_core.show import masks

        _check_out(arguments)
        documents = _documents(arguments)
        found, notes = _masks(arguments, sum(documents))
        pictures = [masks.picture(mask, documents, layers) for mask, layers in found]

        def words() -> str:
            return "\n\n".join([masks.text(pictures), *notes])

        return _deliver(
            arguments, [p.plain() for p in pictures], words, lambda: masks.draw(pictures)
        )


class IRopeCommand:
    """Draws layer pattern, rotations and temperature."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("model", help=_MODEL)
        add_plugin_option(parser)
        _add_outputs(parser)
        parser.epilog = "example:\n  llama4 show irope scout --out irope.png"

    def run(self, arguments: argparse.Namespace) -> int:
        """Shows them."""
        from llama4_core.show import irope

        _check_out(arguments)
        found = irope.irope(_spec(arguments))
        return _deliver(
            arguments, found.plain(), lambda: irope.text(found), lambda: irope.draw(found)
        )


class AccountingCommand:
    """Draws parameters by part and the growth of keys and values."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument("model", help=_MODEL)
        add_plugin_option(parser)
        _add_outputs(parser)
        parser.epilog = "example:\n  llama4 show accounting scout --out accounting.png"

    def run(self, arguments: argparse.Namespace) -> int:
        """Shows them."""
        from llama4_core.show import accounting

        _check_out(arguments)
        costs = accounting.costs_of(_spec(arguments))
        return _deliver(
            arguments,
            costs.plain(),
            lambda: accounting.text(costs),
            lambda: accounting.draw(costs),
        )


class RoutingCommand:
    """Runs a model over a text and draws which experts its tokens visit."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        add_model_options(parser)
        parser.add_argument("prompt", nargs="?", help="the text")
        parser.add_argument("--tokens", metavar="IDS", help="token ids instead: 1,2,3")
        _add_outputs(parser)
        parser.epilog = (
            'examples:\n  llama4 show routing ./checkpoint "The keeper of the lighthouse"\n'
            "  llama4 show routing nano --random 0 --tokens 1,2,3,4"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Runs the model once and shows the routings."""
        _check_out(arguments)
        if (arguments.prompt is None) == (arguments.tokens is None):
            raise DrawingError("expected either a text or --tokens IDS, not both or neither")
        ids = None if arguments.tokens is None else _numbers("--tokens", arguments.tokens)
        from llama4_core.show import routing

        model = load_model(arguments)
        if ids is None:
            if model.tokenizer is None:
                raise DrawingError(f"{arguments.model} has no tokenizer; pass --tokens IDS instead")
            ids = model.tokenizer.encode(arguments.prompt)
        found = routing.follow(model, ids)
        return _deliver(
            arguments, found.plain(), lambda: routing.text(found), lambda: routing.draw(found)
        )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="draw into FILE (.png, .svg or .pdf) instead"
    )
    add_json_option(parser)


def _check_out(arguments: argparse.Namespace) -> None:
    """What cannot be drawn is said before anything is computed."""
    if arguments.out is not None:
        from llama4_core.show.drawing import blank_figure, check_path

        check_path(arguments.out)
        blank_figure(1, 1)


def _deliver(
    arguments: argparse.Namespace,
    numbers: Any,
    words: Callable[[], str],
    draw: Callable[[], Any],
) -> int:
    """The picture file if one is asked for; the numbers as JSON or else the text."""
    if arguments.out is not None:
        from llama4_core.show.drawing import save

        save(draw(), arguments.out)
    if arguments.json:
        print_json(numbers)
    elif arguments.out is None:
        print(words())
    else:
        print(f"Wrote {arguments.out}")
    return 0


def _spec(arguments: argparse.Namespace, name: str | None = None) -> ModelSpec:
    from llama4_core.hub.resolve import cached
    from llama4_core.hub.settings import repo_of
    from llama4_core.specs.find import is_named, spec_from_path, spec_named

    name = arguments.model if name is None else name
    if Path(name).exists():
        return spec_from_path(name)
    known = catalogue_of(arguments)
    repo = None if is_named(name, known) else repo_of(name)
    if repo is not None:
        from llama4_core.hub.remote import RemoteCheckpoint

        here = cached(repo)
        return RemoteCheckpoint(name).spec if here is None else spec_from_path(here)
    return spec_named(name, known)


def _masks(
    arguments: argparse.Namespace, length: int
) -> tuple[list[tuple[Mask, list[int]]], list[str]]:
    """The masks with their layers, and what has to be said about them."""
    from llama4_core.show import masks
    from llama4_core.specs.find import is_named

    what: str = arguments.what
    names_mask = not Path(what).exists() and not is_named(what, catalogue_of(arguments))
    if names_mask and (":" in what or "&" in what or what in ("everything", "causal", "document")):
        return [(masks.parse_mask(what), [])], []
    from llama4_core.assembly.assemble import assemble

    spec = _spec(arguments, what)
    notes = []
    sizes = {x.attention.chunk or x.attention.window for x in spec.layers} - {None}
    size = arguments.chunk
    if size is None and any(own >= length for own in sizes if own is not None):
        size = max(length // 3, 1)
    if size is not None and sizes:
        spec = masks.shrunk(spec, size)
        real = ", ".join(str(own) for own in sorted(filter(None, sizes)))
        notes.append(f"drawn with chunks of {size}; those of {spec.name} have {real} positions")
    spec = masks.attention_alone(spec)
    model = assemble(spec, overrides_of(arguments), device="meta", plugins=arguments.plugin)
    by_mask = masks.masks_of(model)
    recurrent = by_mask.pop(None, [])
    if recurrent:
        notes.append(f"{len(recurrent)} layers keep a state and have no mask")
    if not by_mask:
        raise DrawingError(f"{spec.name} has no layer with a mask")
    return [(mask, layers) for mask, layers in by_mask.items() if mask is not None], notes


def _documents(arguments: argparse.Namespace) -> list[int]:
    if arguments.documents is None:
        return [arguments.length]
    return _numbers("--documents", arguments.documents)


def _numbers(option: str, text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise DrawingError(f"{option} got {text!r}; expected whole numbers, as in 5,7,8")
    return [int(part) for part in parts]
