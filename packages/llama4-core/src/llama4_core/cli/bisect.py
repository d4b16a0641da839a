"""``llama4 bisect A B``: the first layer and slot where two models part."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama4_core.cli.output import (
    add_json_option,
    add_override_options,
    overrides_of,
    print_json,
    table,
)
from llama4_core.errors import ContextError

if TYPE_CHECKING:
    from llama4_core.inspection.bisect import BisectReport
    from llama4_core.inspection.recording import Recording
    from llama4_core.model.transformer import Transformer


class Command:
    """Compares two models slot by slot; exit code 0 when they are equal, 1 when they part."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "first", metavar="A", help="a folder, a model's name with --random, or a recording"
        )
        parser.add_argument(
            "second", metavar="B", nargs="?", help="the model to judge; A again when left out"
        )
        parser.add_argument("--save", metavar="FILE", help="record A into FILE, compare nothing")
        parser.add_argument(
            "--peer",
            choices=("transformers",),
            help="run A by another implementation (A is then a Hugging Face folder)",
        )
        parser.add_argument("--tokens", metavar="IDS", help="token ids to run: 200000,5,17")
        parser.add_argument("--text", help="a text to run, where A or B has a tokenizer")
        parser.add_argument(
            "--length", type=int, default=64, help="otherwise: so many random ids (default 64)"
        )
        parser.add_argument("--seed", type=int, default=0, help="of the random ids (default 0)")
        parser.add_argument("--dtype", default="auto", help="of A: auto (as stored), float32, ...")
        parser.add_argument("--dtype-b", default="auto", help="of B")
        parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
        parser.add_argument(
            "--random", type=int, metavar="SEED", help="random weights instead of stored ones"
        )
        parser.add_argument(
            "--set-b",
            action="append",
            default=[],
            metavar="PATH=NAME",
            help="like --set (which is for A), for B; repeatable",
        )
        add_override_options(parser)
        add_json_option(parser)
        parser.epilog = (
            "examples:\n"
            "  llama4 bisect nano --random 0 --dtype float32 --dtype-b bfloat16\n"
            "  llama4 bisect ./checkpoint --set-b 'layers.*.attention.backend=eager'\n"
            "  llama4 bisect ./checkpoint --peer transformers\n"
            "  llama4 bisect ./checkpoint --save today.safetensors\n"
            "  llama4 bisect yesterday.safetensors ./checkpoint"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Records A, or reads its recording, and runs B on it."""
        from llama4_core.inspection.bisect import bisect
        from llama4_core.inspection.recording import Recording

        if Path(arguments.first).is_file():
            if arguments.second is None or arguments.save or arguments.peer:
                raise ContextError(
                    f"{arguments.first} is a recording; expected a model B to compare with it, and "
                    "neither --save nor --peer"
                )
            if arguments.tokens or arguments.text:
                raise ContextError(
                    f"{arguments.first} is a recording and has its own tokens; leave out --tokens "
                    "and --text"
                )
            reference = Recording.load(arguments.first)
        elif arguments.save:
            _reference(arguments, None).save(arguments.save)
            print(f"{arguments.save}: recorded {arguments.first}")
            return 0
        else:
            reference = None
        subject = _subject(arguments)
        if reference is None:
            reference = _reference(arguments, subject)
        report = bisect(reference, subject, reference.tokens)
        if arguments.json:
            print_json(report.to_dict())
        else:
            print(_shown(report))
        return 0 if report.first is None else 1


def _load(arguments: argparse.Namespace, name: str, dtype: str, overrides: Any) -> Transformer:
    from llama4_core import load

    return load(
        name,
        dtype=dtype,
        device=arguments.device,
        overrides=overrides,
        random=arguments.random,
        plugins=arguments.plugin,
    )


def _subject(arguments: argparse.Namespace) -> Transformer:
    options = argparse.Namespace(overrides=arguments.set_b)
    name = arguments.second or arguments.first
    return _load(arguments, name, arguments.dtype_b, overrides_of(options))


def _reference(arguments: argparse.Namespace, subject: Transformer | None) -> Recording:
    from llama4_core.inspection.recording import record

    if arguments.peer is not None:
        from llama4_core.inspection.peer import load_transformers, record_transformers

        if arguments.random is not None or arguments.overrides:
            raise ContextError("--peer takes A as it is stored; leave out --random and --set")
        peer = load_transformers(arguments.first, arguments.dtype)
        known = subject or _subject(arguments)
        return record_transformers(
            peer, _tokens(arguments, known), f"transformers {arguments.first}"
        )
    model = _load(arguments, arguments.first, arguments.dtype, overrides_of(arguments))
    return record(model, _tokens(arguments, model), arguments.first)


def _tokens(arguments: argparse.Namespace, model: Transformer) -> Any:
    import torch

    if arguments.tokens and arguments.text:
        raise ContextError("got --tokens and --text; expected one of them")
    if arguments.tokens:
        try:
            return [int(number) for number in arguments.tokens.split(",")]
        except ValueError as error:
            raise ContextError(
                f"--tokens is {arguments.tokens!r}; expected whole numbers with commas between"
            ) from error
    if arguments.text:
        if model.tokenizer is None:
            raise ContextError(f"{arguments.first} has no tokenizer; give --tokens, not --text")
        return model.tokenizer.encode(arguments.text)
    if arguments.length < 1:
        raise ContextError(f"--length is {arguments.length}; expected at least 1")
    generator = torch.Generator().manual_seed(arguments.seed)
    return torch.randint(0, model.spec.vocabulary, (1, arguments.length), generator=generator)


def _shown(report: BisectReport) -> str:
    rows, length = report.tokens
    lines = [f"{report.reference} | {report.subject} | {rows} x {length} tokens", ""]
    shown = report.parted or sorted(
        report.slots, key=lambda result: result.deviation / (result.tolerance or 1), reverse=True
    )
    heading = ("slot", "deviation", "explained", "first at", "tokens")
    lines.append("slots that part, given equal inputs:" if report.parted else "nearest to parting:")
    lines.append(
        table(
            [
                heading,
                *(
                    (
                        result.slot,
                        f"{result.deviation:.2e}",
                        f"{result.tolerance:.2e}",
                        ""
                        if result.token is None
                        else f"row {result.token[0]}, position {result.token[1]}",
                        str(result.beyond or ""),
                    )
                    for result in shown[:12]
                ),
            ]
        )
    )
    if len(report.parted) > 12:
        lines.append(f"  and {len(report.parted) - 12} more")
    lines.append("")
    lines.append(
        f"route flips: {sum(report.flips.values())} with equal inputs, "
        f"{sum(report.free_flips.values())} when each runs on its own"
    )
    lines.append(
        f"on their own the logits deviate by {report.free_logits:.2e}; "
        f"{report.free_argmax:.1%} of the most probable tokens are the same"
    )
    if report.missing:
        lines.append(f"only on one side: {', '.join(report.missing[:6])}")
    if report.first is None:
        lines.append("equal: nothing differs by more than the dtype explains")
    else:
        lines += [f"they part at {report.first.slot}", f"hint: {report.hint}"]
    return "\n".join(lines)
