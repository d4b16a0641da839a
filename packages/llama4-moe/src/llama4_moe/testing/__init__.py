"""Checks of mixtures of experts, for anybody's: plain functions that raise ``AssertionError``."""
