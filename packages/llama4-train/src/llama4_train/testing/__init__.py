"""Checks of the parts of a training run, for anybody's."""
