"""Encoders of tiles."""
