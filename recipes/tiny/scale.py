"""A run's weights with some of them multiplied, to go on from in another run.

``python recipes/tiny/scale.py build/tiny/14-eyes build/tiny/14-louder 64 vision.projector.weight``
multiplies what the globs name by 64 and writes a folder that a recipe's ``model.start`` can name.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from llama4_core.checkpoints.save import new_folder, write_checkpoint
from llama4_core.errors import CheckpointError, Llama4Error
from llama4_train.checkpoints.runs import stored_model


def main(words: Sequence[str]) -> int:
    """Scales; 2 with one line where that cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run, or of one of its checkpoints")
    parser.add_argument("out", type=Path, help="folder that is not there yet")
    parser.add_argument("factor", type=float, help="above 0")
    parser.add_argument("names", nargs="+", help="globs of weights")
    arguments = parser.parse_args(words)
    try:
        changed = scale(arguments.run, arguments.out, arguments.factor, arguments.names)
    except Llama4Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: {', '.join(changed)} times {arguments.factor:g}")
    return 0


def scale(run: Path, out: Path, factor: float, globs: Sequence[str]) -> list[str]:
    """Writes the folder ``out``.

    Args:
        run: folder of a run, or of one of its checkpoints.
        out: folder that is not there yet.
        factor: above 0.
        globs: of names of weights, each of at least one.

    Returns:
        Names of what was multiplied.

    Raises:
        CheckpointError: there is no checkpoint, a glob names nothing, or the factor is no number
            above 0.
    """
    if not 0 < factor < math.inf:
        raise CheckpointError(f"the factor is {factor}; expected a number above 0")
    stored = stored_model(run)
    tensors = {**stored.tensors, **stored.aside}
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in tensors):
            raise CheckpointError(
                f"{run}: no weight is called {glob!r}; there are, for instance, "
                f"{', '.join(sorted(tensors)[:4])}"
            )
    changed = [name for name in tensors if any(fnmatchcase(name, glob) for glob in globs)]
    scaled = {name: one * factor if name in changed else one for name, one in tensors.items()}
    with new_folder(out, 2 * sum(one.nbytes for one in scaled.values())) as place:
        write_checkpoint(scaled, stored.spec, place, "native", carry_from=stored.carried)
    return changed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
