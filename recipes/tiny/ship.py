"""The last checkpoint of a run as the weights of the package llama4-tiny.

``python recipes/tiny/ship.py build/tiny/22-keys`` writes spec, weights in bfloat16 and tokenizer
into ``packages/llama4-tiny/src/llama4_tiny/data``, in place of what was there. What was measured
of other weights goes with them: ``recipes/tiny/measure.py`` measures the new ones.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from llama4_core.checkpoints.save import new_folder, write_checkpoint
from llama4_core.errors import CheckpointError, Llama4Error
from llama4_train.checkpoints.exports import without_bias
from llama4_train.checkpoints.runs import stored_model

ROOT = Path(__file__).resolve().parent.parent.parent
DATA = ROOT / "packages" / "llama4-tiny" / "src" / "llama4_tiny" / "data"
LARGEST = 12_000_000
"""Bytes of weights that the package may bring: 12 MB."""

WIDE = (torch.float32, torch.float64)


def main(words: list[str]) -> int:
    """Ships; 2 with one line where that is refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its checkpoints")
    parser.add_argument("--out", type=Path, default=DATA, help=f"default: {DATA}")
    parser.add_argument("--tokenizer", type=Path, help="folder of it; default: that of the run")
    parser.add_argument(
        "--drop-bias",
        action="store_true",
        help="leave out a balancing bias that is not zero, which changes what the model says",
    )
    arguments = parser.parse_args(words)
    try:
        said = ship(arguments.run, arguments.out, arguments.tokenizer, arguments.drop_bias)
    except Llama4Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(said)
    return 0


def ship(run: Path, out: Path, tokenizer: Path | None = None, drop_bias: bool = False) -> str:
    """Writes the folder ``out``: all of it, or nothing.

    Args:
        run: as on the command line.
        out: replaced when the new one is complete.
        tokenizer: folder of a tokenizer.json; None for the one of the run.
        drop_bias: leave out a balancing bias of the routers that is not zero.

    Returns:
        What was written, for people.

    Raises:
        CheckpointError: there is no checkpoint, a bias is not zero, no tokenizer is known, or the
            weights are larger than :data:`LARGEST`.
    """
    stored = stored_model(run)
    carried = tokenizer or stored.carried
    if carried is None or not (carried / "tokenizer.json").is_file():
        raise CheckpointError(
            f"{run}: no tokenizer.json goes along ({carried or 'the run has none'}); name its "
            "folder with --tokenizer"
        )
    spec, tensors = without_bias(stored.spec, stored.tensors, keep=False, drop=drop_bias)
    narrow = {
        name: tensor.to(torch.bfloat16) if tensor.dtype in WIDE else tensor
        for name, tensor in {**tensors, **stored.aside}.items()
    }
    size = sum(tensor.nbytes for tensor in narrow.values())
    if size > LARGEST:
        raise CheckpointError(
            f"{run}: its weights take {size:,} bytes in bfloat16; expected at most {LARGEST:,}: "
            "train a smaller shape (recipes/tiny/spec.toml)"
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
