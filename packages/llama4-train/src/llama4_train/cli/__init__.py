"""Subcommands of `llama4`."""
