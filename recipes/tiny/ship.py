"""The last checkpoint of a run, or the mean of several, as the weights of the package llama4-tiny.

``python recipes/tiny/ship.py build/tiny/22-keys build/tiny/23-count --shares 1 2`` writes spec,
weights in bfloat16 and tokenizer into ``packages/llama4-tiny/src/llama4_tiny/data``, in place of
what was there. What was measured of other weights goes with them: ``recipes/tiny/measure.py``
measures the new ones.
"""

from __future__ import annotations

import argparse
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from llama4_core.checkpoints.save import new_folder, write_checkpoint
from llama4_core.errors import CheckpointError, Llama4Error
from llama4_train.checkpoints.exports import without_bias
from llama4_train.checkpoints.runs import StoredModel, stored_model

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "packages" / "llama4-tiny" / "src" / "llama4_tiny" / "data"
LARGEST = 12_000_000
"""Bytes of weights that the package may bring: 12 MB."""

WIDE = (torch.float32, torch.float64)


def main(words: list[str]) -> int:
    """Ships; 2 with one line where that is refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="folder of a run, or of one of its checkpoints"
    )
    parser.add_argument(
        "--shares", type=float, nargs="+", help="of each run in the mean; default: all alike"
    )
    parser.add_argument("--out", type=Path, default=DATA, help=f"default: {DATA}")
    parser.add_argument("--tokenizer", type=Path, help="folder of it; default: that of the run")
    parser.add_argument(
        "--drop-bias",
        action="store_true",
        help="leave out a balancing bias that is not zero, which changes what the model says",
    )
    arguments = parser.parse_args(words)
    try:
        shares = arguments.shares or [1.0] * len(arguments.runs)
        stored = mean(arguments.runs, shares)
        said = ship(stored, arguments.out, arguments.tokenizer, arguments.drop_bias)
    except Llama4Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(said)
    return 0


def mean(runs: Sequence[Path], shares: Sequence[float]) -> StoredModel:
    """The weighted mean of the weights of several runs, in float32.

    Meant for runs that go on from each other at a low rate: what the last steps of each did by
    chance averages out (Izmailov et al., "Averaging weights leads to wider optima and better
    generalization", 2018).

    Args:
        runs: of one model; description and tokenizer are the last one's.
        shares: of each, above 0; they need not sum to 1.

    Raises:
        CheckpointError: there is no checkpoint, the models differ, or a share is none.
    """
    if len(shares) != len(runs) or not all(0 < share < math.inf for share in shares):
        raise CheckpointError(
            f"{len(runs)} runs have the shares {list(shares)}; expected a number above 0 for each"
        )
    models = [stored_model(run) for run in runs]
    last = models[-1]
    if len(models) == 1:
        return last
    for run, model in zip(runs, models, strict=True):
        if model.spec != last.spec or model.tensors.keys() != last.tensors.keys() or model.aside:
            raise CheckpointError(
                f"{run}: is of another model than {runs[-1]}; expected runs of one, without "
                "weights that nothing ran"
            )
    sums = {
        name: sum(
            share / sum(shares) * model.tensors[name].float()
            for share, model in zip(shares, models, strict=True)
        )
        for name in last.tensors
    }
    return replace(last, tensors=sums)


def ship(
    stored: StoredModel, out: Path, tokenizer: Path | None = None, drop_bias: bool = False
) -> str:
    """Writes the folder ``out``: all of it, or nothing.

    Args:
        stored: from :func:`mean`.
        out: replaced when the new one is complete.
        tokenizer: folder of a tokenizer.json; None for the one of the run.
        drop_bias: leave out a balancing bias of the routers that is not zero.

    Returns:
        What was written, for people.

    Raises:
        CheckpointError: a bias is not zero, no tokenizer is known, or the weights are larger than
            :data:`LARGEST`.
    """
    carried = tokenizer or stored.carried
    if carried is None or not (carried / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{stored.place}: no tokenizer.json goes along ({carried or 'the run has none'}); name "
            "its folder with --tokenizer"
        )
    spec, tensors = without_bias(stored.spec, stored.tensors, keep=False, drop=drop_bias)
    narrow = {
        name: tensor.to(torch.bfloat16) if tensor.dtype in WIDE else tensor
        for name, tensor in {**tensors, **stored.aside}.items()
    }
    size = sum(tensor.nbytes for tensor in narrow.values())
    if size > LARGEST:
        raise CheckpointError(
            f"{stored.place}: its weights take {size:,} bytes in bfloat16; expected at most "
            f"{LARGEST:,}: train a smaller shape (recipes/tiny/spec.toml)"
        )
    spec = replace(spec, name="tiny", dtype="bfloat16")
    out = out.absolute()
    with new_folder(out.with_name(f"{out.name}.new"), 2 * size) as place:
        write_checkpoint(narrow, spec, place / "data", "native", carry_from=carried)
        if out.exists():
            shutil.rmtree(out)
        (place / "data").rename(out)
    out.with_name(f"{out.name}.new").rmdir()
    numbers = sum(tensor.numel() for tensor in narrow.values())
    written = "".join(
        f"  {file.stat().st_size:>12,}  {file.name}\n" for file in sorted(out.iterdir())
    )
    return f"{stored.place}: {numbers:,} weights in bfloat16 -> {out}\n{written.rstrip()}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
