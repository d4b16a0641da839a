"""Sentences out of templates, with agreement in gender and number.

A :class:`Language` has four templates for four kinds of meaning::

    is      The cat is black.
    sees    I see three cats.
    does    The cat sleeps.
    both    The black cat sleeps.

Words that agree come in two forms, masculine (or the only one) and feminine, joined by "/" in the
tables; German has a third, neuter, of its article.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from string import Formatter

ANIMALS = ("cat", "dog", "horse", "cow", "bird", "lion", "rabbit", "elephant")
COLOURS = ("black", "white", "red", "green", "yellow", "blue")
VERBS = ("sleep", "eat", "drink water", "run", "jump", "play")
NUMBERS = tuple(range(3, 11))
"""Three to ten: one and two have forms of their own in Arabic."""

GENDERS = "mfn"


@dataclass(frozen=True)
class Noun:
    """An animal.

    Attributes:
        one: singular, without article.
        many: as it stands behind a number.
        gender: "m", "f" or "n".
        article: before the singular, with the space or apostrophe behind it.
    """

    one: str
    many: str
    gender: str = "m"
    article: str = ""


@dataclass(frozen=True, eq=False)
class Language:
    """What one language needs for all sentences.

    Attributes:
        code: of ISO 639-1.
        name: in English.
        nouns: of :data:`ANIMALS`, in order.
        colours: of :data:`COLOURS` as they are said of something.
        attributes: of :data:`COLOURS` as they stand beside a noun.
        verbs: of :data:`VERBS`.
        numbers: of :data:`NUMBERS`.
        templates: by kind of meaning; fields are article, one, many, colour, attribute, verb,
            number, and sight for the verb of "sees" where it agrees.
        sight: forms of that verb.
    """

    code: str
    name: str
    nouns: tuple[Noun, ...]
    colours: tuple[str, ...]
    attributes: tuple[str, ...]
    verbs: tuple[str, ...]
    numbers: tuple[str, ...]
    templates: Mapping[str, str]
    sight: str = ""


@dataclass(frozen=True)
class Meaning:
    """What a sentence says in any language.

    Attributes:
        kind: "is", "sees", "does" or "both".
        animal: number of the animal.
        colour, verb, number: numbers of the others; -1 where the kind has none.
    """

    kind: str
    animal: int
    colour: int = -1
    verb: int = -1
    number: int = -1

    @property
    def key(self) -> str:
        """Another for each meaning."""
        return f"{self.kind} {self.animal} {self.colour} {self.verb} {self.number}"


def meanings() -> tuple[Meaning, ...]:
    """All of them, in a fixed order."""
    animals, colours, verbs = range(len(ANIMALS)), range(len(COLOURS)), range(len(VERBS))
    return (
        *(Meaning("is", a, colour=c) for a in animals for c in colours),
        *(Meaning("sees", a, number=n) for a in animals for n in range(len(NUMBERS))),
        *(Meaning("does", a, verb=v) for a in animals for v in verbs),
        *(Meaning("both", a, colour=c, verb=v) for a in animals for c in colours for v in verbs),
    )


@lru_cache(maxsize=1 << 13)
def parts(language: Language, meaning: Meaning) -> tuple[str, ...]:
    """A sentence in pieces, each ending with a word of the tables, the last with the full stop."""
    noun = language.nouns[meaning.animal]
    words = {"article": noun.article, "one": noun.one, "many": noun.many}
    for field, table, at in (
        ("colour", language.colours, meaning.colour),
        ("attribute", language.attributes, meaning.colour),
        ("verb", language.verbs, meaning.verb),
        ("number", language.numbers, meaning.number),
    ):
        if at >= 0:
            words[field] = _agreeing(table[at], noun.gender)
    words["sight"] = _agreeing(language.sight, noun.gender)
    found: list[str] = []
    for literal, name, _, _ in Formatter().parse(language.templates[meaning.kind]):
        if name is None:
            found[-1] += literal
        elif found and not literal and found[-1].lower() == noun.article:
            found[-1] += words[name]  # an article and the word behind it are one piece
        else:
            found.append(literal + words[name])
    found[0] = found[0][0].upper() + found[0][1:]
    return tuple(found)


def sentence(language: Language, meaning: Meaning) -> str:
    """A whole sentence."""
    return "".join(parts(language, meaning))


def _agreeing(forms: str, gender: str) -> str:
    """The form for a gender; the masculine one where there is no other."""
    given = forms.split("/")
    at = GENDERS.index(gender)
    return given[at] if at < len(given) else given[0]
