"""Checkpoints: folders of weights, read by mapping and written atomically."""
