"""Tokenizers: text to ids and back, with special tokens never spelled by accident."""

from llama4_core.tokenizers.formats import TokenizerFormat
from llama4_core.tokenizers.load import check_vocabulary, load_tokenizer
from llama4_core.tokenizers.ranks import read_ranks, write_ranks
from llama4_core.tokenizers.tokenizer import StreamDecoder, Tokenizer
from llama4_core.tokenizers.write import ranks_of, tokenizer_json, write_tokenizer_json

__all__ = [
    "StreamDecoder",
    "Tokenizer",
    "TokenizerFormat",
    "check_vocabulary",
    "load_tokenizer",
    "ranks_of",
    "read_ranks",
    "tokenizer_json",
    "write_ranks",
    "write_tokenizer_json",
]
