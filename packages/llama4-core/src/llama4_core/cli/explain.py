"""``llama4 explain MODEL``: what would run in every slot, from whom, and why the others do not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from llama4_core.cli.output import (
    add_json_option,
    add_override_options,
    catalogue_of,
    overrides_of,
)

if TYPE_CHECKING:
    from llama4_core.specs.model import ModelSpec


class Command:
    """Assembles a model without memory and prints its report."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options."""
        parser.add_argument(
            "model", help="name of a model (see llama4 models), a folder or a repository"
        )
        parser.add_argument("--dtype", help="what the model would run in, e.g. bfloat16")
        add_override_options(parser)
        add_json_option(parser)
        parser.epilog = (
            "example:\n  llama4 explain scout --set 'layers.[0-7].attention.backend=eager'"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the report."""
        from llama4_core.assembly.assemble import assemble

        model = assemble(
            _spec(arguments),
            overrides_of(arguments),
            device="meta",
            dtype=arguments.dtype,
            plugins=arguments.plugin,
        )
        print(model.report.to_json() if arguments.json else model.report.to_text())
        return 0


def _spec(arguments: argparse.Namespace) -> ModelSpec:
    """The description of the named model, a plugin file's included, or of a folder."""
    from llama4_core.checkpoints.formats import detect
    from llama4_core.checkpoints.load import resolve
    from llama4_core.hub.remote import RemoteCheckpoint
    from llama4_core.hub.resolve import cached
    from llama4_core.hub.settings import repo_of
    from llama4_core.specs.find import is_named, spec_named
    from llama4_core.specs.model import ModelSpec

    name, known = arguments.model, catalogue_of(arguments)
    if not Path(name).exists():
        if is_named(name, known):
            return spec_named(name, known)
        repo = repo_of(name)
        if repo is not None and cached(repo) is None:
            # A description is a few kilobytes; nobody downloads the weights to have it explained.
            return RemoteCheckpoint(name).spec
    found = resolve(name, known)
    return found if isinstance(found, ModelSpec) else detect(found).read_spec(found)
