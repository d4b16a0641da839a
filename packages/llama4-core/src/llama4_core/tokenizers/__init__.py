"""Tokenizers: text to ids and back, with special tokens never spelled by accident."""

from llama4_core.tokenizers.load import check_vocabulary, load_tokenizer
from llama4_core.tokenizers.tokenizer import StreamDecoder, Tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "check_vocabulary", "load_tokenizer"]
