"""From a description to a model made of chosen parts."""
