"""Bugs of tokenizers and of their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from llama4_core.testing.check import Subject
from llama4_core.testing.mutants import Mutant
from llama4_core.tokenizers.formats import HuggingFaceFormat, MetaFormat
from llama4_core.tokenizers.meta import Encoder, MetaTokenizer, tokenizers_encoder
from llama4_core.tokenizers.ranks import read_ranks
from llama4_core.tokenizers.tokenizer import StreamDecoder, Tokenizer


class PieceByPiece(StreamDecoder):
    """Decodes the bytes of each id alone."""

    def feed(self, token: int) -> str:
        """The text of one id."""
        return self._token_bytes(token).decode("utf-8", "replace")


class LosesTheEnd(StreamDecoder):
    """Drops the bytes of a character that stays incomplete."""

    def finish(self) -> str:
        """Nothing."""
        return ""


class HoldsTheLast(StreamDecoder):
    """Shows everything at the end."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        super().__init__(token_bytes)
        self._held = ""

    def feed(self, token: int) -> str:
        """Nothing yet."""
        self._held += super().feed(token)
        return ""

    def finish(self) -> str:
        """Everything."""
        return self._held + super().finish()


class Broken(MetaTokenizer):
    """A tokenizer with one bug: keyword arguments say which."""

    def __init__(self, ranks: Sequence[bytes], bug: str) -> None:
        self._bug = bug
        super().__init__(ranks, _short if bug == "cuts long pieces" else tokenizers_encoder)

    def encode(self, text: str, *, bos: bool = True, specials: bool = False) -> list[int]:
        """Encodes."""
        bug = self._bug
        if bug == "strips":
            text = text.strip() if isinstance(text, str) else text
        elif bug == "normalises line ends":
            text = text.replace("\r\n", "\n") if isinstance(text, str) else text
        elif bug == "replaces surrogates" and isinstance(text, str):
            text = text.encode("utf-8", "replace").decode()
        elif bug == "trusts the user":
            specials = True
        elif bug == "trusts the first token":
            first = re.match(r"<\|[a-z_]+\|>", text) if isinstance(text, str) else None
            if first and first[0] in self.specials and not specials:
                rest = super().encode(text[first.end() :], bos=False)
                return [*self._front(bos), self.specials[first[0]], *rest]
        elif bug == "never specials":
            specials = False
        elif bug == "space before each turn" and specials:
            text = re.sub(r"\|>(?=\w)", "|> ", text)
        ids = super().encode(text, bos=bos and bug != "no bos", specials=specials)
        if bug == "two bos" and bos:
            ids = [*self._front(True), *ids]
        return ids

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """Decodes."""
        if self._bug == "shows bos":
            specials = True
        elif self._bug == "wraps ids":
            ids = [n % self.vocabulary if isinstance(n, int) else n for n in ids]
        elif self._bug == "drops what is no id":
            ids = [n for n in ids if isinstance(n, int)]
        elif self._bug == "decodes id by id":
            return "".join(super(Broken, self).decode([n], specials=specials) for n in ids)
        return super().decode(ids, specials=specials)

    def stream(self, *, specials: bool = False) -> StreamDecoder:
        """A stream."""
        kinds = {
            "streams piece by piece": PieceByPiece,
            "loses the end": LosesTheEnd,
            "holds the stream": HoldsTheLast,
        }
        shown = specials or self._bug == "streams specials"
        return kinds.get(self._bug, StreamDecoder)(self._bytes(shown))

    @property
    def vocabulary(self) -> int:
        """Largest id, or that plus 1."""
        return super().vocabulary - (self._bug == "vocabulary too small")

    def _front(self, bos: bool) -> list[int]:
        return [self.bos] if bos and self.bos is not None else []


def _short(ranks: Sequence[bytes]) -> Encoder:
    encode = tokenizers_encoder(ranks)
    return lambda text: encode(text)[:20_000]


class BrokenFormat(MetaFormat):
    """Loads a tokenizer with one bug."""

    def __init__(self, bug: str) -> None:
        super().__init__()
        self._bug = bug

    def load(self, path: Path, *, bos: str | int | None = None) -> Tokenizer:
        """Loads."""
        return Broken(read_ranks(path / self.name), self._bug)


class DetectsEverything(MetaFormat):
    """Says yes to every folder."""

    def detect(self, path: Path) -> bool:
        """Yes."""
        return True


class OverlooksDamage(HuggingFaceFormat):
    """Does not see a file that cannot be read."""

    def detect(self, path: Path) -> bool:
        """Whether loading works."""
        try:
            self.load(path)
        except (ValueError, OSError):
            return False
        return True


class RaisesWhatComes(MetaFormat):
    """Lets the errors of the reading pass."""

    def load(self, path: Path, *, bos: str | int | None = None) -> Tokenizer:
        """Loads, carelessly."""
        lines = (path / self.name).read_text("ascii").splitlines()
        ranks = {int(line.split()[1]): line for line in lines}
        for rank in range(len(lines)):
            ranks[rank].encode()
        return super().load(path, bos=bos)


def _mutant(check: str, bug: str, build: Callable[..., Any] | None = None) -> Mutant:
    made = build or (lambda: BrokenFormat(bug))
    return Mutant(bug, check, Subject("tokenizers", bug.replace(" ", "-"), made))


MUTANTS: tuple[Mutant, ...] = (
    _mutant("round-trip", "strips"),
    _mutant("round-trip", "normalises line ends"),
    _mutant("round-trip", "shows bos"),
    _mutant("round-trip", "decodes id by id"),
    _mutant("long-runs", "cuts long pieces"),
    _mutant("stream-is-decode", "streams piece by piece"),
    _mutant("stream-is-decode", "loses the end"),
    _mutant("stream-is-decode", "streams specials"),
    _mutant("stream-keeps-characters-whole", "streams piece by piece"),
    _mutant("stream-keeps-characters-whole", "holds the stream"),
    _mutant("user-text-yields-no-special", "trusts the user"),
    _mutant("user-text-yields-no-special", "trusts the first token"),
    _mutant("specials-when-asked", "never specials"),
    _mutant("specials-when-asked", "space before each turn"),
    _mutant("ids-in-range", "vocabulary too small"),
    _mutant("ids-in-range", "two bos"),
    _mutant("ids-in-range", "no bos"),
    _mutant("bad-input-is-refused", "replaces surrogates"),
    _mutant("bad-input-is-refused", "wraps ids"),
    _mutant("bad-input-is-refused", "drops what is no id"),
    _mutant("damaged-files", "detects everything", DetectsEverything),
    _mutant("damaged-files", "overlooks damage", OverlooksDamage),
    _mutant("damaged-files", "raises what comes", RaisesWhatComes),
)
