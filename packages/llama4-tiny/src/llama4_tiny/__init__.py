"""A small trained Llama 4: weights and tokenizer as package data, in the catalogue as ``tiny``."""

__version__ = "0.1.0"
