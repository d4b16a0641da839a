"""Sockets, components and the catalogue that joins them. Imports without torch.

A plugin needs two names from here: :class:`Component` and ``hookimpl``. The catalogue of this
environment is :func:`llama4_core.catalogue`.
"""

from llama4_core.plugins.catalogue import Catalogue, Entry
from llama4_core.plugins.component import Component
from llama4_core.plugins.hookspecs import SOCKETS, Socket, hookimpl

__all__ = ["Component", "hookimpl", "Catalogue", "Entry", "SOCKETS", "Socket"]
