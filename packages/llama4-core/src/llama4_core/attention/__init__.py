"""Attention backends: eager (the oracle), sdpa (the default), flex and xformers (optional).

The package imports without torch; each backend's module imports what it runs on. What a backend
refuses, and why, is said by :mod:`llama4_core.attention.support`, also without torch.
"""
