"""From a film to frames: which ones to look at, their times, and their pictures."""
