"""Contexts own batching, caching and masking; everything else sees a flat stream of tokens."""
