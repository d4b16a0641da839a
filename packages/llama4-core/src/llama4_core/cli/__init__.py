"""The command line, ``llama4``."""

from llama4_core.cli.main import main

__all__ = ["main"]
