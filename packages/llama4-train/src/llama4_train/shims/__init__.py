"""Small mends of other people's trainers, each undone by its own word."""
