"""Expert backends: the computation of the chosen experts."""
