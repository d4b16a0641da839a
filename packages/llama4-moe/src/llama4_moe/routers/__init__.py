"""Routers: which experts each token visits, and with what weight."""
