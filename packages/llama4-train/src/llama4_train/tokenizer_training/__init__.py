"""Learning a tokenizer from text: byte pairs, written in both file formats."""

from llama4_train.tokenizer_training.ranks import learn_ranks
from llama4_train.tokenizer_training.specials import SMALL
from llama4_train.tokenizer_training.texts import texts_of
from llama4_train.tokenizer_training.train import Learnt, train_tokenizer

__all__ = ["SMALL", "Learnt", "learn_ranks", "texts_of", "train_tokenizer"]
