"""From records to batches: encoding, mixing, packing; every part with an exact state."""
