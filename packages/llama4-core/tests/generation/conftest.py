"""A model that is a deterministic function of all previous tokens, and a tokenizer of byte strings.

They make tests of the generation loop exact and quick: any mistake in what is fed, in which order
or to which row, changes the logits.
"""

from dataclasses import dataclass

import pytest
import torch

from llama4_core.specs import AttentionSpec, DenseSpec, LayerSpec, ModelSpec, TokenIds
from llama4_core.tokenizers.tokenizer import StreamDecoder

# Tokens of several bytes, among them parts of characters and overlapping runs of letters.
MULTIPLE = ["a", "ab", "ba", "bab", " the", "日".encode()[:2], "日".encode()[2:] + b"a", "é", "🦙"]
BOS, EOS = 256, 257


class PieceTokenizer:
    """One id per byte, a beginning, an end, and some longer pieces that only a model produces."""

    bos = BOS
    specials = {"<bos>": BOS, "<eos>": EOS}  # noqa: RUF012
    pieces = [  # noqa: RUF012
        *(bytes([byte]) for byte in range(256)),
        b"",
        b"",
        *(piece if isinstance(piece, bytes) else piece.encode() for piece in MULTIPLE),
    ]
    vocabulary = len(pieces)

    def encode(self, text, *, bos=True, specials=False):
        return [BOS] * bos + list(text.encode())

    def decode(self, ids, *, specials=False):
        return b"".join(self.pieces[token] for token in ids).decode("utf-8", "replace")

    def stream(self, *, specials=False):
        return StreamDecoder(self.pieces.__getitem__)


@dataclass
class Step:
    lengths: tuple[int, ...]
    context: "Context"


class Context:
    def __init__(self, rows):
        self.tokens = [[] for _ in range(rows)]
        self.pending = None

    def extend(self, lengths):
        assert self.pending is None, "extend without commit"
        assert len(lengths) == len(self.tokens)
        assert any(lengths)
        return Step(tuple(lengths), self)

    def commit(self, lengths=None):
        for tokens, new in zip(self.tokens, self.pending, strict=True):
            tokens.extend(new)
        self.pending = None


class FakeModel:
    """Hidden states are logits, drawn from the row's whole history.

    Attributes:
        script: ids that follow, whatever the prompt; None for random logits.
        forwards: the lengths of every forward.
    """

    device = "cpu"

    def __init__(self, *, vocabulary=PieceTokenizer.vocabulary, longest=64, eos=(EOS,)):
        attention = AttentionSpec("full-rope", heads=1, kv_heads=1, head_dim=2)
        self.spec = ModelSpec(
            name="fake",
            vocabulary=vocabulary,
            width=2,
            norm_eps=1e-5,
            max_positions=longest,
            tied=True,
            layers=(LayerSpec(attention, DenseSpec(2)),),
            tokens=TokenIds(bos=BOS, eos=eos),
        )
        self.tokenizer = PieceTokenizer()
        self.script = None
        self.prompt_length = 0
        self.forwards = []

    def cached(self, rows, *, capacity=0, cache="auto"):
        return Context(rows)

    def __call__(self, tokens, step):
        assert tokens.dtype == torch.int64
        assert tokens.shape == (sum(step.lengths),)
        assert not torch.is_grad_enabled()
        self.forwards.append(step.lengths)
        parts = [part.tolist() for part in tokens.split(list(step.lengths))]
        step.context.pending = parts
        hidden = []
        for known, new in zip(step.context.tokens, parts, strict=True):
            hidden += [self.logits([*known, *new[:n]]) for n in range(1, len(new) + 1)]
        assert max(map(len, step.context.tokens)) <= self.spec.max_positions
        return torch.stack(hidden), (None,)

    def logits(self, history):
        if self.script is not None:
            logits = torch.zeros(self.spec.vocabulary)
            logits[self.script[(len(history) - self.prompt_length) % len(self.script)]] = 9
            return logits
        # Hashes of tuples of whole numbers are the same in every run.
        seed = hash(tuple(history)) % 2**63
        return torch.randn(self.spec.vocabulary, generator=torch.Generator().manual_seed(seed)) * 3

    def project(self, hidden):
        return hidden.float()

    def say(self, *pieces):
        """Makes the model produce these ids (or pieces) after a prompt of one token."""
        table = self.tokenizer.pieces
        self.prompt_length = 1
        self.script = [p if isinstance(p, int) else table.index(p.encode()) for p in pieces]
        return self


@pytest.fixture
def model():
    return FakeModel()


@pytest.fixture(scope="session")
def make():
    """The class, for properties that need a new model per example."""
    return FakeModel
