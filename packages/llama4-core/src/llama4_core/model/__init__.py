"""The text model: blocks over one flat stream of tokens."""
