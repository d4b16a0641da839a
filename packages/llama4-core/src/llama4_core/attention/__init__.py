"""Softmax attention: backends, and what they share."""
