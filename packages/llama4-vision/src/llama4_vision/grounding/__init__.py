"""Boxes in text: reading, measuring and drawing them."""
