"""Losses over a vocabulary that is too large to keep logits of."""
