"""Pictures of a model: each module computes numbers, writes them as text and draws a figure."""
