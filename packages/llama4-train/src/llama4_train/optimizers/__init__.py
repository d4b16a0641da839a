"""Optimizers, and the roles of parameters that they treat differently."""
