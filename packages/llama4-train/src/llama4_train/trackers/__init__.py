"""What writes down the numbers of a run."""
