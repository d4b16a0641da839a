"""Plants every machine-made bug and says which the conformance kit finds.

python benchmarks/mutation.py                     # all, about a minute on one core
python benchmarks/mutation.py masks ledger        # some
python benchmarks/mutation.py --write docs/mutation.md
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from llama4_core.testing.mutation import Score, Target, score

INTRODUCTION = """# Mutation score

The conformance kit is tested by bugs. Those planted by hand are in `testing/mutants_*.py`, at least
one per check. This page counts those planted by machine: in each file below every comparison, whole
number and sign is changed, one at a time (`<` to `<=`, `==` to `!=`, `+` to `-`, `n` to `n + 1`,
`min` to `max`, `any` to `all`, `and` to `or`), and the checks of its socket run with 25 examples
each (200 for the ledger). A survivor is a change that no check noticed; the score counts it as
missed, even where it changes no result.

Written by `python benchmarks/mutation.py --write docs/mutation.md`.
"""


def short(target: Target) -> str:
    """Last word of the module's name."""
    return target.module.__name__.rpartition(".")[2]


def targets(names: list[str]) -> list[Target]:
    """Those named, or all."""
    from llama4_core.testing import mutation_targets as core
    from llama4_moe.testing import mutation_targets as moe

    every = [*core.TARGETS, *moe.TARGETS]
    unknown = set(names) - {short(target) for target in every}
    if unknown:
        sys.exit(f"unknown {sorted(unknown)}; expected some of {[short(t) for t in every]}")
    return [target for target in every if not names or short(target) in names]


def page(scores: list[Score]) -> str:
    """The text of the documentation's page."""
    lines = [INTRODUCTION, "| module | bugs | found | score |", "|---|---|---|---|"]
    for found in scores:
        caught = found.sites - len(found.survivors)
        lines.append(
            f"| `{found.target.module.__name__}` | {found.sites} | {caught} | {found.share:.0%} |"
        )
    total, missed = sum(s.sites for s in scores), sum(len(s.survivors) for s in scores)
    lines.append(f"| all | {total} | {total - missed} | {1 - missed / total:.0%} |")
    lines += ["", "## Survivors", ""]
    for found in scores:
        for site in found.survivors:
            reason = found.target.survivors.get(site.address, "**not explained**")
            lines.append(f"- `{site.function}`: `{site.text}`, {site.change}: {reason}.")
    lines += ["", "## Left out", ""]
    lines.append(
        "- Methods that call `super()`, inner functions, and what a module computes at import."
    )
    for found in scores:
        lines += [f"- `{name}`: {reason}." for name, reason in found.target.leave.items()]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("modules", nargs="*", help="short names, such as masks; all by default")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page here")
    arguments = parser.parse_args()
    scores = []
    for target in targets(arguments.modules):
        started = time.perf_counter()
        scores.append(score(target))
        print(f"{scores[-1].explain()}\n  {time.perf_counter() - started:.0f} s", flush=True)
    if arguments.write is not None:
        arguments.write.write_text(page(scores))
    wrong = [found for found in scores if found.unexplained or found.outdated]
    missed = sum(len(found.survivors) for found in scores)
    return 1 if wrong or missed > 0.1 * sum(found.sites for found in scores) else 0


if __name__ == "__main__":
    sys.exit(main())
