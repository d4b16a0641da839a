"""Sockets, components and the catalogue that joins them. Imports without torch."""
