"""The loop: batches in, steps of the optimizer out."""
