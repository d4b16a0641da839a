"""Looking into a running model: reading and changing activations, finding where two models part."""
