"""From a file to tiles: reading, limits, the tiling rule, pixels, tokens."""
