"""Conformance checks of encoders and adapters."""
