"""What the demo shows: a picture drawn on the spot, a long text with keys, questions."""
